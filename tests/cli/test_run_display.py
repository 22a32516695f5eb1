"""What `vbench run` prints: the live panel of its devices or workers, and a line or more for each finished run."""

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from bench.cli.run_display import COLUMNS, LiveRun, _line
from bench.core.registry import headlines_among
from bench.core.schema import Case, Clip, Failure, Metric, Point, Record, RecordWarning, Status
from bench.runner.running import Event, EventKind

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


@dataclass
class Screen:
    """A terminal of a fixed width, what was printed on it, and a clock that the test moves."""

    live: LiveRun
    console: Console
    folder: Path
    now: list[float]

    def panel(self) -> list[str]:
        paper = Console(width=140, file=StringIO(), force_terminal=True, color_system=None)
        with paper.capture() as capture:
            paper.print(self.live._panel())
        return [line.rstrip() for line in capture.get().split("\n")]

    def event(self, kind: EventKind, lane: str | None = None, **fields: Any) -> None:
        self.live.show(Event(kind=kind, folder=self.folder, lane=lane, **{"left_s": 250.0} | fields))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Screen:
    console = Console(width=140, file=StringIO(), force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr("bench.cli.run_display.console", console)
    monkeypatch.setattr("bench.cli.console.console", console)
    now = [100.0]
    return Screen(live=LiveRun(clock=lambda: now[0]), console=console, folder=Path("results/s"), now=now)


def test_each_device_has_a_row_with_what_it_does_and_for_how_long(screen: Screen) -> None:
    counts = {"done": 2, "failed": 1, "left": 10}
    first, second = record_of().case, record_of(model="slowfast_r50").case
    screen.event("started", "cuda:0", case=first, run_index=0, **counts)
    screen.now[0] = 130.0
    screen.event("started", "cuda:1", case=second, run_index=0, **counts)
    screen.event("progress", "cuda:0", case=first, run_index=0, text="latency", fraction=0.4, **counts)
    screen.now[0] = 142.0
    progress, heads, zero, one, logs = screen.panel()[:5]
    assert progress.startswith("cases ")
    assert progress.endswith("2/12 0:00:42 failed 1 · about 0:04:10 left")
    assert heads.split() == ["device", "or", "worker", "case", "state", "elapsed"]
    assert zero.split("  ")[0] == "cuda:0"
    assert zero.endswith("42 s")
    assert "c3d precision=bf16 16x1x112" in zero
    assert "40% latency" in zero
    assert "slowfast_r50" in one
    assert "starting" in one
    assert one.endswith("12 s")
    assert logs == "logs: results/s/logs"
    screen.event("finished", "cuda:0", case=first, run_index=0, record=record_of(), done=3, failed=1, left=9)
    zero = next(line for line in screen.panel() if line.startswith("cuda:0"))
    assert zero.split() == ["cuda:0", "idle"]


def test_the_row_of_a_worker_is_freed_by_a_record_that_does_not_name_it(screen: Screen) -> None:
    counts = {"done": 0, "failed": 0, "left": 2}
    case = record_of().case
    screen.event("started", "slurm-7_0", case=case, run_index=0, **counts)
    screen.event("started", "slurm-7_1", case=case, run_index=1, **counts)
    screen.event("finished", case=case, run_index=1, record=record_of(), done=1, failed=0, left=1)
    rows = {line.split()[0]: "idle" in line for line in screen.panel() if line.startswith("slurm")}
    assert rows == {"slurm-7_0": False, "slurm-7_1": True}


def test_a_run_that_another_worker_takes_over_has_one_row(screen: Screen) -> None:
    case = record_of().case
    for worker in ("slurm-7_0", "slurm-7_1"):
        screen.event("started", worker, case=case, run_index=0, done=0, failed=0, left=1)
    rows = {line.split()[0]: "idle" in line for line in screen.panel() if line.startswith("slurm")}
    assert rows == {"slurm-7_0": True, "slurm-7_1": False}


def test_the_only_lane_of_a_plain_run_has_no_name_and_its_log_file_is_named(screen: Screen) -> None:
    case = record_of().case
    screen.event("started", case=case, run_index=0, done=0, failed=0, left=1)
    _, heads, row, log = screen.panel()[:4]
    assert heads.split() == ["case", "state", "elapsed"]
    assert row.startswith("c3d ")
    assert log == f"log: results/s/logs/{case.id}.log"


def test_the_panel_has_the_last_three_results_and_every_result_stays_on_the_screen(screen: Screen) -> None:
    with screen.live.running():
        for number in range(1, 6):
            record = record_of(metric("latency.p50_ms", 10.0 + number, "ms"))
            screen.event(
                "finished", case=record.case, run_index=number, record=record, done=number, failed=0, left=5 - number
            )
        assert [line[:5] for line in screen.panel() if line.startswith("[")] == ["[3/5]", "[4/5]", "[5/5]"]
    after = screen.console.file.getvalue().rpartition("\x1b")[2]  # type: ignore[attr-defined]  # the panel is removed
    assert re.findall(r"\[\d/5\]", after) == ["[3/5]", "[4/5]", "[5/5]"]
    assert not any(line.startswith("[") for line in screen.panel())


def test_results_of_an_interrupted_run_stay_on_the_screen(screen: Screen) -> None:
    record = record_of(metric("latency.p50_ms", 10.0, "ms"))

    def interrupted() -> None:
        with screen.live.running():
            screen.event("finished", case=record.case, run_index=0, record=record, done=1, failed=0, left=4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    after = screen.console.file.getvalue().rpartition("\x1b")[2]  # type: ignore[attr-defined]
    assert after.count("[1/5] ok") == 1


@given(
    lanes=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=5, unique=True),
    model=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=120),
    text=st.text(max_size=200),
)
def test_no_line_of_the_panel_is_longer_than_100_columns(lanes: list[str], model: str, text: str) -> None:
    live, case = LiveRun(), record_of(model=model).case
    wide = Console(width=200, file=StringIO(), force_terminal=True, color_system=None)
    for number, lane in enumerate(lanes):
        live.show(
            Event(
                kind="progress",
                folder=Path("results") / ("f" * 150),
                done=0,
                failed=0,
                left=5,
                left_s=1e7,
                case=case,
                run_index=number,
                lane=lane,
                text=text,
            )
        )
    with wide.capture() as capture:
        wide.print(live._panel())
    assert all(cell_len(line) <= COLUMNS for line in capture.get().split("\n"))
