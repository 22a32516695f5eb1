"""The gate in other people's tests: a baseline is kept, a regression fails, and so does comparing nothing."""

import subprocess
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats  # noqa: F401  # pytester forgets modules that a test imports, and numpy cannot be imported twice

import bench.ab.gate  # noqa: F401  # as above, for the replaced function
from bench.comparison.comparing import compare
from bench.comparison.verdicts import MetricVerdict
from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record
from bench.pytest_plugin import _properties
from bench.runner import local
from bench.store import read_records

pytest_plugins = "pytester"

TEST = """
def test_speed(vbench):
    vbench.gate({metric!r}, "c3d", "1x3x16x112x112"{more})
"""
QUIET = [10.0, 10.02, 9.98, 10.01, 9.99]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How slow the next runs are, and how they end; no process is started."""
    state: dict[str, Any] = {"factor": 1.0, "status": "ok", "layers": 100, "gpu": "H100", "day": 1}

    def run_case(case: Case, store: Any, *, run_index: int, freshness: str) -> Record:
        value = state["factor"] * QUIET[run_index % 5]
        metrics = (
            Metric(name="latency.p50_ms", value=value, unit="ms", better="lower", samples=(value,)),
            Metric(name="latency.p90_ms", value=2 * value, unit="ms", better="lower"),
            Metric(name="latency.layers", value=state["layers"], unit="", better="lower", is_exact=True),
            Metric(name="latency.p99_ms", value=value * (1 + run_index), unit="ms", better="lower"),
        )
        is_good = state["status"] == "ok"
        return Record(
            case=case,
            case_id=case.id,
            run_index=run_index,
            freshness="",
            status=state["status"],
            metrics=metrics if is_good else (),
            error=None if is_good else Failure(type="OutOfMemory", message="too big"),
            details={"input_channels": [3]},
            environment=Environment(hardware={"gpu": state["gpu"]}, state={"folder": "/home/ada/models"}),
            started_at=f"2026-01-{state['day']:02d}T00:00:{run_index:02d}",
        )

    monkeypatch.setattr(local, "run_case", run_case)
    return state


@pytest.fixture
def outcome(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> Callable[..., tuple[bool, str]]:
    """Runs a file with one gate; whether it passed, and what was printed."""
    loaded = request.config.pluginmanager.hasplugin("vbench")

    def run(*options: str, metric: str = "latency", more: str = "", test: str = TEST) -> tuple[bool, str]:
        pytester.makepyfile(test.format(metric=metric, more=more))
        plugin = [] if loaded else ["-p", "bench.pytest_plugin"]
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *plugin, *options)
        return result.ret == 0, result.stdout.str()

    return run


def test_a_gate_without_a_baseline_fails_and_names_the_option_that_saves_one(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    passed, said = outcome()
    assert not passed
    assert "pytest --vbench-update" in said


def test_a_regression_against_the_baseline_fails(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    assert outcome("--vbench-update")[0]
    assert outcome()[0]
    measured["factor"] = 1.1
    passed, said = outcome()
    assert not passed
    assert "worse: latency.p50_ms" in said
    assert outcome(more=", limit='20%'")[0]


@pytest.mark.parametrize(("more", "told"), [(", runs=2", "inconclusive"), (", limit='1MiB'", "does not fit")])
def test_doubt_and_wrong_limits_fail(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], more: str, told: str
) -> None:
    assert outcome("--vbench-update")[0]
    passed, said = outcome(more=more)
    assert not passed
    assert told in said


def test_a_run_that_dies_fails_the_test_and_keeps_no_baseline(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    measured["status"] = "oom"
    passed, said = outcome("--vbench-update")
    assert not passed
    assert "OutOfMemory: too big" in said
    measured["status"] = "ok"
    assert "no baseline" in outcome()[1]


def test_one_metric_can_be_named(measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]) -> None:
    assert outcome("--vbench-update", metric="latency.p50_ms")[0]
    assert outcome(metric="latency.p50_ms", more=", limit='1%'")[0]
    passed, said = outcome(metric="latency.p51_ms", more=", limit='1%'")
    assert not passed
    assert "incomplete" in said


def test_a_further_view_that_is_named_decides_without_a_limit_too(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    """p90 lies beside the samples of p50, so that it decides nothing unasked."""
    assert outcome("--vbench-update", metric="latency.p90_ms")[0]
    assert outcome(metric="latency.p90_ms")[0]
    measured["factor"] = 1.1
    passed, said = outcome(metric="latency.p90_ms")
    assert not passed
    assert "worse: latency.p90_ms" in said
    assert "3% is allowed" in said


def test_a_count_that_is_named_allows_nothing_without_a_limit(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    assert outcome("--vbench-update", metric="latency.layers")[0]
    measured["layers"] = 101
    passed, said = outcome(metric="latency.layers")
    assert not passed
    assert "worse: latency.layers" in said


@pytest.mark.parametrize("metric", ["throughput", "throughput.clips_per_s", "throughput.clips_per_s{batch=8}"])
def test_a_metric_may_be_named_with_its_labels(
    monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., tuple[bool, str]], metric: str
) -> None:
    state = {"factor": 1.0}

    def run_case(case: Case, store: Any, *, run_index: int, freshness: str) -> Record:
        value = state["factor"] * QUIET[run_index % 5]
        rate = Metric(
            name="throughput.clips_per_s", value=value, unit="clips/s", better="higher", labels={"batch": "8"}
        )
        return Record(
            case=case,
            case_id=case.id,
            run_index=run_index,
            freshness="",
            status="ok",
            metrics=(rate,),
            started_at=f"2026-01-01T00:{round(10 * state['factor']):02d}:{run_index:02d}",
        )

    monkeypatch.setattr(local, "run_case", run_case)
    assert outcome("--vbench-update", metric=metric)[0]
    state["factor"] = 1.01
    passed, said = outcome(metric=metric)
    assert passed, said
    state["factor"] = 0.8
    passed, said = outcome(metric=metric)
    assert not passed
    assert "worse: throughput.clips_per_s{batch=8}" in said


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs these very tests."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)


def test_gates_that_differ_in_options_have_baselines_of_their_own(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], pytester: pytest.Pytester
) -> None:
    few, many = ", options={'warmup': 1}", ", options={'warmup': 99}"
    assert outcome("--vbench-update", more=few)[0]
    passed, said = outcome(more=many)
    assert not passed
    assert "no baseline" in said
    measured["factor"] = 2.0
    assert outcome("--vbench-update", more=many)[0]
    assert outcome(more=many)[0]
    measured["factor"] = 1.0
    assert outcome(more=few)[0]
    assert len(list(pytester.path.glob(".vbench/baseline/*/*/records.jsonl"))) == 2


@pytest.mark.parametrize(("options", "folder"), [((), "~/models"), (("--vbench-identify",), "/home/ada/models")])
def test_a_baseline_holds_no_home_folder_unless_asked_to(
    measured: dict[str, Any],
    outcome: Callable[..., tuple[bool, str]],
    pytester: pytest.Pytester,
    options: tuple[str, ...],
    folder: str,
) -> None:
    assert outcome("--vbench-update", *options)[0]
    (file,) = pytester.path.glob(".vbench/baseline/*/*/records.jsonl")
    assert {record.environment.state["folder"] for record in read_records(file)} == {folder}
    assert outcome(*options)[0]


def test_each_kind_of_machine_has_a_baseline_of_its_own(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    assert outcome("--vbench-update")[0]
    measured.update(factor=3.0, gpu="L4", day=2)
    passed, said = outcome()
    assert not passed
    assert "hardware.gpu: H100 in base, L4 in head" in said
    assert "worse: latency.p50_ms" in outcome("--vbench-across")[1]
    assert outcome("--vbench-update")[0]
    assert outcome()[0]
    measured.update(factor=1.0, gpu="H100", day=3)
    assert outcome()[0], "the other's update left this one's as it was"


def test_a_count_is_compared_with_whichever_machine_was_measured_last(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    for day, gpu, layers in ((2, "L4", 101), (1, "H100", 100)):
        measured.update(day=day, gpu=gpu, layers=layers)
        assert outcome("--vbench-update", metric="latency.layers")[0]
    measured.update(day=3, gpu="B200", layers=101)
    assert outcome(metric="latency.layers")[0]


def test_timings_are_refused_with_several_workers(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "4")
    passed, said = outcome("--vbench-update")
    assert not passed
    assert "next to 3 other workers; run gates with -n 0" in said
    assert outcome("--vbench-update", metric="macs")[0]
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1")
    assert outcome("--vbench-update")[0]


def test_a_failure_is_printed_in_its_own_lines_without_a_traceback(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    assert outcome("--vbench-update")[0]
    measured.update(factor=1.5)
    said = outcome()[1]
    failure = said.partition("= FAILURES =")[2].partition("short test summary")[0].splitlines()
    told = [line for line in failure if line.strip("=_ ") and "test_speed" not in line]
    assert len(told) == 1, told
    assert told[0].startswith("worse: latency.p50_ms of c3d batch=1 16x1x112: +50.0 %")


def test_verdicts_are_properties_in_junit_xml(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], pytester: pytest.Pytester
) -> None:
    assert outcome("--vbench-update")[0]
    assert outcome("--junitxml=found.xml")[0]
    text = (pytester.path / "found.xml").read_text()
    assert '<property name="vbench latency.p50_ms verdict" value="same" />' in text
    assert '<property name="vbench latency.p50_ms ratio" value="1.0" />' in text


PARAMETRISED = """
import pytest

@pytest.mark.parametrize("model", ["c3d", "i3d"])
def test_speed(vbench, model):
    vbench.gate({metric!r}, model, "1x3x16x112x112"{more})
"""


def test_parametrised_models_have_a_baseline_each(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], pytester: pytest.Pytester
) -> None:
    assert outcome("--vbench-update", test=PARAMETRISED)[0]
    assert len(list((pytester.path / ".vbench" / "baseline").iterdir())) == 2
    assert outcome(test=PARAMETRISED)[0]


@pytest.mark.parametrize(
    ("metric", "more", "gate"),
    [
        ("latency", "", {}),
        ("latency", ", limit='5%'", {"latency.*": "5%"}),
        ("latency.p50_ms", "", {"latency.p50_ms": "3%"}),
        ("params.total", "", {"params.total": "0"}),
    ],
)
def test_a_commit_is_measured_alternately_with_the_working_folder(
    measured: dict[str, Any],
    outcome: Callable[..., tuple[bool, str]],
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    more: str,
    gate: dict[str, str],
) -> None:
    """No baseline is read or written; the suite has the one case, and the verdict is that of `vbench ab`."""
    asked: list[Any] = []

    def measured_ab(base: str, head: str, suite: Any, **given: Any) -> Any:
        asked.append((base, head, suite.data, given["budget_s"], given["gate"]))
        records = [run_of(factor=1.0), run_of(factor=1.5)]
        return compare(*records)

    def run_of(factor: float) -> list[Record]:
        measured.update(factor=factor)
        case = Case(suite="pytest", point=Point(model="c3d", clip=Clip(frames=16, height=112, width=112)), measures={})
        return [local.run_case(case, None, run_index=n, freshness="") for n in range(5)]  # type: ignore[arg-type]

    monkeypatch.setattr("bench.ab.gate.ab", measured_ab)
    passed, said = outcome("--vbench-compare", "main", "--vbench-budget", "120", metric=metric, more=more)
    assert not passed
    assert "worse: latency.p50_ms of c3d 16x1x112: +50.0 %" in said
    [(base, head, suite, budget_s, gates)] = asked
    assert (base, head, budget_s, gates) == ("main", ".", 120.0, gate)
    assert suite["models"] == [{"name": "c3d"}]
    assert suite["matrix"]["clip"] == ["16x1x112x112"]
    assert list(suite["measure"]) == [metric.partition(".")[0]]


def test_channels_that_the_model_does_not_take_are_refused(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    passed, said = outcome("--vbench-update", test=TEST.replace("1x3x16", "1x1x16"))
    assert not passed
    assert "input '1x1x16x112x112' has 1 channel, but c3d takes 3" in said


def test_wrong_input_shows_the_line_of_the_test_and_none_of_this_project(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]]
) -> None:
    """Also if the error comes from deep inside, such as an unknown measure with its nearest spelling."""
    passed, said = outcome(metric="latencie")
    assert not passed
    assert "did you mean: latency" in said
    failure = said.partition("= FAILURES =")[2].partition("short test summary")[0]
    assert "vbench.gate('latencie'" in failure
    assert "bench/pytest_plugin.py" not in failure
    assert "bench/core" not in failure


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--vbench-compare", "main", "--vbench-update"), "--vbench-compare reads and writes no baseline"),
        (("--vbench-budget", "0"), "--vbench-budget 0 is not a time in seconds; give one above 0"),
        (("--vbench-budget", "nan"), "--vbench-budget nan is not a time in seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_the_start(
    outcome: Callable[..., tuple[bool, str]], capfd: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    passed, printed = outcome(*options)
    assert not passed
    assert said in printed + capfd.readouterr().err


TWO_GATES = """
def test_speed(vbench):
    for model in ("c3d", "i3d"):
        vbench.gate({metric!r}, model, "1x3x16x112x112"{more})
"""


def test_properties_of_two_gates_in_one_test_differ_in_the_name_of_the_case(
    measured: dict[str, Any], outcome: Callable[..., tuple[bool, str]], pytester: pytest.Pytester
) -> None:
    assert outcome("--vbench-update", test=TWO_GATES)[0]
    assert outcome("--junitxml=found.xml", test=TWO_GATES)[0]
    names = [each.get("name") for each in ElementTree.parse(pytester.path / "found.xml").iter("property")]
    assert len(names) == len(set(names))
    assert "vbench latency.p50_ms verdict" in names
    assert "vbench latency.p50_ms of i3d batch=1 16x1x112 verdict" in names


def row(**fields: Any) -> MetricVerdict:
    given: dict[str, Any] = {
        "case": "c3d",
        "base": 1.0,
        "head": 2.0,
        "ratio": 2.0,
        "metric": "latency.p50_ms",
        **fields,
    }
    return MetricVerdict(
        suite="s", case_id="c", unit="ms", better="lower", runs=(4, 4), verdict="worse", reason="", **given
    )


def test_properties_hold_plain_numbers_and_leave_out_unknown_ones() -> None:
    """Workers of pytest-xdist cannot send a number of numpy, and XML cannot hold every character."""
    found = _properties([row(base=np.float64(1.5), head=3, ratio=None, metric="latency.p50_ms{by=\x1b}")], known=())
    assert found == [
        ("vbench latency.p50_ms{by=\ufffd} verdict", "worse"),
        ("vbench latency.p50_ms{by=\ufffd} base", 1.5),
        ("vbench latency.p50_ms{by=\ufffd} head", 3),
    ]
    assert [type(value) for _, value in found] == [str, float, int]


COUNTED = """
import pytest

@pytest.mark.parametrize("model", ["nets:small", "nets:large"])
def test_size(vbench, model):
    vbench.gate("params", model, "1x3x4x16x16")
"""
NETS = """
from torch import nn

def net(width):
    return nn.Sequential(nn.Conv3d(3, width, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(width, 5))

def small(num_classes=5):
    return net(8)

def large(num_classes=5):
    return net(WIDTH)
"""


@pytest.mark.slow
def test_two_workers_compare_parametrised_models_with_a_commit(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real processes: counts may be compared by several workers at once. By hand: 8 more channels of 3 x 27 weights
    and a bias, and 8 more inputs of 5 classes."""
    pytest.importorskip("xdist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    pytester.makepyfile(nets=NETS.replace("WIDTH", "16"), test_size=COUNTED)
    git("add", ".")
    git("commit", "-q", "-m", "first")
    pytester.makepyfile(nets=NETS.replace("WIDTH", "24"))
    plugin = [] if request.config.pluginmanager.hasplugin("vbench") else ["-p", "bench.pytest_plugin"]
    found = pytester.runpytest_subprocess(*plugin, "-n", "2", "--vbench-compare", "HEAD", "--junitxml=found.xml")
    found.assert_outcomes(passed=1, failed=1)
    said = found.stdout.str()
    assert "worse: params.total of nets:large" in said
    assert "Traceback" not in said
    cases = {each.get("name"): each for each in ElementTree.parse(pytester.path / "found.xml").iter("testcase")}
    values = {each.get("name"): each.get("value") for each in cases["test_size[nets:large]"].iter("property")}
    assert values["vbench params.total verdict"] == "worse"
    more = float(values["vbench params.total head"] or 0) - float(values["vbench params.total base"] or 0)
    assert more == 8 * (3 * 27 + 1) + 8 * 5
    worktrees = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert worktrees.count("\n") == 1
