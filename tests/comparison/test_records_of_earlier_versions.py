"""Records and baselines written by the version before 0.1.0 are read, compared and reported as they are.

The files were written by commit e17eca7: two runs of one suite (a narrow C3D, counted and timed four times), one
evaluation of three videos, and the baselines that `vbench baseline save` made of them.
"""

import json
import shutil
from pathlib import Path

import pytest

import bench
from bench.cli.app import run_command
from bench.comparison.baselines import listed, save
from bench.comparison.comparing import compare
from bench.comparison.verdicts import read_verdict
from bench.core.errors import UnknownNameError

FORMER = Path(__file__).parent / "before_0_1_0"
PARAMETERS = 44_040.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The earlier results, and their baselines where commands look for them."""
    shutil.copytree(FORMER, tmp_path / "results", ignore=shutil.ignore_patterns("vbench_baselines"))
    shutil.copytree(FORMER / "vbench_baselines", tmp_path / ".vbench/baselines")
    return tmp_path


def test_former_records_are_compared() -> None:
    comparison = compare(FORMER / "base", FORMER / "head")
    verdicts = {row.metric: row.verdict for row in comparison.rows if row.is_deciding}
    assert verdicts["params.total"] == verdicts["macs.forward"] == "same"
    [row] = [row for row in comparison.rows if row.metric == "latency.p50_ms"]
    assert row.runs == (4, 4)
    assert comparison.exit_code() in (0, 4), comparison


def test_former_predictions_of_a_baseline_are_read(folder: Path) -> None:
    comparison = compare(f"baseline:main:{folder}", folder / "results/evaluation")
    [row] = [row for row in comparison.rows if row.metric == "accuracy.top1"]
    assert (row.base, row.verdict) == (pytest.approx(200 / 3), "same")
    assert "the same of these 3 videos" in row.reason


def test_saving_over_a_former_baseline_keeps_one_set_of_predictions(folder: Path) -> None:
    save(folder / "results/evaluation", branch="main", root=folder)
    kept = [file.parent.suffix for file in (folder / ".vbench").rglob("*.csv")]
    assert kept == [".predictions"]
    assert compare(f"baseline:main:{folder}", folder / "results/evaluation").exit_code() == 0


def test_former_baselines_are_listed(folder: Path) -> None:
    assert [(each.suite, each.runs) for each in listed(folder)] == [("eval", 1), ("kept", 4), ("kept", 1)]
    found = compare(f"baseline:main:{folder}", folder / "results/head")
    assert {row.verdict for row in found.rows if row.metric == "params.total"} == {"same"}


def test_former_records_are_loaded_as_a_table() -> None:
    frame = bench.load_records(FORMER / "base")
    totals = frame[frame["metric"] == "params.total"]["value"]
    assert len(frame["case_id"].unique()) == 2
    assert list(totals) == [pytest.approx(PARAMETERS, rel=0.001)]


def test_former_records_are_reported(tmp_path: Path) -> None:
    page = bench.report([FORMER / "base", FORMER / "evaluation"], out=tmp_path)
    text = (page.parent / "board.html").read_text(encoding="utf-8")
    assert "c3d_search" in text
    assert "66.67" in text or "66.7" in text


def test_former_verdict_words_are_read() -> None:
    assert [read_verdict(word) for word in ("slower", "faster", "same", "worse")] == [
        "worse",
        "better",
        "same",
        "worse",
    ]
    with pytest.raises(UnknownNameError, match="sloower"):
        read_verdict("sloower")


def test_verdicts_are_written_in_todays_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A head with more parameters is worse, in the terminal, in JSON and in every file."""
    head = tmp_path / "head"
    shutil.copytree(FORMER / "base", head)
    text = (head / "records.jsonl").read_text(encoding="utf-8")
    [total] = {
        m["value"] for line in text.splitlines() for m in json.loads(line)["metrics"] if m["name"] == "params.total"
    }
    (head / "records.jsonl").write_text(text.replace(f'"value":{total}', f'"value":{2 * total}'), encoding="utf-8")
    files = [tmp_path / name for name in ("v.md", "v.json", "v.xml", "v.smaller.json")]
    writes = [part for file in files for part in ("--write", str(file))]
    assert run_command(["compare", str(FORMER / "base"), str(head), *writes]) == 1
    printed = capsys.readouterr().out
    for output in (printed, *(file.read_text(encoding="utf-8") for file in files)):
        assert "slower" not in output
        assert "faster" not in output
    assert "worse" in printed
    told = json.loads(files[1].read_text(encoding="utf-8"))
    assert told["verdicts"]["worse"] >= 1
