"""The search for a batch on simulated memory and rates, and the process that measures batches."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.context import CaseContext
from bench.measure.timing.batch_search import BatchTrials, best_batch, largest_that_fits

# Replies as the real child does: 7 breaks the process for good, 13 kills it, over 40 is too much memory.
FAKE = """
import os
from bench.core.process import ReplyPipe, read_requests

def reply_with_rates():
    requests, reply = read_requests(), ReplyPipe()
    next(requests)
    is_broken = False
    for batch in requests:
        if batch == 13:
            os._exit(9)
        is_broken = is_broken or batch == 7
        if is_broken:
            reply.send(error="AcceleratorError: CUDA error: an illegal memory access was encountered")
        elif batch > 40:
            reply.send(error="oom")
        else:
            reply.send(clips_per_s=100.0 + batch)
"""


@given(memory=st.integers(0, 5000), limit=st.integers(1, 4096))
def test_the_largest_batch_is_found_under_any_memory_limit(memory: int, limit: int) -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= memory

    assert largest_that_fits(fits, limit=limit) == min(memory, limit)
    assert len(asked) == len(set(asked)), "no batch is tried twice"
    assert len(asked) <= 2 * max(1, limit.bit_length())
    assert max(asked) <= max(1, min(limit, 2 * memory)), "never more than twice of what fits"


@pytest.mark.parametrize(
    ("rates", "batch", "tried"),
    [
        ({1: 10, 2: 19, 4: 35, 8: 60, 16: 61, 32: 61}, 16, 32),
        ({1: 10, 2: 19, 4: 20, 8: 18, 16: 17, 32: 90}, 4, 16),
        ({1: 10, 2: 19, 4: None}, 2, 4),
        ({1: 10, 2: 9, 4: 8}, 1, 4),
        ({1: 10.0, 2: 10.1, 4: 10.3, 8: 10.31, 16: 10.32}, 4, 4),
    ],
    ids=["flat from 8 on", "falls after 4", "8 does not fit", "falls from the start", "small gains"],
)
def test_the_best_batch_has_the_highest_rate(rates: dict[int, float | None], batch: int, tried: int) -> None:
    found = best_batch(lambda size: rates[size], limit=32)
    assert found is not None
    assert (found.batch, max(found.rates)) == (batch, tried)


def test_there_is_no_best_batch_if_not_one_clip_fits() -> None:
    assert best_batch(lambda size: None) is None


@pytest.fixture
def trials(load: Callable[..., CaseContext], tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> BatchTrials:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("fake")
    (folder / "fake_batch_trials.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(folder))
    return BatchTrials(load(), function="fake_batch_trials:reply_with_rates")


def test_a_broken_process_is_replaced_and_one_out_of_memory_is_kept(trials: BatchTrials) -> None:
    with trials:
        assert trials.rate(1) == 101.0
        first = trials._child
        assert not trials.fits(64)
        assert trials._child is first, "out of memory leaves a process usable"
        assert not trials.fits(7)
        assert trials.fits(8), "a new process is not broken"
        assert trials._child is not first
        assert not trials.fits(13)
        assert trials.fits(14)
    assert "illegal memory access" in trials.broken[7]
    assert "code 9" in trials.broken[13]


def test_the_search_continues_after_batches_that_break_their_process(trials: BatchTrials) -> None:
    with trials:
        assert largest_that_fits(trials.fits) == 40


def test_a_real_process_measures_batches_and_survives_exhausted_memory(load: Callable[..., CaseContext]) -> None:
    with BatchTrials(load()) as trials:
        assert trials.fits(2)
        assert not trials.fits(1 << 40)
        assert trials.fits(1)
    assert not trials.broken, json.dumps(trials.broken)
