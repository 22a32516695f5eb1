"""Rotation over cores in turn-taking; `tests/ab/test_turn_relay.py` tests turns with a real relay."""

import os

import pytest
import torch

from bench.measure.timing.sampling import Sample
from bench.measure.timing.turn_taking import TURNS_PER_CORE, TurnTaking, in_turns


class AlwaysPassedOn(TurnTaking):
    """Turn-taking that hands over after each step."""

    @property
    def is_shared(self) -> bool:
        return True

    def pass_on(self) -> None:
        self.turn += 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not report the cores of a process")
def test_a_single_threaded_process_starts_on_its_next_core_every_few_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    pinned: list[tuple[int, set[int]]] = []
    turns = AlwaysPassedOn()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, wanted: pinned.append((turns.turn, set(wanted))))
    try:
        torch.set_num_threads(1)
        turned = in_turns(lambda: Sample(wall_s=0.01), turns)
        assert [turned().turn for _ in range(3 * TURNS_PER_CORE)] == list(range(1, 3 * TURNS_PER_CORE + 1))
        single, pinned = pinned, []
        torch.set_num_threads(2)
        in_turns(lambda: Sample(wall_s=0.01), AlwaysPassedOn())()
    finally:
        torch.set_num_threads(threads)
    moved_at = [TURNS_PER_CORE, 2 * TURNS_PER_CORE, 3 * TURNS_PER_CORE]
    assert single == [
        each for turn, core in zip(moved_at, (3, 5, 0), strict=True) for each in ((turn, {core}), (turn, {0, 3, 5}))
    ]
    assert pinned == []
    monkeypatch.undo()
    assert os.sched_getaffinity(0) == cores
