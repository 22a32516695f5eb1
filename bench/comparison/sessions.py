"""Which runs share a session of their machine: its clocks, temperature and neighbours. docs/decisions/0006."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from bench.comparison.samples import Sample
from bench.comparison.sides import Run

BETWEEN_SESSIONS = timedelta(hours=1)

Sessions = tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]


def sessions_of(base: Sample, head: Sample) -> Sessions | None:
    """The values of either side by session; None where a session holds runs of both, which are compared directly then.

    A session ends where another invocation of vbench began an hour or more after the run before.
    """
    samples = base, head
    values = {
        id(run): (side, value)
        for side, sample in enumerate(samples)
        for (run, _), value in zip(sample.known, sample.values, strict=True)
    }
    sides: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
    for session in _sessions([run for sample in samples for run, _ in sample.known]):
        told = [values[id(run)] for run in session]
        if len({side for side, _ in told}) > 1:
            return None
        sides[told[0][0]].append(tuple(value for _, value in told))
    return tuple(sides[0]), tuple(sides[1])


def _sessions(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs in the order of their start, by session."""
    ordered = sorted(runs, key=lambda run: (run.record.started_at, run.record.run_index))
    session = ordered[:1]
    for before, run in pairwise(ordered):
        if _is_another_session(before, run):
            yield session
            session = []
        session.append(run)
    if session:
        yield session


def _is_another_session(before: Run, run: Run) -> bool:
    is_new = run.folder != before.folder or run.record.run_index <= before.record.run_index
    try:
        first, second = (datetime.fromisoformat(each.record.started_at) for each in (before, run))
        return is_new and second - first >= BETWEEN_SESSIONS
    except (ValueError, TypeError):  # no time, or only one of the two says its zone
        return False
