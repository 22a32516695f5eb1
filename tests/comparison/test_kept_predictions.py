"""Accuracies are compared video by video where both sides kept their answers."""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.baselines import promote, save
from bench.comparison.comparing import compare
from bench.comparison.kept_predictions import read_ranks
from bench.comparison.runs import Run
from bench.core.files import _machine
from bench.core.schema import Metric, Record
from bench.core.stats import wilson_interval
from bench.store import RecordStore, read_records

VIDEOS = 400


@pytest.fixture
def side(tmp_path: Path, record: Callable[..., Record]) -> Callable[..., Path]:
    """A results folder with one accuracy; `right` are the videos answered right, kept as predictions if asked."""

    def write(name: str, right: set[int], *, kept: bool = True, first: int = 0) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        share = wilson_interval(len(right), VIDEOS)
        top = Metric(
            name="accuracy.top1",
            value=100 * share.value,
            unit="%",
            better="higher",
            interval=(100 * share.low, 100 * share.high),
        )
        store = RecordStore(tmp_path / name)
        artifacts: dict[str, Any] = {}
        if kept:
            file = store.artifacts("c") / "predictions.parquet"
            file.parent.mkdir(parents=True)
            columns = {
                "video": [f"v{first + n}" for n in range(VIDEOS)],
                "label": [n % 7 for n in range(VIDEOS)],
                "rank": [0 if n in right else 3 for n in range(VIDEOS)],
            }
            pq.write_table(pa.table(columns), file)
            artifacts = {"predictions": str(file.relative_to(store.folder))}
        store.append(record(top, artifacts=artifacts, measures={"accuracy": {}}))
        return tmp_path / name

    return write


def verdict(base: Path, head: Path, limit: str = "0.5pt") -> tuple[str, str]:
    (row,) = compare(base, head, gate={"accuracy.top1": limit}).rows
    return row.verdict, row.reason


def test_paired_videos_decide_what_two_intervals_cannot(side: Callable[..., Path]) -> None:
    """30 of 400 are lost and none is won: 7.5 points, plain to McNemar and within what two binomials allow."""
    base, head = set(range(240)), set(range(210))
    told, reason = verdict(side("base", base), side("head", head))
    assert told == "worse"
    assert "-7.50 pt" in reason
    told, reason = verdict(side("base2", base, kept=False), side("head2", head, kept=False))
    assert told == "inconclusive"
    assert "more videos would decide it" in reason


@pytest.mark.parametrize("interval", [(math.nan, math.nan), (50.0, 50.0), (-math.inf, math.inf), (60.0, 40.0)])
def test_an_unbounded_interval_decides_nothing(record: Callable[..., Record], interval: tuple[float, float]) -> None:
    def share(value: float) -> list[Record]:
        top = Metric(name="accuracy.top1", value=value, unit="%", better="higher", interval=interval)
        return [record(top, measures={"accuracy": {}})]

    comparison = compare(share(50.0), share(40.0))
    assert (comparison.rows[0].verdict, comparison.exit_code()) == ("inconclusive", 4)
    assert compare(share(50.0), share(50.0)).rows[0].verdict == "same"


def test_equal_predictions_are_judged_as_same(side: Callable[..., Path]) -> None:
    told, reason = verdict(side("base", set(range(100))), side("head", set(range(100))))
    assert told == "same"
    assert reason == "both models are right on the same of these 400 videos; on other videos they may differ"


def test_other_videos_fall_back_to_the_intervals(side: Callable[..., Path]) -> None:
    told, _ = verdict(side("base", set(range(240))), side("head", set(range(210)), first=1))
    assert told == "inconclusive"


def test_a_more_accurate_model_is_better(side: Callable[..., Path]) -> None:
    assert verdict(side("base", set(range(100))), side("head", set(range(200))))[0] == "better"


def test_a_wide_limit_can_be_kept(side: Callable[..., Path]) -> None:
    lost_and_won = set(range(2, 202))
    said, reason = verdict(side("base", set(range(200))), side("head", lost_and_won), "5pt")
    assert said == "same"
    assert re.search(r"; 5pt is allowed; minimum detectable change: -[5-9]\.\d\d pt", reason)


def test_a_baseline_keeps_the_predictions(side: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> None:
    """30 of 400 are lost, which the intervals alone could not tell; a promotion takes them along."""
    monkeypatch.chdir(tmp_path)
    head = side("head", set(range(210)))
    save(side("base", set(range(240))), branch="feature")
    killed = Path(".vbench/history/main/s") / f".unfinished-{_machine()}-{2**30}-00000000"
    killed.parent.mkdir(parents=True)
    killed.write_text("half")
    promote("feature", "main")
    for base in ("baseline:feature", "baseline:main"):
        (row,) = compare(base, head, gate={"accuracy.top1": "0.5pt"}).rows
        assert row.verdict == "worse"
    (kept,) = Path(".vbench/baselines/main/s").glob("*.predictions/*.csv")
    lines = kept.read_text().splitlines()
    assert lines[:2] == ["video,label,rank", "v0,0,0"]
    assert len(lines) == VIDEOS + 1
    assert lines[1:] == sorted(lines[1:], key=lambda line: line.split(",")[0])
    assert not list(Path(".vbench").rglob(".unfinished-*"))
    (history,) = Path(".vbench/history/main/s").glob("*.jsonl")
    assert read_records(history)[0].artifacts == {}


def test_predictions_of_a_baseline_follow_its_records(
    side: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save(side("with", set(range(240))), branch="main")
    save(side("without", set(range(240)), kept=False), branch="main")
    assert not list(Path(".vbench").rglob("*.predictions"))
    assert compare("baseline:main", side("head", set(range(240)))).rows[0].reason == "equal"


def test_a_killed_save_leaves_records_with_their_own_predictions(
    side: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """The last 30 right videos become others: against its own answers head is the same, against the new ones not."""
    monkeypatch.chdir(tmp_path)
    first, second = side("first", set(range(240))), side("second", set(range(30, 270)))
    save(first, branch="main")

    replace = Path.replace

    def kept(part: Path, file: Path) -> Path:
        """Answers come to stand beside the records, and this is killed before the records do."""
        return replace(part, file) if file.suffix == ".csv" else die()

    def die(*_: Path) -> Path:
        raise KeyboardInterrupt

    for name, moment in (("replace", die), ("replace", kept), ("unlink", die)):
        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            patched.setattr(Path, name, moment)
            save(second, branch="main")
        saved = second if name == "unlink" else first
        assert "the same of these 400 videos" in compare("baseline:main", saved).rows[0].reason
    save(second, branch="main")
    assert len(list(Path(".vbench").rglob("*.csv*"))) == 1
    assert "the same of these 400 videos" in compare("baseline:main", second).rows[0].reason


def test_unchanged_predictions_keep_their_file(side: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    files = []
    for _ in range(2):
        save(tmp_path / "base" if files else side("base", set(range(240))), branch="main")
        files.append({path: path.read_bytes() for path in Path(".vbench").rglob("*.*") if path.is_file()})
    assert files[0] == files[1]


@pytest.mark.parametrize("text", ["", "video,label\nv0,1\n", "video,label,rank\nv0,1\n", "video,label,rank\nv0,1,x\n"])
def test_malformed_prediction_lines_do_not_crash(side: Callable[..., Path], text: str) -> None:
    base, head = side("base", set(range(100))), side("head", set(range(100)))
    (head / "artifacts/c/answers.csv").write_text(text)
    records = (head / "records.jsonl").read_text()
    (head / "records.jsonl").write_text(records.replace("predictions.parquet", "answers.csv"))
    assert verdict(base, head) == ("same", "equal")


def test_predictions_that_cannot_be_read_are_no_crash(side: Callable[..., Path]) -> None:
    base, head = side("base", set(range(100))), side("head", set(range(100)))
    (head / "artifacts/c/predictions.parquet").write_bytes(b"cut off")
    assert verdict(base, head) == ("same", "equal")


@pytest.mark.parametrize("is_absolute", [False, True])
def test_predictions_outside_of_the_results_folder_are_not_read(
    side: Callable[..., Path], tmp_path: Path, is_absolute: bool
) -> None:
    """A record says where they are, and records come from anywhere."""
    folder = side("base", set(range(100)))
    [kept] = read_records(folder)
    outside = tmp_path / "base" / kept.artifacts["predictions"]
    name = str(outside) if is_absolute else f"../base/{kept.artifacts['predictions']}"
    assert read_ranks(Run(record=kept, folder=folder)) is not None
    led = kept.model_copy(update={"artifacts": {"predictions": name}})
    (tmp_path / "elsewhere").mkdir()
    assert (tmp_path / "elsewhere" / name).is_file()
    assert read_ranks(Run(record=led, folder=tmp_path / "elsewhere")) is None


def test_predictions_are_stored_under_the_computed_case_hash(side: Callable[..., Path], tmp_path: Path) -> None:
    [record] = read_records(side("base", set(range(100))))
    RecordStore(tmp_path / "base").file.unlink()
    RecordStore(tmp_path / "base").append(record.model_copy(update={"case_id": "../../../../outside"}))
    save(tmp_path / "base", branch="main", root=tmp_path / "kept")
    [answers] = tmp_path.rglob("*.csv")
    assert answers.name.startswith(record.case.id)
    assert answers.parent.suffix == ".predictions"
