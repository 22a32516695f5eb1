"""Warm-up passes before a block is sized: graphs are recorded in the second and replayed from the third on."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import ClassVar

import pytest
import torch

from bench.measure.context import CaseContext
from bench.measure.throughput import BLOCK_S, throughput
from bench.measure.timing import batch_search, mode_search, scaling_ranks
from bench.measure.timing.forward import Forward
from bench.measure.timing.sampling import Sample, SamplingRule, Timing
from bench.train.ranks import Ranks

Load = Callable[..., CaseContext]
REPLAY_S = 0.001


class Graphed(Forward):
    """A model on CUDA as torch.compile runs it: slow while it compiles and records, then fast. Notes its blocks."""

    seconds: ClassVar[Iterator[float]]
    blocks: ClassVar[list[int]]

    def latency(self) -> Sample:
        return Sample(wall_s=next(self.seconds))

    def block(self, steps: int) -> Sample:
        self.blocks.append(steps)
        return Sample(wall_s=next(self.seconds))


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> type[Graphed]:
    Graphed.seconds, Graphed.blocks = chain([60.0, 2.0, 0.5], repeat(REPLAY_S)), []
    for module in ("forward", "batch_search", "mode_search", "scaling_ranks"):
        monkeypatch.setattr(f"bench.measure.timing.{module}.forward_of", lambda case: forward_over)
    return Graphed


def forward_over(batch: int) -> Forward:
    clips = (torch.zeros(batch, 2),)
    return Graphed(model=torch.nn.Identity(), inputs=clips, device=torch.device("cuda"), batch=batch, autocast=None)


def test_three_passes_come_before_the_first_timed_one(graphed: type[Graphed]) -> None:
    assert forward_over(1).warm().wall_s == REPLAY_S


def test_a_cpu_needs_one_pass_to_warm_up(load: Load) -> None:
    taken: list[int] = []

    class Counted(Forward):
        def latency(self) -> Sample:
            taken.append(1)
            return Sample(wall_s=1.0)

    Counted(model=torch.nn.Identity(), inputs=(), device=torch.device("cpu"), batch=1, autocast=None).warm()
    assert len(taken) == 2


def one_sample(ranks: Ranks, step: Callable[[], Sample], rule: SamplingRule, **_: object) -> Timing:
    return Timing(samples=(step(),), warmup_samples=0, is_steady=True, stopped_because="precise")


SIZED: dict[str, tuple[float, Callable[[CaseContext], object]]] = {
    "throughput": (BLOCK_S, lambda case: throughput(case, max_s=0.05)),
    "a batch search": (batch_search.BLOCK_S, lambda case: batch_search._rate(forward_over(1))),
    "a trial": (mode_search.BLOCK_S, lambda case: mode_search._rate(case, is_synchronous=False)),
    "a rank": (scaling_ranks.BLOCK_S, lambda case: scaling_ranks._time_forward(case, Ranks(), max_s=1)),
}


@pytest.mark.parametrize(("block_s", "measured"), SIZED.values(), ids=SIZED)
def test_the_size_of_a_block_comes_from_a_replay_and_not_from_a_recording(
    load: Load,
    graphed: type[Graphed],
    monkeypatch: pytest.MonkeyPatch,
    block_s: float,
    measured: Callable[[CaseContext], object],
) -> None:
    monkeypatch.setattr(scaling_ranks, "take_samples_on_ranks", one_sample)
    monkeypatch.setattr(mode_search, "SAMPLING_S", 0.0)
    measured(load())
    assert set(graphed.blocks) == {round(block_s / REPLAY_S)}
