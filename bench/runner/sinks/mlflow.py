"""MLflow: one run for each record, in an experiment with the name of the suite. https://mlflow.org"""

import os
import re

from bench.core.schema import Record
from bench.runner.sending import known_metrics, parameters_of

PACKAGE, EXTRA = "mlflow", "mlflow"
TARGET = "the URI of a tracking server or database, such as http://localhost:5000 or sqlite:///mlflow.db"
LONGEST_TEXT = 500  # of a parameter, in servers before MLflow 2.8


class Sender:
    """Sends records to the tracking server at `target`."""

    def __init__(self, target: str, *, suite: str) -> None:
        # A server that is gone must cost seconds, not the minutes of seven retries with longer and longer waits.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=target)
        found = self._client.get_experiment_by_name(suite)
        self._experiment = self._client.create_experiment(suite) if found is None else found.experiment_id

    def send(self, record: Record) -> None:
        """Create and end a run: axes as parameters, known values as metrics, the whole record as a file."""
        tags = {"vbench.case": record.case_id, "vbench.run": str(record.run_index), "vbench.status": record.status}
        run = self._client.create_run(self._experiment, run_name=record.case.title, tags=tags)
        for name, value in parameters_of(record).items():
            self._client.log_param(run.info.run_id, _allowed(name), str(value)[:LONGEST_TEXT])
        for name, number in known_metrics(record).items():
            self._client.log_metric(run.info.run_id, _allowed(name), number)
        self._client.log_text(run.info.run_id, record.model_dump_json(indent=1), "record.json")
        self._client.set_terminated(run.info.run_id, "FINISHED" if record.is_good else "FAILED")

    def close(self) -> None:
        """Nothing is kept open."""


def _allowed(name: str) -> str:
    """`throughput.clips_per_s{batch=8}` as `throughput.clips_per_s/batch-8`: MLflow takes no braces in names."""
    return re.sub(r"[^\w.\-/: ]", "-", name.replace("{", "/").replace("}", ""))
