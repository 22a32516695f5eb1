"""Weights & Biases: one run for each record, grouped by suite. https://docs.wandb.ai"""

from bench.core.schema import Record
from bench.runner.sending import known_metrics, parameters_of

PACKAGE, EXTRA = "wandb", "wandb"
TARGET = "a project, or entity/project"


class Sender:
    """Sends records to the project `target`; WANDB_MODE=offline writes them to the folder `wandb` instead."""

    def __init__(self, target: str, *, suite: str) -> None:
        entity, _, project = target.rpartition("/")
        self._place = {"project": project, "entity": entity or None, "group": suite}

    def send(self, record: Record) -> None:
        """Create and end a run: axes as its config, known values as its summary."""
        import wandb

        config = {**parameters_of(record), "case_id": record.case_id, "status": record.status}
        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(**self._place, name=record.case.title, config=config, settings=settings, reinit="create_new")
        run.summary.update(known_metrics(record))
        run.finish(exit_code=0 if record.is_good else 1)

    def close(self) -> None:
        """Nothing is kept open."""
