"""How long the runs that are left will take, kept up to date in constant time per event."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.core.schema import Case, Record

GUESSED_SECONDS = {
    "accuracy": 60.0,
    "cold": 10.0,
    "decode": 5.0,
    "end_to_end": 20.0,
    "energy": 12.0,
    "latency": 8.0,
    "limits": 8.0,
    "memory": 2.0,
    "throughput": 12.0,
    "train_step": 8.0,
}
START_SECONDS = 5.0
Kind = frozenset[str]  # the measures of a case: cases of one kind take about as long


@dataclass(kw_only=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    @property
    def value(self) -> float:
        return self.total / self.count


@dataclass(kw_only=True)
class _KindState:
    """The pending runs of one kind: those of cases that ran before, in seconds, and the number of the others."""

    mean: _Mean = field(default_factory=_Mean)
    known_s: float = 0.0
    unknown: int = 0


class RunEstimate:
    """Seconds that the pending runs will take.

    A run takes the mean of earlier runs of its case, else of cases with the same measures, else a guess.
    """

    def __init__(self, pending: Iterable[Case], history: Iterable[tuple[str, Kind, float]] = ()) -> None:
        self._cases: dict[str, _Mean] = {}
        self._kinds: dict[Kind, _KindState] = {}
        self._pending: Counter[str] = Counter()
        for case_id, kind, seconds in history:
            self._learn(case_id, kind, seconds)
        for case in pending:
            self._pending[case.id] += 1
            state = self._kinds.setdefault(frozenset(case.measures), _KindState())
            if case.id in self._cases:
                state.known_s += self._cases[case.id].value
            else:
                state.unknown += 1

    @property
    def left_s(self) -> float:
        return sum(state.known_s + state.unknown * _typical_s(kind, state) for kind, state in self._kinds.items())

    def finish(self, record: Record) -> None:
        """Take a run off the pending ones, and learn how long it took."""
        kind, case_id = frozenset(record.case.measures), record.case_id
        state = self._kinds.setdefault(kind, _KindState())
        left = self._pending[case_id] - 1
        if case_id in self._cases:
            state.known_s -= (left + 1) * self._cases[case_id].value
        else:
            state.unknown -= left + 1
        self._pending[case_id] = left
        if "whole" in record.seconds:
            self._learn(case_id, kind, record.seconds["whole"])
        if case_id in self._cases:
            state.known_s += left * self._cases[case_id].value
        else:
            state.unknown += left

    def _learn(self, case_id: str, kind: Kind, seconds: float) -> None:
        state = self._kinds.setdefault(kind, _KindState())
        for mean in (self._cases.setdefault(case_id, _Mean()), state.mean):
            mean.total += seconds
            mean.count += 1


def _typical_s(kind: Kind, state: _KindState) -> float:
    if state.mean.count:
        return state.mean.value
    return START_SECONDS + sum(GUESSED_SECONDS.get(name, 1.0) for name in kind)
