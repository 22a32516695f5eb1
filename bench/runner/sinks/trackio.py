"""Trackio: one run for each record. https://huggingface.co/docs/trackio"""

import sys

from bench.core.schema import Record
from bench.runner.sending import known_metrics, parameters_of

PACKAGE, EXTRA = "trackio", "trackio"
TARGET = "a project"


class Sender:
    """Sends records to the project `target` of this machine; `trackio show` displays it."""

    def __init__(self, target: str, *, suite: str) -> None:
        import trackio  # noqa: F401

        self._project, self._suite = target, suite
        # trackio announces each run on standard output, where `run --log-json` prints its events, and has no option
        # against that. Redirecting the output would take the prints of other threads as well.
        for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
            vars(sys.modules[name])["print"] = _print_nothing

    def send(self, record: Record) -> None:
        """Create and end a run: axes as its config, known values as one step. Raises OSError if it was not stored."""
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        config = {**parameters_of(record), "suite": self._suite, "case_id": record.case_id, "status": record.status}
        name = f"{record.case.title} {record.case_id}-{record.run_index}"  # a name that is taken continues its run
        trackio.init(project=self._project, name=name, config=config, embed=False)
        trackio.log(known_metrics(record))
        trackio.finish()
        if not SQLiteStorage.get_logs(self._project, name):  # trackio itself only warns, and goes on
            raise OSError(f"project {self._project} could not be written")

    def close(self) -> None:
        """Nothing is kept open."""


def _print_nothing(*values: object, **options: object) -> None:
    """Stand-in for `print` in the modules of trackio."""
