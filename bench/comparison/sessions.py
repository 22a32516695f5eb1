"""Which runs share a session of their machine: its clocks, temperature and neighbours. docs/decisions/0006."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter

from bench.comparison.samples import Sample
from bench.comparison.sides import Run

LONGEST_TURN = 2
BETWEEN_SESSIONS = timedelta(hours=1)

Sessions = tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]


def sessions_of(base: Sample, head: Sample) -> Sessions | None:
    """The values of either side by session; None where runs of both were taken in turns, so that they share them.

    In turns means that no more than two runs of one side follow each other. Else each stretch of one side's runs is a
    session, and where a new invocation of vbench began an hour or more after the run before, the next one.
    """
    samples = base, head
    stretches = list(_stretches(samples))
    if max((len(runs) for _, runs in stretches), default=0) <= LONGEST_TURN:
        return None
    values = [
        {id(run): value for (run, _), value in zip(sample.known, sample.values, strict=True)} for sample in samples
    ]
    sides: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
    for side, runs in stretches:
        for part in _parts(runs):
            if known := tuple(values[side][id(run)] for run in part if id(run) in values[side]):
                sides[side].append(known)
    return tuple(sides[0]), tuple(sides[1])


def _stretches(samples: Sequence[Sample]) -> Iterator[tuple[int, list[Run]]]:
    """Runs in the order of their start, cut where the side changes: 0 for base, 1 for head."""
    taken = [(side, run) for side, sample in enumerate(samples) for run in sample.runs]
    taken.sort(key=lambda each: (each[1].record.started_at, each[1].record.run_index, each[0]))
    for side, stretch in groupby(taken, key=itemgetter(0)):
        yield side, [run for _, run in stretch]


def _parts(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """A stretch of one side's runs by session."""
    part = [runs[0]]
    for before, run in pairwise(runs):
        if _is_another_session(before, run):
            yield part
            part = []
        part.append(run)
    yield part


def _is_another_session(before: Run, run: Run) -> bool:
    is_new = run.folder != before.folder or run.record.run_index <= before.record.run_index
    try:
        first, second = (datetime.fromisoformat(each.record.started_at) for each in (before, run))
        return is_new and second - first >= BETWEEN_SESSIONS
    except (ValueError, TypeError):  # no time, or only one of the two says its zone
        return False
