"""The energy of a training in joules, summed over its ranks and over the processes that it was interrupted in."""

from collections.abc import Callable

from bench.train.ranks import Ranks

JouleCounter = Callable[[], float | None]  # joules since some time in the past; None if they cannot be read


class TrainingEnergy:
    """Sums up the counters of all ranks. `before_j` is what was used before this process started."""

    def __init__(self, counter: JouleCounter | None, *, ranks: Ranks) -> None:
        self._counter, self._ranks = counter, ranks
        self.before_j = 0.0
        self._counters = 1
        self._start = self._read()

    def total(self) -> float | None:
        """Joules so far over all ranks; None if no rank can read any. All ranks must call this together."""
        own = self._own()
        known = [each for each in self._ranks.gather(own) if each is not None]
        self._counters = len(known)
        if not known:
            return None
        self.before_j += sum(known)
        self._start = self._read()
        return self.before_j

    @property
    def estimate(self) -> float:
        """Joules so far as this rank knows them, assuming that the others use as much as it does."""
        return self.before_j + self._counters * (self._own() or 0.0)

    def _own(self) -> float | None:
        now = self._read()
        return None if now is None or self._start is None else now - self._start

    def _read(self) -> float | None:
        return None if self._counter is None else self._counter()
