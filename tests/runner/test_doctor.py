"""The doctor on described GPUs, and what the environment records of code and other processes."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from bench.core.schema import Case, Clip, Environment, Metric, Point, Record, RecordWarning
from bench.profiling import _speed_notes
from bench.runner import doctor, environment
from bench.runner.doctor import EXTRAS, check_machine, may_set_clocks
from bench.runner.environment import describe_environment

PLAIN = {"cpu": "a CPU", "cpu_threads": 8, "cpu_threads_usable": 4}
GPU = Environment(
    hardware={
        **PLAIN,
        "gpu": "NVIDIA H100 PCIe",
        "gpu_driver": "570",
        "gpu_clock_max_mhz": 1755,
        "gpu_power_limit_w": 350.0,
        "gpu_mig": True,
    },
    state={
        "load_1min": 0.1,
        "cpu_governor": "performance",
        "gpu_clock_mhz": 345,
        "gpu_power_w": 70.0,
        "gpu_persistence": False,
        "gpu_other_processes": ["miner (pid 7)"],
    },
)


@pytest.mark.parametrize(("mask", "may"), [("0000000000200000", True), ("000001ffffffffff", True), ("a80425fb", False)])
def test_only_the_admin_capability_allows_locking_clocks(mask: str, may: bool) -> None:
    assert may_set_clocks(f"Name:\tpython\nCapPrm:\t0\nCapEff:\t{mask}\n") is may


@pytest.mark.parametrize("may", [True, False])
def test_doctor_explains_how_to_lock_clocks_and_what_is_not_permitted(
    monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    monkeypatch.setattr(doctor, "describe_environment", lambda device: GPU)
    monkeypatch.setattr(doctor, "may_set_clocks", lambda: may)
    found = {finding.topic: finding for finding in check_machine(with_gpu=True)}
    assert "nvidia-smi -lgc" in found["GPU clock"].remedy
    assert "nvidia-smi -pm 1" in found["persistence"].remedy
    assert "miner (pid 7)" in found["GPU processes"].found
    assert "whole GPU" in found["MIG"].remedy
    assert ("not allowed here" in found["permission"].found) is not may


def test_without_a_gpu_doctor_has_no_noise_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Environment(hardware=dict(PLAIN), state={"load_1min": 0.1, "cpu_governor": None})
    monkeypatch.setattr(doctor, "describe_environment", lambda device: plain)
    assert any("there is no GPU here" in finding.found for finding in check_machine(with_gpu=True))


def test_the_repository_of_a_users_model_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.py"
    file.write_text("")
    assert describe_environment(model_file=str(file)).state["model_commit"] is None
    for command in (
        ["init", "-q"],
        ["add", "net.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "net"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = describe_environment(model_file=str(file)).state
    assert (len(str(clean["model_commit"])), clean["model_is_dirty"]) == (40, False)
    file.write_text("changed")
    assert describe_environment(model_file=str(file)).state["model_is_dirty"] is True
    monkeypatch.chdir(tmp_path)
    assert describe_environment().state["commit"] == clean["model_commit"]
    asked = environment._git
    monkeypatch.setattr(environment, "_git", lambda *words: None if "status" in words else asked(*words))
    unsure = describe_environment().state
    assert (unsure["commit"], unsure["is_dirty"]) == (clean["model_commit"], None), "git was too slow to tell"


def test_variables_that_change_results_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    telling = {"CUDA_LAUNCH_BLOCKING": "1", "NCCL_P2P_DISABLE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    for name, value in {**telling, "CUBLASLT_WORKSPACE_SIZE": "8", "SECRET_TOKEN": "no"}.items():
        monkeypatch.setenv(name, value)
    state = describe_environment().state
    assert {name: state[f"env.{name}"] for name in telling} == telling
    assert state["env.CUBLASLT_WORKSPACE_SIZE"] == "8"
    assert not any("SECRET" in key for key in state)


def test_a_profile_names_its_machine_and_its_doubts() -> None:
    point = Point(model="c3d", clip=Clip.model_validate("16x1x112"))
    record = Record(
        case=Case(suite="profile", point=point, measures={}),
        case_id="",
        run_index=0,
        freshness="",
        status="unsteady",
        metrics=(Metric(name="limits.of_device", value=41.6, unit="%"),),
        details={"limits": {"bound_by": "compute"}},
        environment=Environment(hardware=dict(PLAIN), software={"torch_threads": 1}),
        warnings=(RecordWarning(what="it drifted", remedy="again"),),
        started_at="",
        seconds={"whole": 14.2},
    )
    assert list(_speed_notes(record)) == [
        "timed on a CPU, 1 of 4 threads",
        "short timings, 14 s in total: each warms up and is sampled for at most 2 s; a suite samples longer and "
        "repeats in fresh processes",
        "these times are unsteady",
        "42 % of what this device can do at this intensity; compute is the limit",
        "it drifted; again",
    ]


def test_a_commit_has_its_date_and_stored_records_do_not_make_it_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    when = {"GIT_COMMITTER_DATE": "2026-01-02T03:04:05+02:00"}
    kept = ["results/s/records.jsonl", ".vbench/baselines/main/s/any.jsonl", "suite.json"]
    subprocess.run([*run, "init", "-q"], check=True)
    for name in (*kept, "nets.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("one")
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-q", "-m", "one"], check=True, env={**os.environ, **when})
    for name in kept:
        Path(name).write_text("two")
    state = describe_environment().state
    assert (state["committed_at"], state["is_dirty"]) == ("2026-01-02T01:04:05+00:00", False)
    Path("nets.py").write_text("two")
    assert describe_environment().state["is_dirty"] is True


def test_every_extra_for_users_is_listed_with_its_packages() -> None:
    text = (Path(doctor.__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    names = {
        extra: tuple(re.split(r"[^\w-]", package, maxsplit=1)[0] for package in packages)
        for extra, packages in extras.items()
        if extra not in ("docs", "test", "dev")
    }
    assert {name: packages for name, (_, packages) in EXTRAS.items()} == names


def test_an_extra_that_is_not_installed_is_named_with_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "describe_environment", lambda device: GPU)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "onnxscript" else "1.0")
    found = {each.topic: each for each in check_machine()}
    assert found["extra onnx"].remedy == "pip install 'vbench-video[onnx]'"
    assert found["extra onnx"].state == "note"
    assert found["extra query"].found == "`vbench query`: SQL over records (duckdb 1.0)"
