"""`vbench ab` as people call it: real processes in a small repository, and all that can be wrong before them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench.ab.gate import Measurement, Pairing, pair_plans, part_of
from bench.ab.side_suites import ListedModels
from bench.ab.sides import PlannedCase, RunOutcome, Side, SideName
from bench.cli.app import run_command
from bench.comparison.interim import InterimAnalyses
from bench.comparison.verdicts import Comparison
from bench.core.errors import InputError, SetUpError
from bench.store import read_records

PLUGIN = '''
from torch import nn
from bench.core.registry import register_model

LAYERS = 1


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        middle = [nn.Conv3d(8, 8, 3, padding=1) for _ in range(LAYERS)]
        self.layers = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), *middle)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, clips):
        return self.fc(self.layers(clips).mean((2, 3, 4)))


@register_model("net", clip="8x1x32")
def net(num_classes: int = 5) -> Net:
    """A model for tests."""
    return Net(num_classes)
'''
SUITE = """\
suite: nets
plugins: [nets]
models: [net]
measure:
  params: {}
  latency: {max_s: 0.2}
gate:
  latency.p50_ms: {max_rise: 3%}
  params.total: {max_rise: 1%}
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose last commit makes its model ten times as expensive."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "nets.yaml").write_text(SUITE)
    for layers in (1, 16):
        (folder / "nets.py").write_text(PLUGIN.replace("LAYERS = 1", f"LAYERS = {layers}"))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"{layers} layers")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.mark.slow
def test_a_slower_head_is_found_in_real_processes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["ab", "HEAD~1", "HEAD", "nets.yaml", "--budget", "15m", "--out", "out", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in printed["rows"]}
    assert rows["latency.p50_ms"]["verdict"] == "worse"
    assert rows["latency.p50_ms"]["ratio"] > 3
    assert rows["params.total"]["verdict"] == "worse"
    base, head = read_records("out/base"), read_records("out/head")
    commits = [{r.environment.state["commit"] for r in side if r.environment.state["commit"]} for side in (base, head)]
    assert commits == [{git(repository, "rev-parse", ref)} for ref in ("HEAD~1", "HEAD")]
    assert git(repository, "worktree", "list").count("\n") == 0
    assert run_command(["compare", "out/base", "out/head"]) == 1
    assert run_command(["ab", "HEAD~1", "HEAD", "nets.yaml", "--out", "out"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "code"), [("src", 1), ("packages/nets/src", 3)])
def test_a_stale_installed_copy_is_not_measured_in_place_of_the_working_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, code: int
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "nets.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{installed}")
    (repository / folder).mkdir(parents=True)
    git(repository, "mv", "nets.py", folder)
    (repository / folder / "nets.py").write_text(PLUGIN)
    (repository / "nets.yaml").write_text(
        SUITE.replace("  latency: {max_s: 0.2}\n", "").replace("  latency.p50_ms: {max_rise: 3%}\n", "")
    )
    git(repository, "commit", "-q", "-a", "-m", "moved")
    (repository / folder / "nets.py").write_text(PLUGIN.replace("LAYERS = 1", "LAYERS = 9"))
    assert run_command(["ab", "HEAD", ".", "nets.yaml", "--out", "out"]) == code


@pytest.mark.slow
def test_a_side_that_cannot_be_measured_is_exit_3(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "nets.py").write_text("raise RuntimeError('not today')\n")
    git(repository, "commit", "-q", "-a", "-m", "broken")
    assert run_command(["ab", "HEAD~1", "HEAD", "nets.yaml", "--out", "out"]) == 3
    assert "not today" in capsys.readouterr().err
    assert git(repository, "worktree", "list").count("\n") == 0


HANGING = """
import os, time
with open("pids.part", "w") as file:
    file.write(f"{os.getppid()} {os.getpid()}")
os.rename("pids.part", PIDS)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_measurement_that_is_stopped_leaves_no_process_and_no_worktree(
    repository: Path, tmp_path: Path, wait_until_gone: Callable[..., None], stop: signal.Signals, code: int
) -> None:
    """The plug-in hangs in a grandchild of the side's process, which has its own process group."""
    if signal.getsignal(stop) is signal.SIG_IGN:
        pytest.skip("whatever runs this test ignores the signal, and children inherit that")
    pids = tmp_path / "pids"
    (repository / "nets.py").write_text(HANGING.replace("PIDS", repr(str(pids))))
    git(repository, "commit", "-q", "-a", "-m", "hanging")
    vbench = subprocess.Popen([sys.executable, "-m", "bench", "ab", "HEAD", "HEAD~1", "nets.yaml"])
    try:
        deadline = time.monotonic() + 120
        while not pids.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        vbench.send_signal(stop)
        assert vbench.wait(60) == code
    finally:
        vbench.kill()
    wait_until_gone([int(pid) for pid in pids.read_text().split()])
    assert git(repository, "worktree", "list").count("\n") == 0


DEEP = """

@register_model("deep", clip="8x1x32")
def deep(width: int, num_classes: int = 5) -> Net:
    \"\"\"A wider model for tests.\"\"\"
    return Net(num_classes * width)


@register_model("flat", clip="8x1x32")
def flat(width: int, num_classes: int = 5) -> Net:
    \"\"\"A model for tests that does not widen.\"\"\"
    return Net(num_classes)
"""


@pytest.mark.slow
def test_cases_of_two_models_are_judged_in_the_pairs_they_were_measured_in(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: nothing but the last layer widens, which costs 9 parameters for each of 5 classes."""
    (repository / "nets.py").write_text(PLUGIN + DEEP)
    suite = SUITE.replace("models: [net]", "models: [flat]\nmatrix: {width: [1, 3], clip: [8x1x32]}")
    (repository / "nets.yaml").write_text(
        suite.replace("  latency: {max_s: 0.2}\n", "").replace("  latency.p50_ms: {max_rise: 3%}\n", "")
    )
    assert run_command(["ab", "model:flat", "model:deep", "nets.yaml", "--out", "out", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in printed["rows"] if row["metric"] == "params.total"] == ["same", "worse"]
    assert (printed["missing"], printed["added"]) == ([], [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["HEAD", "nowhere", "nets.yaml"],
        ["HEAD", "HEAD", "nowhere.yaml"],
        ["HEAD", "HEAD", "nets.yaml", "--budget", "10"],
        ["HEAD", "HEAD", "nets.yaml", "--gate", "latency.p50_ms=3apples"],
        ["HEAD", "HEAD", "nets.yaml", "--gate", "latency.p50_ms=noise"],
        ["HEAD", "HEAD", "nets.yaml", "--fail-on", "regresion"],
    ],
)
def test_wrong_input_is_exit_2_before_anything_is_measured(
    repository: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["ab", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (repository / "results").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("matrix: clip\nmodels: [net]", "nets.yaml:3:1: matrix: input should be a mapping, found 'clip'\n"),
        ("models: {net: {}}", "nets.yaml:3:1: models: input should be a valid list\n"),
        ("models: [3]", "nets.yaml:3:10: models.0: input should be a valid string, found 3\n"),
        ("models:", "nets.yaml:3:1: models: input should be a valid list, found None\n"),
        ("matrix: {clip: [8x1x32]}", "nets.yaml:1:1: the key 'models' is missing\n"),
    ],
)
def test_a_suite_whose_model_is_replaced_must_be_valid(
    repository: Path, capsys: pytest.CaptureFixture[str], keys: str, message: str
) -> None:
    (repository / "nets.yaml").write_text(SUITE.replace("models: [net]\n", f"{keys}\n"))
    assert run_command(["ab", "model:net", "HEAD", "nets.yaml"]) == 2
    assert message in capsys.readouterr().err
    assert not (repository / "results").exists()


@pytest.mark.parametrize("extra", ["", "colour: red\n"], ids=["valid", "invalid for this version"])
def test_a_suite_from_elsewhere_that_runs_code_needs_trust(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: str,
) -> None:
    """As `vbench run` and `plan` do. A suite with errors may still be one that a side of another version runs."""
    monkeypatch.setenv("VBENCH_TRUST", "")
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE + extra)
    assert run_command(["ab", "HEAD", "HEAD", str(suite)]) == 2
    assert "would run the plug-in nets" in (printed := capsys.readouterr().err)
    assert "--trust" in printed
    assert not (repository / "results").exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_an_unknown_key_of_a_gate_rule_is_reported_with_its_line(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (repository / "nets.yaml").read_text()
    (repository / "nets.yaml").write_text(text.replace("params.total: {max_rise:", "params.total: {max_rice:"))
    assert run_command(["ab", "HEAD", ".", "nets.yaml"]) == 2
    assert re.search(r"nets\.yaml:\d+:\d+: unknown key 'max_rice'; did you mean: max_rise", capsys.readouterr().err)


def case(name: str) -> PlannedCase:
    return PlannedCase(id=name, title=name)


def test_plans_are_paired_by_id_and_the_rest_is_missing_or_added() -> None:
    paired = pair_plans([case("a"), case("b")], [case("b"), case("c")], by_place=False)
    assert paired.shared == {"b": (1, 0)}
    assert (paired.missing, paired.added) == ((case("a"),), (case("c"),))


def test_plans_of_two_models_are_paired_by_place() -> None:
    assert pair_plans([case("a"), case("b")], [case("x"), case("y")], by_place=True).shared == {
        "x": (0, 0),
        "y": (1, 1),
    }
    with pytest.raises(SetUpError):
        pair_plans([case("a")], [case("x"), case("y")], by_place=True)


def test_cases_of_models_that_only_one_side_lists_have_no_partner_by_place() -> None:
    """`old` was renamed to `new` in a change that also removes `gone` and adds `fresh`."""
    base = [PlannedCase(id=f"b-{name}", title=name, model=name) for name in ("old", "kept", "gone")]
    head = [PlannedCase(id=f"h-{name}", title=name, model=name) for name in ("fresh", "new", "kept")]
    models = ListedModels(only_base=frozenset({"gone"}), only_head=frozenset({"fresh"}))
    paired = pair_plans(base, head, by_place=True, models=models)
    assert paired.shared == {"h-new": (0, 1), "h-kept": (1, 2)}
    assert (paired.missing, paired.added) == ((base[2],), (head[0],))


def test_shards_share_the_cases_and_the_first_reports_the_rest() -> None:
    whole = pair_plans([case(name) for name in "abcdx"], [case(name) for name in "abcdy"], by_place=False)
    parts = [part_of(whole, (place, 3)) for place in (1, 2, 3)]
    assert [list(part.shared) for part in parts] == [["a", "d"], ["b"], ["c"]]
    assert [len(part.missing) + len(part.added) for part in parts] == [2, 0, 0]
    with pytest.raises(InputError, match="--shard 1/5: there are only 4 cases"):
        part_of(whole, (1, 5))


class FakeSide:
    """A side whose runs are good at once; notes what it is asked for in `asked`, which both sides share."""

    def __init__(self, name: SideName, asked: list[str]) -> None:
        self.name, self.asked = name, asked
        self.cases = (PlannedCase(id="c", title="c", timeout_s=60.0),)

    def prepare(self, count: int) -> None:
        self.asked.append(f"prepare {count}")

    def wait_until_prepared(self) -> None:
        self.asked.append("wait")

    def begin(self, place: int, index: int, *, turn_address: str | None = None) -> None:
        self.asked.append("begin")

    def result(self) -> RunOutcome:
        self.asked.append("end")
        return RunOutcome(is_good=True, needs_turns=True)


@pytest.mark.parametrize(("cores", "ahead"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_interpreters_are_started_ahead_only_while_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, cores: int, ahead: int
) -> None:
    """As many of each side as can import at once; both sides wait for all of them before a run begins."""
    monkeypatch.setattr("bench.ab.gate.usable_cpus", lambda: cores)
    asked: list[str] = []
    sides = [cast("Side", FakeSide(name, asked)) for name in ("base", "head")]
    pairing = Pairing(shared={"c": (0, 0)}, missing=(), added=())
    nothing = cast(
        "InterimAnalyses", SimpleNamespace(analyse=lambda given_up=(): Comparison(base="", head="", rows=()))
    )
    measurement = Measurement(sides, pairing, nothing, is_apart=True, on_note=lambda text: None)
    measurement._start_ahead()
    for index in range(ahead):
        measurement._run_pair("base", "c", index)
    start, pair = [f"prepare {ahead}"] * 2, ["wait", "wait", "begin", "end", "begin", "end"]
    assert asked == [*start, *(pair * ahead), *start]


@pytest.mark.parametrize("measure", ["measure: {latency: {}}", "measure: {memory: {}}", "measure: 3", ""])
def test_counts_of_a_suite_without_exact_measures_are_wrong_input(
    repository: Path, capsys: pytest.CaptureFixture[str], measure: str
) -> None:
    (repository / "nets.yaml").write_text(f"suite: nets\nplugins: [nets]\nmodels: [net]\n{measure}\n")
    assert run_command(["ab", ".", ".", "nets.yaml", "--counts"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "--counts: the suite has no exact measure; add one to `measure`: " in printed
    assert "macs" in printed


@pytest.mark.slow
def test_counts_alone_decide_without_timing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 15 more convolutions of 8 x 8 x 27 weights and 8 biases, beside 8 x 3 x 27 + 8 + 45 parameters."""
    assert run_command(["ab", "HEAD~1", "HEAD", "nets.yaml", "--counts", "--out", "out", "--json"]) == 1
    printed = capsys.readouterr()
    rows = {row["metric"]: row for row in json.loads(printed.out)["rows"]}
    assert rows["params.total"]["verdict"] == "worse"
    assert rows["params.total"]["head"] - rows["params.total"]["base"] == 15 * (8 * 8 * 27 + 8)
    assert not [name for name in rows if name.startswith("latency")]
    assert "counts: 0 of 1 are the same" in printed.err
    [cause] = json.loads(printed.out)["causes"]
    assert cause["changes"] == [
        {"path": "layers", "what": "added", "macs": None, "params": 15 * (8 * 8 * 27 + 8), "layers": 15}
    ]
    line = 1 + (repository / "nets.py").read_text().splitlines().index('@register_model("net", clip="8x1x32")')
    assert cause["source"] == f"nets.py:{line}"


@pytest.mark.slow
def test_a_gate_that_is_not_a_mapping_is_wrong_input(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "nets.yaml").write_text(SUITE.partition("gate:")[0] + "gate: 3\n")
    assert run_command(["ab", ".", ".", "nets.yaml", "--out", "out"]) in (2, 3)
    assert "gate" in capsys.readouterr().err
