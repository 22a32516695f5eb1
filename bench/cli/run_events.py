"""The events of a run as JSON lines on standard output, for programs that follow it."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.schema import Record

if TYPE_CHECKING:
    from bench.runner.running import Event, RunSummary


class JsonEvents:
    """Prints a JSON object per line: `planned`, then `started`, `progress` and `finished` of each run, then `ended`."""

    def show(self, event: "Event") -> None:
        """Print an event of the run with its counts; a `finished` event includes the metrics."""
        case = event.case and {"id": event.case.id, "title": event.case.title, "run": event.run_index}
        facts: dict[str, Any] = {
            "done": event.done,
            "failed": event.failed,
            "left": event.left,
            "left_s": event.left_s,
            "case": case,
        }
        if event.kind in ("progress", "waiting", "note"):
            facts |= {"text": event.text, "fraction": event.fraction}
        if event.lane is not None:
            facts["lane"] = event.lane
        if event.record is not None:
            facts |= _result(event.record)
        self._print(event.kind, facts)

    def step(self, kind: str, text: str) -> None:
        """Print a step of a submission to a cluster, such as `submitted`."""
        self._print(kind, {"text": text})

    def serving(self, address: str) -> None:
        """Print where the report of the run is served."""
        self._print("serving", {"address": address})

    def end(self, summary: "RunSummary", report: Path | None) -> None:
        """Print how the run ended."""
        facts = {
            "suite": summary.suite,
            "folder": str(summary.folder),
            "measured": summary.measured,
            "failed": summary.failures,
            "done_before": summary.skipped,
            "left_out": summary.left_out,
            "notes": list(summary.notes),
            "report": None if report is None else str(report),
            "exit_code": summary.exit_code,
        }
        self._print("ended", facts)

    def _print(self, kind: str, facts: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sys.stdout.write(json.dumps({"event": kind, "time": now, **facts}) + "\n")
        sys.stdout.flush()  # a program that reads the pipe waits for this line


def _result(record: Record) -> dict[str, Any]:
    return {
        "status": record.status,
        "seconds": record.seconds.get("whole"),
        "metrics": {metric.key: metric.value for metric in record.metrics},
        "error": record.error and {"type": record.error.type, "message": record.error.message},
        "warnings": [warning.what for warning in record.warnings],
    }
