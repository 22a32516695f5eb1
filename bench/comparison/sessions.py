"""Which runs share a session of their machine: its clocks, temperature and neighbours. docs/decisions/0006."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from bench.comparison.judging import MIN_RUNS
from bench.comparison.samples import Sample
from bench.comparison.sides import Run

BETWEEN_SESSIONS = timedelta(hours=1)

Values = tuple[float, ...]
Sessions = tuple[tuple[Values, ...], tuple[Values, ...]]


def shared_values(base: Sample, head: Sample) -> tuple[Values, Values] | None:
    """The values of sessions that hold runs of both; None where these are fewer than four a side.

    A session ends where another invocation of vbench began an hour or more after the run before.
    """
    shared = [session for session in _by_session(base, head) if all(session)]
    old, new = (tuple(value for session in shared for value in session[side]) for side in (0, 1))
    return (old, new) if min(len(old), len(new)) >= MIN_RUNS else None


def sessions_of(base: Sample, head: Sample) -> Sessions | None:
    """The values of either side by session; None where enough runs share sessions to be compared directly.

    Where too few do, what base and what head has of a session are sessions of their own.
    """
    if shared_values(base, head) is not None:
        return None
    found = _by_session(base, head)
    return tuple(old for old, _ in found if old), tuple(new for _, new in found if new)


def own_sessions(sample: Sample) -> tuple[Values, ...]:
    """The values of one side by session."""
    return tuple(old for old, _ in _by_session(sample, replace(sample, known=())))


def _by_session(base: Sample, head: Sample) -> list[tuple[Values, Values]]:
    """By session, the values of base and those of head."""
    values = {
        id(run): (side, value)
        for side, sample in enumerate((base, head))
        for (run, _), value in zip(sample.known, sample.values, strict=True)
    }
    found = []
    for session in _sessions([run for sample in (base, head) for run, _ in sample.known]):
        told = [values[id(run)] for run in session]
        old, new = (tuple(value for side, value in told if side == number) for number in (0, 1))
        found.append((old, new))
    return found


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
    try:
        first, second = (datetime.fromisoformat(each.record.started_at) for each in (before, run))
        return _is_another_invocation(before, run) and second - first >= BETWEEN_SESSIONS
    except (ValueError, TypeError):  # no time, or only one of the two says its zone
        return False


def _is_another_invocation(before: Run, run: Run) -> bool:
    """By what their records say of it; where neither does, by their folders, and by an index that does not rise."""
    named = {before.record.session, run.record.session}
    if named != {None}:
        return len(named) > 1
    return run.folder != before.folder or run.record.run_index <= before.record.run_index
