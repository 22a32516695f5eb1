"""The joules of a training, from counters that only rise, over all its ranks and across kills."""

from collections.abc import Callable

from bench.train.ranks import Ranks

Meter = Callable[[], float | None]  # joules since some time in the past; None where they cannot be read


class Energy:
    """Adds up what the ranks' meters say. `before_j` is what was used before this process began."""

    def __init__(self, meter: Meter | None, *, ranks: Ranks) -> None:
        self._meter, self._ranks = meter, ranks
        self.before_j = 0.0
        self._meters = 1
        self._start = self._read()

    def take(self) -> float | None:
        """Joules so far; None where no rank can read any. All ranks must ask at once."""
        own = self._own()
        known = [each for each in self._ranks.gather(own) if each is not None]
        self._meters = len(known)
        if not known:
            return None
        self.before_j += sum(known)
        self._start = self._read()
        return self.before_j

    @property
    def so_far(self) -> float:
        """As far as this rank can tell, the others taken to use as much as it does."""
        return self.before_j + self._meters * (self._own() or 0.0)

    def _own(self) -> float | None:
        now = self._read()
        return None if now is None or self._start is None else now - self._start

    def _read(self) -> float | None:
        return None if self._meter is None else self._meter()
