"""`vbench run` on parts of a suite, with a budget, and with its events as JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.catalog.catalog import Catalog
from bench.cli.app import run_command
from bench.core.schema import Case, Failure, Metric, ModelCheck, Record
from bench.runner import running
from bench.store import RecordStore, read_records, read_suite_info

SUITE = """\
suite: parts
models: [{name: c3d_search, kernel_depth: [1, 3]}]
matrix: {clip: [4x1x16]}
measure: {params: {}, latency: {}}
"""


@pytest.fixture(autouse=True)
def _simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers answer at once; latencies of depth 3 fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.yaml").write_text(SUITE)

    def answer(case: Case, store: RecordStore, *, run_index: int, freshness: str, **rest: Any) -> Record:
        rest["on_progress"]("measuring", 0.5)
        failed = "latency" in case.measures and case.point.args["kernel_depth"] == 3
        metric = Metric(name="latency.p50_ms", value=1.5, unit="ms", better="lower")
        return Record(
            case=case,
            case_id=case.id,
            run_index=run_index,
            freshness=freshness,
            fingerprint=dict(rest["fingerprint"].parts),
            started_at="2026-01-01T00:00:00+00:00",
            status="error" if failed else "ok",
            metrics=() if failed else (metric,),
            error=Failure(type="Boom", message="no") if failed else None,
            artifacts={"log": "logs/x.log"},
            seconds={"whole": 0.5},
        )

    monkeypatch.setattr(running, "run_case", answer)
    monkeypatch.setattr(Catalog, "check_models", lambda self, points: [ModelCheck() for _ in points])


def test_two_shards_make_the_whole_suite(capsys: pytest.CaptureFixture[str]) -> None:
    codes = {run_command(["run", "parts.yaml", "--out", f"res/{i}", "--shard", f"{i}/2"]) for i in (1, 2)}
    assert codes <= {0, 3}
    parts = [{record.case_id for record in read_records(f"res/{i}")} for i in (1, 2)]
    assert [len(part) for part in parts] == [2, 2]
    assert not parts[0] & parts[1]
    assert len(read_suite_info("res/1")["planned"]) == 4, "the report must know of all cases"  # type: ignore[arg-type]
    assert run_command(["results", "merge", "res/1", "res/2", "--out", "all"]) == 0
    capsys.readouterr()
    assert run_command(["plan", "parts.yaml", "--out", "all", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [case["why"] for case in facts["cases"] if case["left"]] == [["failed: ended as error: Boom: no"]]


def test_a_case_of_the_plan_can_be_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "parts.yaml", "--only", "params", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [case["measures"] for case in facts["cases"]] == [["params"], ["params"]]
    wanted = facts["cases"][1]["id"]
    assert run_command(["run", "parts.yaml", "--out", "res", "--case", wanted]) == 0
    assert [record.case_id for record in read_records("res")] == [wanted]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "3/2"), "--shard '3/2' is not i/n"),
        (("--shard", "1/9"), "there are only 4 cases to share"),
        (("--only", "latancy"), "did you mean: latency?"),
        (("--case", "zz"), "no case has the id 'zz'"),
        (("--budget", "soon"), "--budget 'soon' is not a time"),
    ],
)
def test_wrong_parts_are_wrong_input(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "parts.yaml", "--out", "res", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("res").exists()


def test_what_a_budget_leaves_out_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "parts.yaml", "--out", "res", "--only", "params", "--case", "", "--budget", "0s"]) == 2
    assert run_command(["run", "parts.yaml", "--out", "res", "--only", "params"]) == 0
    capsys.readouterr()
    assert run_command(["run", "parts.yaml", "--out", "res", "--budget", "0s"]) == 0
    assert "2 runs had no time left in the budget" in capsys.readouterr().out
    assert len(read_records("res")) == 2


def test_events_are_lines_of_json_and_nothing_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "parts.yaml", "--out", "res", "--log-json"]) == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == [
        "planned",
        *4 * ["started", "progress", "finished"],
        "ended",
    ]
    assert events[0]["left"] == 4
    assert events[2] | {"time": ""} == {
        "event": "progress",
        "time": "",
        "done": 0,
        "failed": 0,
        "left": 4,
        "left_s": events[2]["left_s"],
        "case": {"id": events[1]["case"]["id"], "title": events[1]["case"]["title"], "run": 0},
        "text": "measuring",
        "fraction": 0.5,
    }
    ends = [event for event in events if event["event"] == "finished"]
    assert sorted(event["status"] for event in ends) == ["error", "ok", "ok", "ok"]
    assert {"type": "Boom", "message": "no"} in [event["error"] for event in ends]
    assert {"latency.p50_ms": 1.5} in [event["metrics"] for event in ends]
    last = events[-1]
    assert (last["measured"], last["failed"], last["done_before"], last["exit_code"]) == (3, 1, 0, 3)
    assert Path(last["report"]).is_file()


def test_a_run_without_any_result_ends_incomplete_and_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nodes.yaml").write_text(
        "suite: nodes\nmodels: [{name: c3d_search, width: 0.05, num_classes: 8}]\nmatrix: {clip: [16x1x32]}\n"
        "measure: {accuracy: {dataset: motions, recipe: quick, ranks: 4, nodes: 2}}\n"
    )
    assert run_command(["run", "nodes.yaml", "--out", "res"]) == 3
    shown = capsys.readouterr()
    assert "needs 2 nodes with 2 ranks each" in shown.out
    assert shown.out.endswith("nothing was measured, so there is no report\n")
    assert shown.err == ""
    assert run_command(["run", "nodes.yaml", "--out", "res", "--log-json"]) == 3
    assert '"report": null' in capsys.readouterr().out.splitlines()[-1]
