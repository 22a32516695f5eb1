"""Base and head in turns, A B B A B A A B, until every case is decided or the time is up. Pure: a clock is given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.execution.sides import Ran, SideName

# Who runs when in even and in odd blocks, with the run's place among those of its side. A straight drift cancels in
# each block, and the side that a disturbance in mid-block hits is not always the same.
BLOCKS: tuple[tuple[tuple[SideName, int], ...], ...] = (
    (("base", 0), ("head", 0), ("head", 1), ("base", 1)),
    (("head", 0), ("base", 0), ("base", 1), ("head", 1)),
)

StopReason = Literal["decided", "time is up", "enough"]
Run = Callable[[SideName, str, int], Ran]
Judge = Callable[[Mapping[str, int], bool], Collection[str]]


@dataclass(kw_only=True)
class Turns:
    """What was measured: whole blocks by case, cases that failed, those settled by one run, and why it ended."""

    blocks: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    stopped_because: StopReason = "decided"


def measure_in_turns(
    cases: Sequence[str],
    run: Run,
    judge: Judge,
    *,
    looks: Sequence[int],
    deadline_s: float,
    clock_s: Callable[[], float],
) -> Turns:
    """Measure each of `cases` (ids) block by block, a block of every open one before the next of any.

    `run(side, case, index)` measures once. `judge(blocks of open cases, is_last)` is asked after the blocks in `looks`
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


def _measure_block(case: str, run: Run, turns: Turns) -> bool:
    """Whether `case` is worth another block: its runs are good, and not all that one run a side can say."""
    first = 2 * turns.blocks[case]
    ran: list[Ran] = []
    for side, place in BLOCKS[turns.blocks[case] % 2]:
        ran.append(run(side, case, first + place))
        if not ran[-1].is_good:
            turns.failed.append(case)
            return False
        if len(ran) == 2 and not any(each.needs_turns for each in ran):
            turns.settled.append(case)
            return False
    turns.blocks[case] += 1
    return True
