"""Scaling over ranks: by hand, and with real ranks on gloo."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import TrainingError
from bench.core.schema import Json, Metric
from bench.measure import scaling as measured
from bench.measure.context import CaseContext
from bench.measure.scaling import FUNCTION, _metrics, _unknown, _usual, scaling
from bench.measure.timing.case_process import case_request
from bench.measure.timing.scaling_ranks import _environment, failure_reason, run_ranks

Load = Callable[..., CaseContext]

ILL = """
import os, signal
import torch
from torch import nn

class Ill(nn.Module):
    def __init__(self, num_classes, end):
        super().__init__()
        self.end = end
        self.head = nn.Linear(3, num_classes)

    def forward(self, clip):
        if self.training and os.environ["RANK"] == "1":
            if self.end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise (torch.OutOfMemoryError if self.end == "memory" else ValueError)("this rank is ill")
        return self.head(clip.mean((2, 3, 4)))

def ill(num_classes=4, end="error"):
    return Ill(num_classes, end)
"""

LOG = """W1121 torch/distributed/run.py] something before
E1121 failed (exitcode: -9) local_rank: 1 (pid: 77)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_07:00:00
  host      : here
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 77)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 77
============================================================
"""


def by_key(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.key: metric for metric in metrics}


def seen(train_s: list[float], forward_s: list[float]) -> dict[str, dict[str, Json]]:
    return {
        name: {"wall_s": wall_s, "stopped_because": "precise"}
        for name, wall_s in (("train", train_s), ("forward", forward_s))
    }


def test_rates_and_efficiency_by_hand() -> None:
    """Two ranks of four clips each: 8 clips in 0.5 s are 16 a second, of twice 10 that were to be had."""
    found = by_key(_metrics({1: seen([0.4, 0.4, 0.5], [0.1]), 2: seen([0.5, 0.5, 0.4], [0.1])}, batch=4))
    assert found["scaling.train_clips_per_s{ranks=1}"].value == pytest.approx(10)
    assert found["scaling.train_clips_per_s{ranks=2}"].value == pytest.approx(16)
    assert found["scaling.train_clips_per_s{ranks=2}"].samples == pytest.approx((16, 16, 20))
    assert found["scaling.train_efficiency{ranks=2}"].value == pytest.approx(80)
    assert found["scaling.forward_efficiency{ranks=2}"].value == pytest.approx(100)
    assert found["scaling.train_efficiency{ranks=1}"].value == pytest.approx(100)
    assert found["scaling.train_efficiency{ranks=2}"].note == "of 2 x 1 rank, 4 clips each"


def test_ranks_without_a_gpu_are_null_with_the_reason() -> None:
    found = by_key(_unknown(4, gpus=2))
    assert {(metric.value, metric.note) for metric in found.values()} == {(None, "4 ranks need 4 GPUs; there are 2")}
    assert "scaling.train_efficiency{ranks=4}" in found


@pytest.mark.parametrize(
    ("gpus", "usual"), [(None, [1, 2]), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_the_usual_ranks_double_up_to_all_gpus(gpus: int | None, usual: list[int]) -> None:
    assert _usual(gpus) == usual


def test_each_number_of_ranks_runs_once_with_the_same_threads(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def ask(module: str, request: Json, *, world: int, threads: int, timeout_s: float) -> Json:
        asked.append((world, threads))
        return seen([0.1], [0.1])

    monkeypatch.setattr("bench.measure.timing.scaling_ranks.run_ranks", ask)
    monkeypatch.setattr(measured, "_cores", lambda: 9)
    case = load()
    found = by_key(scaling(case, ranks=[4, 2, 2]))
    assert asked == [(1, 2), (2, 2), (4, 2)], "one rank is always among them, and all have the threads of four"
    assert found["scaling.forward_clips_per_s{ranks=4}"].value == pytest.approx(40)
    assert not case.warnings
    scaling(load(threads=8), ranks=2)
    assert asked[-1] == (2, 8)


def test_the_first_error_of_a_rank_is_the_reason(tmp_path: Path) -> None:
    for rank, moment in (("0", 2), ("1", 1)):
        (tmp_path / rank).write_text(f"rank {rank} of 2 failed: ValueError: so\nand so")
        os.utime(tmp_path / rank, (moment, moment))
    assert failure_reason(tmp_path, LOG, world=2) == "rank 1 of 2 failed: ValueError: so and so"


def test_a_rank_without_an_error_file_is_named_by_torchrun(tmp_path: Path) -> None:
    assert failure_reason(tmp_path, LOG, world=2) == "rank 1 of 2 died: Signal 9 (SIGKILL)"
    assert failure_reason(tmp_path, "a line\nthe last line\n", world=2) == "the last line"
    assert "printed nothing" in failure_reason(tmp_path, "", world=2)


def test_ranks_do_not_inherit_the_rank_of_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "VBENCH_CALL"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    environment = _environment(threads=3)
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "VBENCH_CALL"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "3"


def test_ranks_that_never_became_steady_are_warned_of(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(module: str, request: Json, *, world: int, threads: int, timeout_s: float) -> Json:
        found = seen([0.1], [0.1])
        found["train"]["stopped_because"] = "unsteady" if world == 2 else "precise"
        return found

    monkeypatch.setattr("bench.measure.timing.scaling_ranks.run_ranks", ask)
    case = load(threads=1)
    scaling(case, ranks=[1, 2])
    assert "scaling: train on 2 did not become steady within the warm-up" in [w.what for w in case.warnings]


@pytest.mark.slow
def test_two_real_ranks_train_and_run_a_model(load: Load) -> None:
    case = load(batch=2, threads=1)
    found = by_key(scaling(case, ranks=[1, 2], max_s=0.3))
    assert len(found) == 8
    assert all(metric.value and metric.value > 0 for metric in found.values())
    detail = case.details["scaling"]
    assert isinstance(detail, dict)
    assert (detail["kind"], detail["backend"], detail["torch_threads_by_rank"]) == ("weak", "gloo", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "error", "told"),
    [
        ("kill", TrainingError, r"rank 1 of 2 died: Signal 9 \(SIGKILL\)"),
        ("error", TrainingError, "rank 1 of 2 failed: ValueError: this rank is ill"),
        ("memory", MemoryError, "rank 1 of 2 failed: OutOfMemoryError: this rank is ill"),
    ],
)
def test_a_rank_that_ends_early_ends_the_case(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, error: type[Exception], told: str
) -> None:
    (tmp_path / "networks_of_scaling.py").write_text(ILL)
    monkeypatch.syspath_prepend(tmp_path)
    case = load(model="networks_of_scaling:ill", args={"end": end}, batch=2)
    request = {**case_request(case), "threads": 1, "max_s": 0.2}
    with pytest.raises(error, match=told):
        run_ranks(FUNCTION, request, world=2, threads=1, timeout_s=120)


@pytest.mark.gpu
def test_every_gpu_is_a_rank(load: Load) -> None:
    case = load(device="cuda", batch=4, clip="8x1x64")
    found = by_key(scaling(case, max_s=1.0))
    assert found["scaling.train_clips_per_s{ranks=1}"].value
    detail = case.details["scaling"]
    assert isinstance(detail, dict)
    assert detail["backend"] == "nccl"
