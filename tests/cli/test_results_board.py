"""`vbench results show` prints the tables of the report: same values, same marks, at most 100 columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import run_command
from bench.core.schema import Case, Clip, Metric, Point, Record
from bench.store import RecordStore
from bench.suite.shipped import shipped_suites

Show = Callable[..., list[str]]
CLIP = Clip.model_validate("16x1x112")


def record(model: str, *metrics: Metric, axes: dict[str, Any] | None = None, **rest: Any) -> Record:
    point = Point(model=model, clip=CLIP, **(axes or {}))
    case = Case(suite="s", point=point, measures={"latency": {}})
    given = {"freshness": "f", "status": "ok", "run_index": 0, "started_at": "2026-01-01T00:00:00+00:00", **rest}
    return Record(case=case, case_id=case.id, metrics=metrics, **given)


def latency(ms: float, *, labels: dict[str, Any] | None = None) -> Metric:
    interval = (0.99 * ms, 1.01 * ms)
    return Metric(name="latency.p50_ms", value=ms, unit="ms", better="lower", interval=interval, labels=labels or {})


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    """Store records and return the printed lines."""

    def shown(*records: Record, facts: dict[str, Any] | None = None) -> list[str]:
        store = RecordStore(tmp_path / "res")
        for each in records:
            store.append(each)
        if facts is not None:
            store.write_suite(facts)
        capsys.readouterr()
        assert run_command(["results", "show", str(tmp_path / "res")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 100 for line in lines), lines
        return lines

    return shown


def test_rows_are_ordered_and_the_best_value_has_a_star(show: Show) -> None:
    lines = show(record("slow", latency(20)), record("fast", latency(10)))
    assert [line.split()[0] for line in lines if line.startswith(("slow", "fast"))] == ["fast", "slow"]
    assert next(line for line in lines if line.startswith("fast")).split()[1] == "10.0*"
    assert not any(line.startswith("slow") and "*" in line for line in lines)
    assert "* best value of a column. A dash: unknown or not measured." in lines


def test_a_doubtful_value_has_its_mark_and_no_star(show: Show) -> None:
    lines = show(
        record("slow", latency(20)), record("slower", latency(30)), record("fast", latency(10), status="unsteady")
    )
    assert any(line.split() == ["slow", "20.0*"] for line in lines)
    assert any(line.split() == ["fast", "10.0"] for line in lines)
    assert any(line.strip() == "unsteady" for line in lines)
    assert any(line.startswith("unsteady: the samples never became steady") for line in lines)


def test_columns_that_do_not_fit_continue_below_with_the_model_repeated(show: Show) -> None:
    batches = [{"batch": str(2**power)} for power in range(16)]
    lines = show(record("model_of_a_long_name", *(latency(10, labels=each) for each in batches)))
    assert sum(line.startswith("model_of_a_long_name") for line in lines) > 1
    printed = " ".join(lines)
    assert all(f"batch {each['batch']}" in printed for each in batches)


def test_ablations_have_their_findings_and_the_change_of_each_level(show: Show) -> None:
    records = [
        record(
            "net", Metric(name="macs.forward", value=macs, unit="MACs", better="lower"), axes={"args": {"depth": depth}}
        )
        for depth, macs in ((3, 1000), (1, 250))
    ]
    lines = show(*records, facts={"name": "s", "ablate": {"baseline": {"depth": 3}, "factors": ["depth"]}})
    assert "depth, against 3" in lines
    assert any("×0.25" in line for line in lines)
    assert any(line.startswith("MACs with depth 1 is 0.25 times that with 3") for line in lines)


def test_control_characters_of_strangers_are_shown(show: Show) -> None:
    assert not any("\x1b" in line for line in show(record("evil\x1b[2J", latency(10))))


@pytest.mark.filterwarnings("ignore::bench.store.StoreWarning")
@pytest.mark.parametrize("name", ["quickstart", "findings"])
def test_the_published_results_fit(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shipped_suites()["quickstart"].parents[1] / "reports" / name
    if not folder.is_dir():
        pytest.skip("reports are in a checkout only")
    assert run_command(["results", "show", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "kernel_depth, against 3" in lines
