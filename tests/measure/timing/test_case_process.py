"""What a process still holds on the device is given back before another one is started there."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from bench.core.errors import InputError
from bench.core.schema import Metric
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Trial, as_best, speedup
from bench.measure.latency import latency
from bench.measure.throughput import SPEEDUP, throughput
from bench.measure.timing import forward, mode_search
from bench.measure.timing.batch_search import BatchTrials
from bench.measure.timing.case_process import run_in_child
from bench.measure.timing.forward import forward_of, free_device_memory
from bench.measure.timing.scaling_ranks import run_ranks

Load = Callable[..., CaseContext]


class StartedError(Exception):
    """Stands for a process that was started."""


STARTERS: dict[str, Callable[[CaseContext], object]] = {
    "a question": lambda case: run_in_child("m", {}, timeout_s=1, what="x"),
    "a search for a batch": lambda case: BatchTrials(case).rate(1),
    "ranks": lambda case: run_ranks("m", {}, world=1, threads=1, timeout_s=1),
}


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS)
def test_the_device_is_left_before_a_process_is_started(
    load: Load, monkeypatch: pytest.MonkeyPatch, start: Callable[[CaseContext], object]
) -> None:
    trace: list[str] = []

    def started(*_: object, **__: object) -> NoReturn:
        trace.append("start")
        raise StartedError

    for module in ("forward", "batch_search", "scaling_ranks"):
        monkeypatch.setattr(f"bench.measure.timing.{module}.free_device_memory", lambda: trace.append("release"))
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(StartedError):
        start(load())
    assert trace == ["release", "start"]


def test_engines_and_their_weights_go_before_the_devices_cache(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that something still refers to stays in the cache, so that is emptied last."""
    case, left = load(compile="aotinductor"), list[int]()
    monkeypatch.setattr("bench.measure.timing.engines.execution.ENGINES", {"aotinductor": lambda work: work.model})
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(len(forward._ENGINES)))
    forward_of(case)(1)
    assert len(forward._ENGINES) == 1
    free_device_memory()
    assert left == [0]


@pytest.mark.parametrize("measure", [latency, throughput])
def test_where_every_trial_fell_out_what_was_measured_stays(
    load: Load, monkeypatch: pytest.MonkeyPatch, measure: Callable[..., list[Metric]]
) -> None:
    monkeypatch.setattr(mode_search, "try_mode", lambda case, mode, **_: Trial(mode=mode, fell_out="out of memory"))
    case = load()
    found = {m.key: m for m in measure(case, search="best", max_s=0.05)}
    (own,) = (m for key, m in found.items() if key in ("latency.p50_ms", "throughput.clips_per_s{batch=1}"))
    (best,) = (m for m in found.values() if m.name == own.name and "variant" in m.labels)
    assert own.value
    assert own.samples
    assert (best.value, best.samples) == (None, ())
    assert "out of memory" in (best.note or "")
    assert [m.value for m in found.values() if m.name.endswith("speedup")] == [None]
    assert "out of memory" in case.warnings[-1].what


def test_eager_that_is_the_best_has_its_own_figures_and_eager_that_fell_out_none(load: Load) -> None:
    (own,) = throughput(load(), max_s=0.05)
    assert as_best(own, Trial(mode=ExecutionMode(), clips_per_s=1.0)).samples == own.samples
    unknown = as_best(own, Trial(mode=ExecutionMode(), fell_out="killed"))
    assert (unknown.value, unknown.interval, unknown.stopped_because) == (None, None, None)
    assert speedup(SPEEDUP, unknown, own, note="").value is None


@pytest.mark.parametrize(
    ("dying", "raised"),
    [("raise RuntimeError('CUDA out of memory')", MemoryError), ("raise ValueError('no such clip')", InputError)],
)
def test_a_process_that_ran_out_of_memory_is_told_from_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying: str, raised: type[Exception]
) -> None:
    (tmp_path / "dying_child.py").write_text(f"def main():\n    {dying}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(raised, match="the cold process ended with code 1"):
        run_in_child("dying_child:main", {}, timeout_s=60, what="cold process")
