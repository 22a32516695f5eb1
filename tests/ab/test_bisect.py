"""The first bad commit among many, by a judge that knows it; interruptions, and commits that cannot be judged."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ab import bisect as bisect_module
from bench.ab.bisect import Judgement, KeptJudgements, bisect, commits_between
from bench.ab.gate import pair_plans, the_one_case
from bench.ab.sides import PlannedCase
from bench.cli.app import run_command
from bench.comparison.comparing import compare
from bench.core.errors import InputError, SetUpError
from bench.core.schema import Case, Clip, Metric, Point, Record
from bench.store import read_records


@given(st.integers(1, 200), st.data())
def test_the_first_bad_commit_is_found_in_few_steps(number: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, number - 1))
    commits = [f"c{place}" for place in range(number)]
    asked: list[str] = []

    def judge(commit: str) -> Judgement:
        asked.append(commit)
        return "bad" if commits.index(commit) >= first else "good"

    found = bisect(commits, judge, good="g", judged={})
    assert (found.first_bad, found.exit_code) == (commits[first], 1)
    assert len(asked) == len(set(asked)) <= 2 + number.bit_length()


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.data())
def test_commits_that_cannot_be_judged_leave_candidates_that_hold_the_first_bad_one(
    is_known: list[bool], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(is_known) - 1))
    commits = [f"c{place}" for place in range(len(is_known))]
    is_known[-1] = True

    def judge(commit: str) -> Judgement:
        place = commits.index(commit)
        return "unknown" if not is_known[place] else "bad" if place >= first else "good"

    found = bisect(commits, judge, good="g", judged={})
    assert commits[first] in found.candidates
    inner = [commits.index(commit) for commit in found.candidates[:-1]]
    assert not any(is_known[place] for place in inner), "every commit that can be judged was used"


def test_nothing_is_searched_if_the_bad_commit_is_not_worse() -> None:
    asked: list[str] = []
    found = bisect(["a", "b"], lambda commit: asked.append(commit) or "good", good="g", judged={})  # type: ignore[func-returns-value]
    assert (asked, found.first_bad, found.candidates, found.exit_code) == (["b"], None, (), 0)


def test_a_bad_commit_that_cannot_be_decided_leaves_all_as_candidates() -> None:
    found = bisect(["a", "b"], lambda commit: "unknown", good="g", judged={})
    assert (found.candidates, found.exit_code) == (("a", "b"), 4)


def test_a_stopped_bisection_goes_on_and_another_question_is_refused(tmp_path: Path) -> None:
    question = {"metric": "m", "good": "g"}
    kept = KeptJudgements(tmp_path, question)
    kept.keep("c", "bad")
    again = KeptJudgements(tmp_path, question)
    assert again.judged == {"c": "bad"}
    with pytest.raises(InputError, match="another question"):
        KeptJudgements(tmp_path, {**question, "metric": "other"})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six commits, oldest first."""
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    commits = []
    for number in range(6):
        git("commit", "-q", "--allow-empty", "-m", str(number))
        commits.append(git("rev-parse", "HEAD"))
    (tmp_path / "suite.yaml").write_text("suite: s\nmodels: [c3d]\nmeasure: {latency: {}}\n")
    return commits


def test_commits_are_listed_from_the_good_one_on(repository: list[str]) -> None:
    assert commits_between(repository[1], "main") == repository[2:]
    with pytest.raises(InputError, match="does not come after"):
        commits_between("main", repository[1])
    with pytest.raises(InputError, match="no commit, branch or tag 'mian' here; did you mean: main"):
        commits_between(repository[1], "mian")


def runs(factor: float) -> list[Record]:
    """Five quiet runs, `factor` times as long as 10 ms."""
    case = Case(suite="s", point=Point(model="c3d", clip=Clip(frames=16, height=112, width=112)), measures={})
    return [
        Record(
            case=case,
            case_id=case.id,
            run_index=run,
            freshness=str(factor),
            status="ok",
            metrics=(Metric(name="latency.p50_ms", value=factor * value, unit="ms", better="lower"),),
            started_at=f"2026-01-01T00:00:{run:02d}",
        )
        for run, value in enumerate((10.0, 10.02, 9.98, 10.01, 9.99))
    ]


def test_the_command_measures_commits_against_the_good_one(
    repository: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The fourth commit is 50 % slower; one cannot be measured. Nothing is measured twice, also after a stop."""
    asked: list[str] = []

    def measured(good: str, commit: str, suite: object, **given: object) -> object:
        asked.append(commit)
        assert (good, given["only"], given["gate"]) == (repository[0], "c3d", {"latency.p50_ms": "3%"})
        if commit == repository[3]:
            raise SetUpError("does not build")
        return compare(runs(1.0), runs(1.5 if repository.index(commit) >= 3 else 1.0)[::-1])

    monkeypatch.setattr(bisect_module, "ab", measured)
    command = ["bisect", "latency.p50_ms", "c3d", repository[0], "main", "--suite", "suite.yaml"]
    assert run_command(command) == 4
    printed = capsys.readouterr()
    assert printed.out.split()[-2:] == repository[3:5]
    assert "is passed over: does not build" in printed.err
    assert len(asked) == len(set(asked))
    count = len(asked)
    assert run_command(command) == 4
    assert len(asked) == count
    assert "were judged before" in capsys.readouterr().err


def test_the_case_must_be_one_of_the_suite() -> None:
    cases = [PlannedCase(id=key, title=title) for key, title in (("1", "c3d 16x1x112"), ("2", "i3d 16x1x112"))]
    pairing = pair_plans(cases, cases, by_place=False)
    for wanted in ("c3d", "1", "c3d 16x1x112", "c*"):
        assert list(the_one_case(pairing, cases, wanted).shared) == ["1"]
    for wanted in ("x", "3d"):
        with pytest.raises(InputError, match=r"it has: c3d 16x1x112 \(1\), i3d 16x1x112 \(2\)"):
            the_one_case(pairing, cases, wanted)


PLUGIN = """
from torch import nn
from bench.core.registry import register_model


@register_model("net", clip="8x1x32")
def net(num_classes: int = 5) -> nn.Module:
    "A model for tests."
    layers = [nn.Conv3d(3 if n == 0 else 8, 8, 3, padding=1) for n in range(LAYERS)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
SUITE = "suite: nets\nplugins: [nets]\nmodels: [net]\nmeasure: {latency: {max_s: 0.2}}\n"


@pytest.mark.slow
def test_a_bisection_of_real_commits_that_was_stopped_goes_on(
    repository: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes over a minute: three commits are timed in pairs with GOOD, and a stop ends one of them.

    The fourth of six commits has sixteen layers instead of one. A later suite has a model that the commits lack.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other while other tests use the cores
    folder = tmp_path / "nets"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    commits = []
    for number in range(7):
        (folder / "nets.py").write_text(PLUGIN.replace("LAYERS", "1" if number < 4 else "16"))
        (folder / "nets.yaml").write_text(f"{SUITE}description: commit {number}\n")
        git("add", ".")
        git("commit", "-q", "-m", str(number))
        commits.append(git("rev-parse", "HEAD"))
    (folder / "nets.yaml").write_text(SUITE.replace("[net]", "[net, later]"))
    command = [
        "bisect",
        "latency.p50_ms",
        "net 8x1x32",
        commits[0],
        commits[6],
        "--suite",
        "nets.yaml",
        "--limit",
        "50%",
    ]
    vbench = subprocess.Popen([sys.executable, "-m", "bench", *command], stderr=subprocess.PIPE, text=True)
    stream = vbench.stderr
    assert stream is not None
    try:
        said = "".join(iter(lambda: _line_until(stream, f"measuring {commits[3][:10]}"), ""))
    finally:
        vbench.send_signal(signal.SIGTERM)
        vbench.wait(60)
        stream.close()
    assert f"{commits[6][:10]} is bad" in said
    assert vbench.returncode == 143

    done = subprocess.run(
        [sys.executable, "-m", "bench", *command, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["first_bad"] == commits[4]
    assert found["judged"] == {commits[6]: "bad", commits[3]: "good", commits[4]: "bad"}
    assert "1 of 6 commits were judged before: results/bisect" in done.stderr
    assert f"measuring {commits[6][:10]}" not in done.stderr
    [measured] = (folder / "results" / "bisect").glob(f"{commits[4][:10]}-*")
    base, head = read_records(measured / "base"), read_records(measured / "head")
    assert len(base) == len(head) >= 3
    assert {record.in_turns for record in [*base, *head]} == {"steps"}


def _line_until(stream: IO[str], last: str) -> str:
    """The next line of a stream; empty once a line has `last` in it or the stream ends."""
    line = stream.readline()
    return "" if last in line else line
