"""Children of a case get the device memory of their parent, and their errors have the right type."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from bench.core.errors import InputError
from bench.measure.context import CaseContext
from bench.measure.timing import forward
from bench.measure.timing.batch_search import BatchTrials
from bench.measure.timing.case_process import run_in_child
from bench.measure.timing.forward import forward_of, free_device_memory
from bench.measure.timing.scaling_ranks import run_ranks

Load = Callable[..., CaseContext]


class StartedError(Exception):
    """Stands for a process that was started."""


STARTERS: dict[str, Callable[[CaseContext], object]] = {
    "one reply": lambda case: run_in_child("m", {}, timeout_s=1, what="x"),
    "a batch search": lambda case: BatchTrials(case).rate(1),
    "ranks": lambda case: run_ranks("m", {}, world=1, threads=1, timeout_s=1),
}


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS)
def test_device_memory_is_freed_before_a_process_is_started(
    load: Load, monkeypatch: pytest.MonkeyPatch, start: Callable[[CaseContext], object]
) -> None:
    trace: list[str] = []

    def started(*_: object, **__: object) -> NoReturn:
        trace.append("start")
        raise StartedError

    for module in ("forward", "batch_search", "scaling_ranks"):
        monkeypatch.setattr(f"bench.measure.timing.{module}.free_device_memory", lambda: trace.append("free"))
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(StartedError):
        start(load())
    assert trace == ["free", "start"]


def test_engines_are_freed_before_the_cache_of_the_device(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache keeps memory that is still referenced, so it is emptied last."""
    case, left = load(compile="aotinductor"), list[int]()
    monkeypatch.setattr("bench.measure.timing.engines.execution.ENGINES", {"aotinductor": lambda work: work.model})
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(len(forward._ENGINES)))
    forward_of(case)(1)
    assert len(forward._ENGINES) == 1
    free_device_memory()
    assert left == [0]


@pytest.mark.parametrize(
    ("dying", "raised"),
    [("raise RuntimeError('CUDA out of memory')", MemoryError), ("raise ValueError('no such clip')", InputError)],
)
def test_a_child_that_ran_out_of_memory_is_distinguished_from_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying: str, raised: type[Exception]
) -> None:
    (tmp_path / "dying_child.py").write_text(f"def main():\n    {dying}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(raised, match="the cold process ended with code 1"):
        run_in_child("dying_child:main", {}, timeout_s=60, what="cold process")
