"""What makes a stored result stale, what does not, and how the plan and the run treat it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench.cli.app import run_command
from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import Metric, Record
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.runner.environment import describe_environment
from bench.runner.fingerprint import _file_hash
from bench.runner.running import plan, run
from bench.store import RecordStore, read_records

NET = """
from torch import nn
from own.blocks import WIDTH
def factory(num_classes=2):
    return nn.Sequential(nn.Conv3d(3, WIDTH, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(WIDTH, num_classes))
"""
SUITE = "suite: own\nmodels: ['own.net:factory']\nmatrix: {clip: [2x1x8]}\nmeasure: {params: {}}\n"


ZOO = "suite: zoo\nmodels: [{name: c3d_search, width: 0.05}]\nmatrix: {clip: [2x1x32]}\nmeasure: {params: {}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's package with a model and a suite of it; the working folder."""
    (tmp_path / "own").mkdir()
    for name, text in {"__init__": "", "net": NET, "blocks": "WIDTH = 4\n"}.items():
        (tmp_path / f"own/{name}.py").write_text(text)
    (tmp_path / "own.yaml").write_text(SUITE)
    (tmp_path / "zoo.yaml").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters() -> list[float | None]:
    return [record.metrics[0].value for record in read_records("results/own") if record.is_good]


def test_a_changed_helper_module_makes_the_result_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("own.yaml")
    (folder / "own/blocks.py").write_text("# how wide\nWIDTH = 4\n")
    assert plan("own.yaml").pending == [], "a comment changes nothing"
    (folder / "own/blocks.py").write_text("WIDTH = 8\n")
    assert run_command(["plan", "own.yaml", "--why"]) == 0
    assert "stale" in (said := capsys.readouterr().out)
    assert "modules (own.blocks)" in " ".join(said.split())
    run("own.yaml")
    assert parameters() == [4 * 4 + 5 * 2, 4 * 8 + 9 * 2]  # conv and linear, weights and biases


def test_the_record_keeps_the_parts_by_name(folder: Path) -> None:
    run("own.yaml")
    [record] = read_records("results/own")
    assert set(record.fingerprint) == {"model source", "modules", "measures"}
    assert all(isinstance(value, str) and len(value) == 12 for value in record.fingerprint.values())


def test_rerun_narrows_and_widens_the_selection(folder: Path) -> None:
    """Three runs: one done, one stale, one failed; a fourth was never there."""
    (folder / "zoo.yaml").write_text(ZOO.replace("{params: {}}", "{latency: {max_s: 0.2}}\nrepeat: 4"))
    target = plan("zoo.yaml")
    [case] = target.suite.cases
    current = dict(target.fingerprints[case.id].parts)
    store = RecordStore(Path("results/zoo"))

    def stored(index: int, status: str, fingerprint: dict[str, str]) -> Record:
        at = f"2026-01-01T00:0{index}:00+00:00"
        facts: dict[str, Any] = {
            "case": case,
            "case_id": case.id,
            "run_index": index,
            "freshness": "",
            "started_at": at,
        }
        return Record(**facts, status=status, fingerprint=fingerprint)

    for each in (stored(0, "ok", current), stored(1, "ok", {**current, "measures": "x"}), stored(2, "oom", current)):
        store.append(each)
    taken = {
        rerun: [index for _, index in plan("zoo.yaml", rerun=rerun).pending]  # type: ignore[arg-type]
        for rerun in (None, "stale", "failed", "all")
    }
    assert taken == {None: [1, 2, 3], "stale": [1, 3], "failed": [2, 3], "all": [0, 1, 2, 3]}
    summary = run("zoo.yaml", rerun="failed")
    assert sorted(record.run_index for record in summary.finished) == [2, 3]
    assert len(read_records("results/zoo")) == 5, "old records stay"
    with pytest.raises(UnknownNameError, match="stale"):
        plan("zoo.yaml", rerun="stal")  # type: ignore[arg-type]


def test_wrong_rerun_is_wrong_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "zoo.yaml", "--rerun", "fialed"]) == 2
    assert "did you mean: failed" in capsys.readouterr().err


def test_another_environment_is_shown_but_makes_nothing_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("zoo.yaml")
    file = Path("results/zoo/records.jsonl")
    raw = json.loads(file.read_text())
    now = raw["environment"]["software"]["torch"]
    raw["environment"]["software"]["torch"] = "1.0.0"
    file.write_text(json.dumps(raw) + "\n")
    target = plan("zoo.yaml")
    assert target.pending == []
    assert target.other_environments() == [f"1 of the stored results: torch 1.0.0, now {now}"]
    assert run_command(["plan", "zoo.yaml"]) == 0
    assert "another environment" in capsys.readouterr().out


def test_the_plan_counts_stored_results_that_are_doubtful(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("zoo.yaml")
    assert plan("zoo.yaml").doubtful() == {}
    file = Path("results/zoo/records.jsonl")
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "drifting"}) + "\n")
    target = plan("zoo.yaml")
    assert (target.pending, target.doubtful()) == ([], {"drifting": 1}), "a drifting result is a result"
    assert run_command(["plan", "zoo.yaml"]) == 0
    assert "doubtful, so not ranked: 1 drifting;" in capsys.readouterr().out
    assert plan("zoo.yaml", rerun="all").doubtful() == {}


def test_records_of_the_former_version_stay_done_after_docstring_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured by commit e17eca7, with its rule; measures whose version has grown since are measured again."""
    former = Path(__file__).parents[1] / "comparison/before_0_1_0/base"
    shutil.copytree(former, tmp_path / "kept")
    text = json.loads((former / "suite.json").read_text())["text"]
    (tmp_path / "kept.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    target = plan("kept.yaml", out="kept")
    records = read_records("kept")
    versions = {
        (record.case_id, record.run_index): record.details["measure_versions"] for record in records if record.is_good
    }
    measures = {entry.name: entry.version for entry in bench.core.registry.MEASURES}
    same = {key for key, old in versions.items() if all(measures[name] == n for name, n in old.items())}  # type: ignore[union-attr]
    assert same <= set(versions)
    assert {key for key in versions if target.state(*key) == "done"} == same
    assert {key[0] for key in versions} == {case.id for case in target.suite.cases}


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three videos with labels, weights of a tiny model, and the command that evaluates it."""
    torch.manual_seed(0)
    model = bench.create_model("c3d_search", width=0.05, num_classes=2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    rng = torch.Generator().manual_seed(1)
    for name in "abc":
        frames = torch.randint(0, 255, (6, 32, 32, 3), generator=rng, dtype=torch.uint8).numpy()
        write_mp4(tmp_path / f"{name}.mp4", iter(frames), fps=8, options=HISTORY_FREE)
    label(tmp_path, "011")
    monkeypatch.chdir(tmp_path)
    command = (
        "eval c3d_search --arg width=0.05 --weights w.pth --dataset csv --split val --root . --clip 4x1x32 --out res"
    )
    return command.split()


def label(folder: Path, labels: str, *, ending: str = "") -> None:
    rows = "".join(f"{name}.mp4 {label}\n" for name, label in zip("abc", labels, strict=True))
    for split in ("val", "train"):
        (folder / f"{split}.csv").write_text(rows + ending)


def test_labels_and_videos_are_part_of_an_accuracy(
    videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(videos) == 0
    first = read_records("res")[0]
    capsys.readouterr()
    assert run_command(videos) == 0
    said = capsys.readouterr().out
    assert "were done before" in said
    assert f"measured {first.started_at} on 3 videos of csv val" in " ".join(said.split())
    assert "accuracy.top1" in said, "the stored accuracy is printed"
    label(tmp_path, "100")
    assert run_command(videos) == 0
    tops = [record.metrics[0].value or 0.0 for record in read_records("res")]
    assert len(tops) == 2
    assert sum(tops) == pytest.approx(100)
    shutil.copy("a.mp4", "c.mp4")
    (tmp_path / "c.mp4").write_bytes((tmp_path / "c.mp4").read_bytes() + b"\0")
    assert run_command(videos) == 0
    assert len(read_records("res")) == 3
    torch.save({k: v + 1 for k, v in torch.load("w.pth", weights_only=True).items()}, "w.pth")
    assert run_command(videos) == 0
    changed = read_records("res")[-1]
    before = read_records("res")[-2]
    assert [p for p in changed.fingerprint if changed.fingerprint[p] != before.fingerprint[p]] == ["weights"]


CHANGES = """suite: changes
models: [{name: c3d_search, width: 0.05, num_classes: 2}]
matrix: {clip: [4x1x32], weights: [w.pth]}
measure: {accuracy: {dataset: csv, root: ., split: val, change: [CHANGE]}}
"""


@pytest.mark.slow
def test_another_list_of_changes_makes_an_accuracy_stale_and_is_measured(
    videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pending(changes: str) -> int:
        (tmp_path / "changes.yaml").write_text(CHANGES.replace("CHANGE", changes))
        return len(plan("changes.yaml").pending)

    assert pending("reversed") == 1
    run("changes.yaml")
    assert pending("reversed") == 0
    assert pending("") == pending("single_frame") == pending("reversed, single_frame") == 1
    assert run_command(["plan", "changes.yaml", "--why"]) == 0
    assert "measures" in " ".join(capsys.readouterr().out.split()).partition("stale: changed since")[2]
    run("changes.yaml")
    assert pending("reversed, single_frame") == 0
    measured = [{metric.labels.get("change") for metric in each.metrics} for each in read_records("results/changes")]
    assert measured == [{None, "reversed"}, {None, "reversed", "single_frame"}]


ACCURACY = """suite: acc
models: [{name: c3d_search, width: 0.05, num_classes: 2}]
measure: {accuracy: {dataset: csv, root: ROOT, recipe: quick}}
"""


def test_the_time_of_a_training_on_absent_data_is_unknown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("acc.yaml").write_text(ACCURACY.replace("ROOT", "nowhere"))
    target = plan("acc.yaml")
    assert target.estimate_s() is None
    assert run_command(["plan", "acc.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "unknown" in said
    assert "absent: data set csv, split val" in said


def test_the_time_of_a_training_is_clips_times_epochs_over_the_measured_rate(videos: list[str], tmp_path: Path) -> None:
    """Three videos evaluated, three trained for 2 epochs at three forward passes a clip, at 7 clips/s."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/mine.yaml").write_text(
        "recipe: mine\nsource: this test\nepochs: 2\nbatch: 1\noptimizer: {name: sgd, lr: 0.1}\n"
    )
    text = (
        ACCURACY.replace("ROOT", ".")
        .replace("quick", "mine")
        .replace("measure: {", "matrix: {clip: [4x1x32]}\nmeasure: {throughput: {batch: [1], max_s: 0.3}, ")
    )
    Path("acc.yaml").write_text(text)
    target = plan("acc.yaml")
    assert target.estimate().unknown == ["no throughput of c3d_search 4x1x32 has been measured here"]
    [timed] = [case for case in target.suite.cases if "throughput" in case.measures]
    metric = Metric(name="throughput.clips_per_s", value=7.0, unit="clips/s", better="higher", labels={"batch": "1"})
    fingerprint = dict(target.fingerprints[timed.id].parts)
    record = Record(
        case=timed, case_id=timed.id, run_index=0, freshness="", fingerprint=fingerprint, status="ok",
        metrics=(metric,),
        started_at="2026-01-01T00:00:00+00:00", environment=describe_environment(), seconds={"whole": 9.0},
    )  # fmt: skip
    RecordStore(Path("results/acc")).append(record)
    assert plan("acc.yaml").estimate_s() == pytest.approx(5.0 + (3 + 3 * 3 * 2) / 7)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
def test_a_file_of_weights_that_cannot_be_read_is_wrong_input() -> None:
    with pytest.raises(InputError, match="/proc/self/mem cannot be read: Input/output error"):
        _file_hash(Path("/proc/self/mem"))
