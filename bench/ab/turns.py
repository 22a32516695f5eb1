"""Base and head in pairs of runs until every case is decided or the time is up. Pure: a clock is given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.ab.sides import Ran, SideName

# Which side of a pair goes first, in even and in odd blocks of two pairs: A B B A, then B A A B. A straight drift
# cancels in each block, and the side that a disturbance in mid-block hits is not always the same.
BLOCKS: tuple[tuple[SideName, SideName], ...] = (("base", "head"), ("head", "base"))

StopReason = Literal["decided", "time is up", "enough"]
RunPair = Callable[[SideName, str, int], Sequence[Ran]]
Judge = Callable[[Mapping[str, int], bool], Collection[str]]


@dataclass(kw_only=True)
class Turns:
    """What was measured: blocks of two pairs by case, cases that failed, those settled by one run, why it ended."""

    blocks: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    stopped_because: StopReason = "decided"


def measure_in_turns(
    cases: Sequence[str],
    run: RunPair,
    judge: Judge,
    *,
    looks: Sequence[int],
    deadline_s: float,
    clock_s: Callable[[], float],
) -> Turns:
    """Measure each of `cases` (ids) block by block, a block of every open one before the next of any.

    `run(first, case, index)` measures each side once, `first` before the other, and gives both runs, or head's alone
    where that failed first. `judge(blocks of open cases, is_last)` is asked after the blocks in `looks`
    and at the end, and says which cases are still open. Every case gets one block; none is begun that would probably
    not be done by `deadline_s`. A case that fails once is not tried again.
    """
    turns = Turns(blocks=dict.fromkeys(cases, 0))
    longest_s: dict[str, float] = {}
    is_open = list(cases)
    while is_open:
        is_late = False
        for case in list(is_open):
            started = clock_s()
            if turns.blocks[case] and started + longest_s[case] > deadline_s:
                is_late = True
                break
            if not _measure_block(case, run, turns):
                is_open.remove(case)
            longest_s[case] = max(longest_s.get(case, 0.0), clock_s() - started)
        blocks = {case: turns.blocks[case] for case in is_open}
        is_last = is_late or all(count >= looks[-1] for count in blocks.values())
        if blocks and (is_last or any(count in looks for count in blocks.values())):
            still = judge(blocks, is_last)
            is_open = [case for case in is_open if case in still]
        if is_last and is_open:
            turns.stopped_because = "time is up" if is_late else "enough"
            break
    return turns


def _measure_block(case: str, run: RunPair, turns: Turns) -> bool:
    """Whether `case` is worth another block: its runs are good, and not all that one run a side can say."""
    block = turns.blocks[case]
    for place, first in enumerate(BLOCKS[block % 2]):
        ran = run(first, case, 2 * block + place)
        if not all(each.is_good for each in ran):
            turns.failed.append(case)
            return False
        if not any(each.needs_turns for each in ran):
            turns.settled.append(case)
            return False
    turns.blocks[case] += 1
    return True
