"""What `vbench run` prints of a finished run: headline metrics, one line of at most 100 columns, or several."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.run_display import COLUMNS, LiveRun, _line
from bench.core.registry import headlines_among
from bench.core.schema import Case, Clip, Failure, Metric, Point, Record, RecordWarning, Status
from bench.runner.running import Event

CLIP = Clip.model_validate("16x1x112")


def record_of(*metrics: Metric, status: Status = "ok", error: Failure | None = None, model: str = "c3d") -> Record:
    case = Case(suite="s", point=Point(model=model, clip=CLIP, precision="bf16"), measures={"latency": {}})
    return Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        status=status,
        started_at="2026-01-01T00:00:00+00:00",
        metrics=metrics,
        error=error,
        seconds={"whole": 12.0},
    )


def metric(name: str, value: float | None, unit: str, better: str | None = "lower", **labels: str) -> Metric:
    return Metric.model_validate({"name": name, "value": value, "unit": unit, "better": better, "labels": labels})


def test_headlines_are_shown_by_title_and_the_rest_is_left_out() -> None:
    record = record_of(
        metric("latency.p50_ms", 20.125, "ms"),
        metric("latency.p99_ms", 31.0, "ms"),
        metric("throughput.clips_per_s", 50.0, "clips/s", "higher", batch="8"),
        metric("memory.peak_allocated_bytes", None, "B"),
        metric("memory.peak_rss_bytes", 2.0**30, "B"),
    )
    lines = _line(record, number=3, total=12).split("\n")
    text = " ".join(line.strip() for line in lines)
    assert text == (
        "[3/12] ok        c3d precision=bf16 16x1x112 (12 s): "
        "Latency 20.12 ms; Throughput, batch 8: 50 clips/s; Process memory 1 GiB"
    )


def test_a_stand_in_gives_way_to_the_metric_it_stands_in_for() -> None:
    names = [("memory.peak_rss_bytes", "lower"), ("memory.peak_allocated_bytes", "lower")]
    assert headlines_among(names) == {"memory.peak_allocated_bytes"}  # type: ignore[arg-type]
    assert headlines_among(names[:1]) == {"memory.peak_rss_bytes"}  # type: ignore[arg-type]


def test_an_undeclared_measure_has_its_first_directed_metric() -> None:
    names = [("gone.size", None), ("gone.first_ms", "lower"), ("gone.second_ms", "lower"), ("latency.p90_ms", "lower")]
    assert headlines_among(names) == {"gone.first_ms"}  # type: ignore[arg-type]


@given(
    st.lists(st.floats(0.001, 1e12), max_size=8),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=70),
)
def test_no_line_is_longer_than_100_columns_and_no_value_leaves_its_unit(values: list[float], model: str) -> None:
    metrics = [
        metric("throughput.clips_per_s", value, "clips/s", "higher", batch=str(number))
        for number, value in enumerate(values)
    ]
    lines = _line(record_of(*metrics, model=model), number=3, total=12).split("\n")
    assert all(len(line) <= COLUMNS for line in lines)
    assert "".join(lines).count("clips/s") == len(values)
    assert not any(line.lstrip().startswith("clips/s") for line in lines)


@pytest.mark.parametrize("length", [20, 300])
def test_a_failure_is_shown_with_its_error(length: int) -> None:
    message = " ".join(["shapes differ"] * (length // 10))
    failed = record_of(status="error", error=Failure(type="RuntimeError", message=message, traceback=""))
    lines = _line(failed, number=1, total=1).split("\n")
    assert lines[0].startswith("[1/1] error     c3d precision=bf16 16x1x112 (12 s): RuntimeError: shapes differ")
    assert all(len(line) <= COLUMNS for line in lines)
    assert " ".join(line.strip() for line in lines).endswith(message)


@pytest.mark.parametrize("is_quiet", [False, True])
def test_quiet_prints_failed_runs_only(is_quiet: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = record_of(metric("latency.p50_ms", 20.0, "ms"))
    good = good.model_copy(update={"warnings": (RecordWarning(what="a busy machine", remedy="wait"),)})
    failed = record_of(status="error", error=Failure(type="RuntimeError", message="shapes differ", traceback=""))
    with LiveRun(is_quiet=is_quiet).running() as live:
        for number, record in enumerate([good, good, failed], start=1):
            event = Event(
                kind="finished",
                done=number,
                failed=0,
                left=3 - number,
                left_s=1.0,
                case=record.case,
                record=record,
                folder=tmp_path,
            )
            live.show(event)
    printed = capsys.readouterr().out
    assert "RuntimeError: shapes differ" in printed
    assert printed.count("Latency 20 ms") == (0 if is_quiet else 2)
    assert printed.count("warning: a busy machine; wait") == (0 if is_quiet else 1)
