"""Two records, one of a failed run, and a process that sends them to a tracker as a run of a suite does."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record

# A process of its own: trackers read their settings at import and keep threads and servers.
SEND = """
import sys
from bench.core.schema import Record
from bench.runner.sending import Sink

sink = Sink(sys.argv[1])
sink.start("kernel_depth")
for line in sys.stdin:
    print(sink.add(Record.model_validate_json(line)))
sink.close()
"""
Send = Callable[..., list[str]]


@pytest.fixture
def records() -> list[Record]:
    point = Point(model="c3d", args={"num_classes": 4}, clip=Clip.model_validate("16x1x112"), batch=8)
    case = Case(suite="kernel_depth", point=point, measures={"throughput": {}})
    good = Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        started_at="2026-11-30T12:00:00+00:00",
        status="ok",
        metrics=(
            Metric(name="throughput.clips_per_s", value=50.5, unit="clips/s", labels={"batch": "8"}),
            Metric(name="macs.forward", value=38_547_423_232, unit="MACs"),
            Metric(name="energy.j_per_clip", value=None, unit="J", note="no counter"),
        ),
        environment=Environment(hardware={"cpu": "Epyc", "gpu": None}),
    )
    error = Failure(type="E", message="m", traceback="")
    return [good, good.model_copy(update={"run_index": 1, "status": "error", "error": error, "metrics": ()})]


@pytest.fixture
def send(records: list[Record], tmp_path: Path) -> Send:
    """Send the records to a target with some environment variables; returns the warning, or None, of each."""

    def run(target: str, **variables: str) -> list[str]:
        package = target.partition(":")[0]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        done = subprocess.run(
            [sys.executable, "-c", SEND, target],
            input="".join(record.model_dump_json() + "\n" for record in records),
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), **variables},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run
