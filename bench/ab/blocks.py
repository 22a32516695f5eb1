"""Measures base and head in blocks of two pairs until every case is decided or time is up. Pure: a clock is given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.ab.sides import RunOutcome, SideName

# Which side of a pair goes first, in even and in odd blocks of two pairs: A B B A, then B A A B. A linear drift
# cancels in each block, and a disturbance in mid-block does not always hit the same side.
BLOCKS: tuple[tuple[SideName, SideName], ...] = (("base", "head"), ("head", "base"))

StopReason = Literal["decided", "time is up", "enough"]
RunPair = Callable[[SideName, str, int], Sequence[RunOutcome]]
Analyse = Callable[[Mapping[str, int], bool], Collection[str]]


@dataclass(kw_only=True)
class BlockResult:
    """Blocks measured by case, cases that failed, cases settled by one run a side, and why measuring ended."""

    blocks: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    stopped_because: StopReason = "decided"


def measure_blocks(
    cases: Sequence[str],
    run_pair: RunPair,
    analyse: Analyse,
    *,
    analysed: Sequence[int],
    deadline_s: float,
    clock_s: Callable[[], float],
) -> BlockResult:
    """Measure `cases` (ids) block by block: one block of every open case, then the next block of each.

    `run_pair(first, case, index)` measures each side once, `first` before the other, and returns both outcomes, or only
    that of head if it failed first. `analyse(blocks of open cases, is_last)` is called after the numbers of blocks in
    `analysed` and at the end; it returns the cases that are still open. Every case gets one block; a further block
    starts only if it would probably end before `deadline_s`. A case that fails once is not measured again.
    """
    result = BlockResult(blocks=dict.fromkeys(cases, 0))
    longest_s: dict[str, float] = {}
    is_open = list(cases)
    while is_open:
        is_late = False
        for case in list(is_open):
            started = clock_s()
            if result.blocks[case] and started + longest_s[case] > deadline_s:
                is_late = True
                break
            if not _measure_block(case, run_pair, result):
                is_open.remove(case)
            longest_s[case] = max(longest_s.get(case, 0.0), clock_s() - started)
        blocks = {case: result.blocks[case] for case in is_open}
        is_last = is_late or all(count >= analysed[-1] for count in blocks.values())
        if blocks and (is_last or any(count in analysed for count in blocks.values())):
            still_open = analyse(blocks, is_last)
            is_open = [case for case in is_open if case in still_open]
        if is_last and is_open:
            result.stopped_because = "time is up" if is_late else "enough"
            break
    return result


def _measure_block(case: str, run_pair: RunPair, result: BlockResult) -> bool:
    """Whether `case` needs another block: all its runs are good, and one run a side does not settle it."""
    block = result.blocks[case]
    for place, first in enumerate(BLOCKS[block % 2]):
        outcomes = run_pair(first, case, 2 * block + place)
        if not all(outcome.is_good for outcome in outcomes):
            result.failed.append(case)
            return False
        if not any(outcome.needs_turns for outcome in outcomes):
            result.settled.append(case)
            return False
    result.blocks[case] += 1
    return True
