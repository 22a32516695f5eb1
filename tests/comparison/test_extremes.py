"""What no measurement gives and files may hold all the same: a verdict or one clear line, never a fault of ours."""

import json
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.app import run_command
from bench.comparison import formats
from bench.comparison.comparing import compare
from bench.comparison.kept_predictions import read_ranks
from bench.comparison.pairing import pair_of_values
from bench.comparison.runs import Run
from bench.core.errors import BenchError, InputError, StoreError
from bench.core.schema import Case, Metric, Record
from bench.store import RecordStore, StoreWarning, read_records

EXTREMES = [0.0, -0.0, 5e-324, -5e-324, 1e-300, 1e300, -1e300, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan]
NUMBERS = st.sampled_from(EXTREMES) | st.floats() | st.integers(-(10**400), 10**400)
LIMITS = st.sampled_from([None, "3%", "1ms", "noise", "0", 2.5])
VALUES = st.lists(NUMBERS, min_size=1, max_size=9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, pytest.param(10**400, id="10**400")])
def test_nan_values_are_unknown(value: float) -> None:
    metric = Metric(name="params.total", value=value, unit="elements")
    assert (metric.value, metric.note) == (None, "the value is not a finite number")
    assert Metric(name="a.b", value=value, unit="J", note="no counter").note == "no counter"


def test_finite_values_stay_unchanged() -> None:
    metric = Metric(name="a.b", value=2**60, unit="", interval=(1, 2.5), samples=(1.0, 2.0), turns=(0, 1))
    assert (metric.value, metric.interval, metric.samples, metric.note) == (2**60, (1.0, 2.5), (1.0, 2.0), None)


def test_samples_that_are_not_finite_are_left_out_with_their_turns() -> None:
    metric = Metric(name="a.b", value=1.0, unit="ms", samples=(1.0, math.inf, 3.0, math.nan), turns=(0, 1, 2, 3))
    assert (metric.samples, metric.turns) == ((1.0, 3.0), (0, 2))
    assert metric.note == "2 of 4 samples are not finite"
    assert Metric(name="a.b", value=1.0, unit="ms", interval=(math.nan, 2.0)).interval is None


@settings(max_examples=100)
@given(value=NUMBERS, low=NUMBERS, high=NUMBERS, samples=VALUES)
def test_every_metric_that_can_be_made_can_be_read_again(
    value: float, low: float, high: float, samples: list[float]
) -> None:
    metric = Metric(name="a.b", value=value, unit="ms", interval=(low, high), samples=tuple(samples))
    assert Metric.model_validate_json(metric.model_dump_json()) == metric


def test_a_file_that_holds_null_in_the_place_of_numbers_can_be_read(
    runs: Callable[..., list[Record]], tmp_path: Path
) -> None:
    store = RecordStore(tmp_path)
    for record in runs([1.0, 2.0]):
        store.append(record)
    first, second = store.file.read_text().splitlines()
    raw = json.loads(first)
    raw["metrics"][0] |= {"interval": [None, None], "samples": [1.0, None]}
    store.file.write_text(f"{json.dumps(raw)}\n{second}\n")
    kept = [record.metrics[0] for record in read_records(tmp_path)]
    assert [(metric.value, metric.interval) for metric in kept] == [(1.0, None), (2.0, None)]
    assert kept[0].samples == (1.0,)


@pytest.mark.parametrize(
    ("field", "value"),
    [("interval", 5), ("interval", True), ("samples", 3), ("samples", "ab"), ("turns", 7), ("note", 5), ("value", [])],
)
def test_a_record_with_a_field_of_another_kind_is_named_and_left_out(
    runs: Callable[..., list[Record]], tmp_path: Path, field: str, value: object
) -> None:
    store = RecordStore(tmp_path)
    for record in runs([1.0] * 4):
        store.append(record)
    first, *rest = store.file.read_text().splitlines()
    raw = json.loads(first)
    raw["metrics"][0] |= {"samples": [1.0, None], "turns": [0, 1], field: value}
    store.file.write_text("\n".join([json.dumps(raw), *rest, ""]))
    with pytest.warns(StoreWarning, match=r"records\.jsonl:1: not a record of vbench"):
        assert len(read_records(tmp_path)) == 3


def test_turns_may_be_any_sequence() -> None:
    metric = Metric(name="a.b", value=1.0, unit="ms", samples=(1.0, math.nan, 3.0), turns=range(3))  # type: ignore[arg-type]
    assert (metric.samples, metric.turns) == ((1.0, 3.0), (0, 2))


def test_accuracies_that_no_float_can_square_are_judged(runs: Callable[..., list[Record]]) -> None:
    """The mean is all that is asked of them; their squares are beyond all floats."""
    about = {"name": "accuracy.top1", "unit": "%", "better": "higher"}
    sides = [_changed(runs(values), **about) for values in ([1e200, 0.0], [0.0, 1e200])]
    [row] = compare(*sides).rows
    assert (row.verdict, row.base) == ("inconclusive", 5e199)


def test_runs_that_no_number_could_settle_are_no_crash(runs: Callable[..., list[Record]]) -> None:
    wide = runs([1e150, -1e150, 1e150, -1e150])
    [row] = compare(wide, wide, gate={"latency.p50_ms": "0.00000001ms"}).rows
    assert row.verdict == "inconclusive"
    assert "quieter machine" in row.reason


@pytest.mark.parametrize("name", ["a.md", "a.xml", "a.json", "a.smaller.json"])
def test_verdicts_on_a_folder_with_an_undecodable_name_can_be_written(
    runs: Callable[..., list[Record]], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for record in runs([1.0] * 4):
        RecordStore(folder).append(record)
    assert run_command(["compare", str(folder), str(folder), "--write", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8")


@settings(max_examples=150)
@given(
    base=VALUES,
    head=VALUES,
    limit=st.sampled_from([None, "3%", "1ms", "noise", "0", 2.5]),
    unit=st.sampled_from(["ms", "%"]),
)
def test_whatever_the_values_there_is_one_verdict_and_no_crash(
    runs: Callable[..., list[Record]], base: list[float], head: list[float], limit: str | None, unit: str
) -> None:
    """Warnings are errors in these tests, so an overflow that numpy only mentions is a crash here."""
    days = ("2026-01-01", "2026-01-02")
    sides = [_changed(runs(v, started_at=day), unit=unit) for v, day in zip((base, head), days, strict=True)]
    found = compare(*sides, gate={} if limit is None or unit == "%" else {"latency.p50_ms": limit})
    assert [row.metric for row in found.rows] == ["latency.p50_ms"]
    for name in ("a.json", "a.xml", "a.md"):
        assert formats.as_file(found, name)


def _changed(records: Sequence[Record], **changes: Any) -> list[Record]:
    changed = [[metric.model_copy(update=changes) for metric in record.metrics] for record in records]
    return [r.model_copy(update={"metrics": tuple(m)}) for r, m in zip(records, changed, strict=True)]


def test_a_change_beyond_float_range_is_not_same(runs: Callable[..., list[Record]]) -> None:
    tiny, vast = runs([5e-324] * 5), runs([1e308] * 5)
    assert compare(tiny, vast, gate={"latency.p50_ms": "1ms"}).rows[0].verdict == "worse"
    assert compare(vast, tiny, gate={"latency.p50_ms": {"max_drop": "1ms"}}).rows[0].verdict == "worse"
    [row] = compare(runs([-1e308, 1e308, 1e308, -1e308, 1e308]), vast).rows
    assert row.verdict == "inconclusive"


def test_an_amount_is_allowed_to_the_end_whatever_the_base(runs: Callable[..., list[Record]]) -> None:
    small = runs([1e-320] * 5)
    assert compare(small, runs([0.9] * 5), gate={"latency.p50_ms": "1ms"}).rows[0].verdict == "same"
    assert compare(small, runs([1.1] * 5), gate={"latency.p50_ms": "1ms"}).rows[0].verdict == "worse"


def test_a_base_without_a_common_level_has_no_noise(runs: Callable[..., list[Record]]) -> None:
    [row] = compare(runs([1e-300, 1e300] * 5), runs([1.0] * 5), gate={"latency.p50_ms": "noise"}).rows
    assert (row.verdict, row.is_deciding) == ("inconclusive", True)
    assert "differ by more than a float can hold" in row.reason


def test_ratios_beyond_float_range_do_not_crash(latency: Callable[..., Metric]) -> None:
    slow, fast = (latency(v, samples=[v] * 6, turns=range(6)) for v in (1e308, 5e-324))
    assert pair_of_values(slow, fast) == (1e308, pytest.approx(5e-324))
    assert pair_of_values(fast, slow)[1] == pytest.approx(1e308, rel=1e-6)


@pytest.mark.parametrize("text", ['{"name": "s", "ga', "[]", "3", '{"gate": [1]}', '{"gate": "3%"}', "\udcff"])
def test_a_suite_file_that_is_broken_is_one_clear_line(
    runs: Callable[..., list[Record]], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    store = RecordStore(tmp_path)
    for record in runs([1.0] * 4):
        store.append(record)
    (tmp_path / "suite.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"suite\.json"):
        compare(tmp_path, runs([1.0] * 4))
    assert run_command(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_limit_may_be_a_number_and_must_be_a_limit(runs: Callable[..., list[Record]]) -> None:
    base, head = runs([10.0] * 4), runs([14.0] * 4)
    assert compare(base, head, gate={"latency.p50_ms": 3}).rows[0].verdict == "worse"
    assert compare(base, head, gate={"latency.p50_ms": 5.0}).rows[0].verdict == "same"
    for wrong in (None, [3], True, -1, math.nan, {"max_rise": None}):
        with pytest.raises(InputError, match=r"gate of latency\.p50_ms"):
            compare(base, head, gate={"latency.p50_ms": wrong})  # type: ignore[dict-item]  # what a file may hold


@pytest.mark.parametrize("ranks", [[0, None], [0.0, 1.0], ["0", "1"], [True, False]])
def test_fractional_ranks_are_refused(record: Callable[..., Record], tmp_path: Path, ranks: list[Any]) -> None:
    table = pa.table({"video": ["a", "b"], "label": [1, 1], "rank": ranks})
    pq.write_table(table, tmp_path / "predictions.parquet")
    run = Run(record=record(artifacts={"predictions": "predictions.parquet"}), folder=tmp_path)
    assert read_ranks(run) is None


def test_names_in_git_that_are_not_utf_8_are_no_crash(
    runs: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/results/caf\xe9"))
    for record in runs([1.0] * 4):
        RecordStore(odd).append(record)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "results"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    head = [r.model_copy(update={"started_at": f"2027{r.started_at[4:]}"}) for r in runs([1.0] * 4)]
    assert compare("git:HEAD", head).rows[0].runs == (4, 4)
    with pytest.raises(BenchError):
        compare("git:HEAD:nowhere", head)


def test_a_time_limit_is_finite() -> None:

    with pytest.raises(ValueError, match="finite"):
        Case.model_validate(
            {"suite": "s", "point": {"model": "c3d", "clip": "16x1x112"}, "measures": {}, "timeout_s": math.inf}
        )
