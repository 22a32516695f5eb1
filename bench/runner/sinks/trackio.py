"""Trackio: one run for each record. https://huggingface.co/docs/trackio"""

from bench.core.schema import Record
from bench.runner.sending import known_metrics, parameters_of

PACKAGE, EXTRA = "trackio", "trackio"
TARGET = "a project"


class Sender:
    """Sends records to the project `target` of this machine; `trackio show` displays it."""

    def __init__(self, target: str, *, suite: str) -> None:
        self._project, self._suite = target, suite

    def send(self, record: Record) -> None:
        """Create and end a run: axes as its config, known values as one step."""
        import trackio

        config = {**parameters_of(record), "suite": self._suite, "case_id": record.case_id, "status": record.status}
        name = f"{record.case.title} {record.case_id}-{record.run_index}"  # a name that is taken continues its run
        trackio.init(project=self._project, name=name, config=config, embed=False)
        trackio.log(known_metrics(record))
        trackio.finish()

    def close(self) -> None:
        """Nothing is kept open."""
