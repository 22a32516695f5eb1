"""The GPU run: what it imports, how it spends its time, and a dry run of every stage on a CPU."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.nvml import GpuState
from bench.core.schema import Case, Clip, Metric, Record
from bench.measure.counting.model_count import count
from bench.measure.timing.throttling import ThrottleWatch
from bench.models.base import inputs_of
from bench.models.factory import create_model
from bench.reference.peaks import peak_of
from benchmarks.gpu_run import (
    MODELS,
    BenchmarkedModel,
    Item,
    Planner,
    Results,
    Stage,
    Worker,
    outcome_of,
    run,
    run_items,
    summary,
)
from benchmarks.gpu_worker import CHECKS, Target, run_check

ROOT = Path(__file__).parents[1]
ALLOWED = ("torch", "numpy", "pydantic", "ruamel.yaml", "psutil", "nvidia-ml-py")
FOR_FILES = ("av", "torchvision")
BLOCKER = """
import sys
from importlib.machinery import PathFinder

BLOCKED = frozenset({blocked!r})


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else super().find_spec(name, path, target)


sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
H200 = Planner(device="cuda", is_tiny=False, peak=peak_of("NVIDIA H200"))


def required_by(names: Sequence[str]) -> set[str]:
    """These distributions and all that they require, by normalised name."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop().lower())
        if name in found:
            continue
        try:
            requirements = distribution(name).requires or []
        except ModuleNotFoundError:
            continue
        found.add(name)
        left += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line]
    return found


def without_other_packages(tmp_path: Path, *more: str) -> dict[str, str]:
    """An environment in which every installed package is missing that the run does not name."""
    allowed = required_by([*ALLOWED, *more])
    blocked = {
        module
        for module, owners in packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", owner.lower()) in allowed for owner in owners)
    }
    assert {"plotly", "pandas", "typer"} <= blocked
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(blocked=sorted(blocked - {"bench", "benchmarks"})))
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def python(*arguments: str, environment: dict[str, str], timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_imported_beyond_what_the_run_names(tmp_path: Path) -> None:
    environment = without_other_packages(tmp_path)
    script = (
        "import importlib.util as u, benchmarks.gpu_worker; from bench.core.drift import find_drift, timing_interval; "
        "values = [1 + i * 7 % 11 / 100 for i in range(200)]; timing_interval(values); find_drift(values); "
        "print(u.find_spec('plotly'), u.find_spec('av'))"
    )
    assert python("-c", script, environment=environment, timeout_s=120).split() == ["None", "None"]
    plan = python("-m", "benchmarks.gpu_run", "--plan", "--gpu", "NVIDIA H200", environment=environment, timeout_s=60)
    assert "| paths | 60 |" in plan


@pytest.mark.slow
def test_a_dry_run_finishes_every_stage_without_other_packages_and_a_second_one_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    (tmp_path / "blocked").mkdir()
    environment = without_other_packages(tmp_path / "blocked")
    command = ["-m", "benchmarks.gpu_run", "--device", "cpu", "--tiny", "--minutes", "15", "--out"]
    said = python(*command, str(tmp_path / "out"), environment=environment, timeout_s=1200)
    assert "0 items are missing" in said
    results = Results(tmp_path / "out")
    assert {each["outcome"] for each in results.checks()} == {"passed", "skipped"}
    assert "| short_training | skipped | needs av, torchvision |" in (tmp_path / "out" / "summary.md").read_text()
    records = results.records()
    assert {name for record in records for name in record.case.measures} == {
        *("latency", "throughput", "train_step", "limits", "energy", "concurrent", "memory")
    }
    assert all(record.is_good for record in records)
    again = python(*command, str(tmp_path / "out"), environment=environment, timeout_s=60)
    assert again.splitlines()[0].startswith("0 items are missing")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short_training", "end_to_end"])
def test_files_are_trained_on_with_only_two_packages_more(tmp_path: Path, name: str) -> None:
    environment = without_other_packages(tmp_path, *FOR_FILES)
    script = (
        "import json, pathlib; from benchmarks.gpu_worker import Target, run_check; "
        f"on = Target(device='cpu', folder=pathlib.Path({str(tmp_path / 'out')!r}), is_tiny=True); "
        f"print(json.dumps(run_check({name!r}, on)))"
    )
    outcome = json.loads(python("-c", script, environment=environment, timeout_s=600).splitlines()[-1])
    assert outcome["outcome"] == "passed", outcome["text"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_planned_work_is_what_vbench_counts(model: BenchmarkedModel) -> None:
    clip = Clip.model_validate(model.clip)
    with torch.device("meta"):
        network = create_model(model.name, **model.args).eval()
        clips = tuple(torch.empty(spec.shape(clip, batch=1)) for spec in inputs_of(network))
    assert count(network, clips).macs / 1e9 == pytest.approx(model.gmacs, rel=1e-3)


def test_a_slower_gpu_is_planned_longer() -> None:
    slower = Planner(device="cuda", is_tiny=False, peak=peak_of("Tesla T4"))
    pairs = zip(H200.stages()[1].items, slower.stages()[1].items, strict=True)
    assert all(fast.planned_s <= slow.planned_s for fast, slow in pairs)


def test_items_have_keys_of_their_own() -> None:
    keys = [item.key for stage in H200.stages() for item in stage.items]
    assert len(set(keys)) == len(keys)


def test_every_check_belongs_to_a_stage() -> None:
    assert {item.key for stage in H200.stages() for item in stage.items if item.case is None} == set(CHECKS)


class PlannedWorker(Worker):
    """Runs no process: every item takes as long as it was planned, by a clock of its own."""

    start_s = 0.0

    def __init__(self) -> None:
        self.now_s = 0.0
        self.done: list[str] = []

    def clock_s(self) -> float:
        return self.now_s

    def run(self, item: Item, *, left_s: float) -> dict[str, Any]:
        self.now_s += item.planned_s
        self.done.append(item.key)
        return outcome_of(item, "passed", "")

    def close(self) -> None:
        return None


def stage(name: str, limit_s: float | None, *planned_s: float) -> Stage:
    items = [Item(stage=name, key=f"{name}{n}", planned_s=s) for n, s in enumerate(planned_s)]
    return Stage(name=name, limit_s=limit_s, items=tuple(items))


def test_a_stage_ends_at_its_limit_and_what_was_cut_has_the_time_that_is_left(tmp_path: Path) -> None:
    worker = PlannedWorker()
    stages = [stage("a", 20, 10, 25, 10), stage("b", 30, 20)]
    run(stages, Results(tmp_path), minutes=2, worker=worker, clock_s=worker.clock_s)
    assert worker.done == ["a0", "a2", "b0", "a1"]


def test_a_second_call_takes_up_what_is_missing(tmp_path: Path) -> None:
    stages = [stage("a", 60, 30, 40), stage("b", None, 30)]
    for done in (["a0"], ["a1"], ["b0"], []):
        worker = PlannedWorker()
        run(stages, Results(tmp_path), minutes=0.7, worker=worker, clock_s=worker.clock_s)
        assert worker.done == done


def test_what_failed_is_tried_again_after_what_never_ran(tmp_path: Path) -> None:
    results, (first, second, third) = Results(tmp_path), stage("a", 60, 1, 1, 1).items
    results.write(outcome_of(first, "failed", "no reason"))
    results.write(outcome_of(second, "skipped", "needs av"))
    assert [item.key for item in results.missing([first, second, third])] == ["a2", "a0"]
    results.write(outcome_of(first, "passed", ""))
    assert [item.key for item in results.missing([first, second, third])] == ["a2"]


def test_a_process_that_dies_or_hangs_costs_its_item_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killer.py").write_text("import os\nos._exit(7)\n")
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    tiny = Planner(device="cpu", is_tiny=True, peak=None).stages()
    template = next(item for item in tiny[1].items if item.case is not None)
    assert template.case is not None
    broken = []
    for batch, plugin in enumerate(("killer", "sleeper"), start=1):
        point = template.case.point.model_copy(update={"batch": batch})
        case = Case(suite="s", point=point, measures={"params": {}}, plugins=(plugin,))
        broken.append(replace(template, key=case.id, case=case, planned_s=-6.0))  # a limit of 6 s
    good, again = (next(item for item in tiny[0].items if item.key == name) for name in ("events", "parts"))
    results = Results(tmp_path / "out")
    settings = {"device": "cpu", "is_tiny": True, "folder": str(tmp_path / "out")}
    worker = Worker(settings, tmp_path / "out" / "worker.log")
    run_items([good], results, ends_s=1e9, worker=worker, clock_s=time.monotonic)
    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.gpu_run.START_LIMIT_S", 0.0)
        run_items(broken, results, ends_s=1e9, worker=worker, clock_s=time.monotonic)
    run_items([again], results, ends_s=1e9, worker=worker, clock_s=time.monotonic)
    worker.close()
    assert [(record.status, record.error and record.error.type) for record in results.records()] == [
        ("error", "Crash"),
        ("timeout", "TimeoutError"),
    ]
    assert [(each["key"], each["outcome"]) for each in results.checks()] == [("events", "passed"), ("parts", "passed")]


def test_the_summary_names_the_gpu_its_clock_and_every_value(tmp_path: Path) -> None:
    results, stages = Results(tmp_path), H200.stages()
    item = next(item for item in stages[1].items if item.case is not None)
    assert item.case is not None
    gpu = {"clock_mhz": [1500, 1980], "power_w": [300.0, 690.0], "reasons": {"power cap": 0.25}}
    rate = Metric(
        name="throughput.clips_per_s", value=1234.5, unit="clips/s", labels={"batch": "8"}, interval=(1230, 1240)
    )
    record = Record(
        case=item.case,
        case_id=item.key,
        run_index=0,
        freshness="",
        status="ok",
        metrics=(rate.model_copy(update={"interval": (1230.0, 1240.0)}),),
        details={"throughput at batch 8": {"gpu": gpu}},
        environment={"hardware": {"gpu": "NVIDIA H200"}, "software": {"torch": "2.11.0"}},  # type: ignore[arg-type]
        started_at="2026-11-30",
    )
    results.write({"record": record.model_dump(mode="json")})
    results.write(outcome_of(stages[0].items[0], "failed", "no clock"))
    text = summary(stages, results)
    assert "gpu NVIDIA H200, torch 2.11.0." in text
    assert "| clocks | failed | no clock |" in text
    row = next(line for line in text.splitlines() if "throughput.clips_per_s{batch=8}" in line)
    assert "| 1234.5 clips/s | 1230 to 1240 | 1500 to 1980 | 300 to 690 | power cap 25% |" in row


QUICK_ON_CPU = ("events", "parts", "streams", "autocast", "memory", "oom")


@pytest.mark.parametrize("name", QUICK_ON_CPU)
def test_checks_that_a_cpu_can_do_pass_there(name: str, tmp_path: Path) -> None:
    outcome = run_check(name, Target(device="cpu", folder=tmp_path, is_tiny=True))
    assert outcome["outcome"] == "passed", outcome["text"]


class Counter:
    """A counter of joules of a GPU that takes so many watts."""

    name = "a fake counter"

    def __init__(self, watts: float) -> None:
        self.watts = watts

    def joules(self) -> float:
        return self.watts * time.perf_counter()


class Event:
    """A CUDA event of a device that does all work at once: its time is the host's."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing, "without it there is no time to read"

    def record(self, stream: object = None) -> None:
        self.at_s = time.perf_counter()

    def elapsed_time(self, other: "Event") -> float:
        return 1000 * (other.at_s - self.at_s)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> GpuState:
    """A GPU on which a matrix product takes a millisecond, and a clock that only such work moves on."""
    state = GpuState(clock_mhz=1980, default_clock_mhz=1980, reasons=("power cap",), temperature_c=61, power_w=655.0)
    monkeypatch.setattr("benchmarks.gpu_worker.read_gpu_state", lambda device: state)
    monkeypatch.setattr("benchmarks.gpu_worker.watch_throttling", lambda device: ThrottleWatch(read=lambda: state))
    monkeypatch.setattr("benchmarks.gpu_worker.counter_of", lambda device: Counter(650))
    now_s = [0.0]

    def work() -> None:
        now_s[0] += 0.001

    monkeypatch.setattr(time, "perf_counter", lambda: now_s[0])
    monkeypatch.setattr("benchmarks.gpu_worker._matmul", lambda on: work)
    for name, stand_in in {
        "Event": Event,
        "current_stream": lambda device: None,
        "synchronize": lambda device=None: None,
        "device": lambda device: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return state


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize("name", ["clocks", "events", "parts", "energy", "throttle"])
def test_checks_of_a_gpu_pass_on_one_that_behaves(name: str, tmp_path: Path) -> None:
    outcome = run_check(name, Target(device="cuda", folder=tmp_path))
    assert outcome["outcome"] == "passed", outcome["text"]
    json.dumps(outcome)


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_a_counter_in_another_unit_fails_its_check(
    unit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_worker.counter_of", lambda device: Counter(650 * unit))
    outcome = run_check("energy", Target(device="cuda", folder=tmp_path))
    assert (outcome["outcome"], "in another unit" in outcome["text"]) == ("failed", True)


def test_a_gpu_without_a_clock_fails_its_check(
    fake_gpu: GpuState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = replace(fake_gpu, clock_mhz=None)
    monkeypatch.setattr("benchmarks.gpu_worker.read_gpu_state", lambda device: silent)
    assert run_check("clocks", Target(device="cuda", folder=tmp_path))["outcome"] == "failed"


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_cuda_path_does_what_vbench_relies_on(name: str, tmp_path: Path) -> None:
    outcome = run_check(name, Target(device="cuda", folder=tmp_path))
    if outcome["outcome"] == "skipped":
        pytest.skip(outcome["text"])
    assert outcome["outcome"] == "passed", outcome["text"]
