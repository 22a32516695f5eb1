"""Progress of a training or evaluation: one line of text, the share that is done, and the time left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the work is. `fraction` is of the whole; `seconds_left` is None until a rate is known."""

    what: str
    fraction: float
    clips_per_s: float | None = None
    seconds_left: float | None = None
    values: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [self.what, *(f"{name} {value}" for name, value in self.values)]
        if self.clips_per_s is not None:
            parts.append(f"{self.clips_per_s:.3g} clips/s")
        if self.seconds_left is not None:
            parts.append(f"{readable_time(self.seconds_left)} left")
        return " · ".join(parts)


ProgressReport = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report nothing."""


class ProgressClock:
    """Measures the rate and the time left, and says when to report again (every `EVERY_S`)."""

    def __init__(self, *, fraction: float = 0.0) -> None:
        """Start at `fraction` of the whole."""
        self._started = self._reported = time.monotonic()
        self._start_fraction = fraction
        self._clips = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def count(self, clips: int) -> bool:
        """Add `clips`; returns whether a second has passed since this last returned True."""
        self._clips += clips
        now = time.monotonic()
        if now - self._reported < EVERY_S:
            return False
        self._reported = now
        return True

    def progress(self, what: str, fraction: float, *, values: Mapping[str, str] | None = None) -> Progress:
        """A `Progress` with the rate since the start and the time left at that rate."""
        seconds, done = self.seconds, fraction - self._start_fraction
        return Progress(
            what=what,
            fraction=fraction,
            clips_per_s=self._clips / seconds if seconds > 0 else None,
            seconds_left=seconds * (1 - fraction) / done if done > 0 else None,
            values=tuple((values or {}).items()),
        )


def readable_time(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
