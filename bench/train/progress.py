"""What a training or evaluation says while it runs: one line, a share of the whole, and the time left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the work is. `fraction` is of the whole; `seconds_left` is None until there is a rate to tell it from."""

    what: str
    fraction: float
    clips_per_s: float | None = None
    seconds_left: float | None = None
    figures: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [self.what, *(f"{name} {value}" for name, value in self.figures)]
        if self.clips_per_s is not None:
            parts.append(f"{self.clips_per_s:.3g} clips/s")
        if self.seconds_left is not None:
            parts.append(f"{readable_time(self.seconds_left)} left")
        return " · ".join(parts)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Say nothing."""


class Watch:
    """Tells rate and time left, and when it is time to speak again (every `EVERY_S`)."""

    def __init__(self, *, fraction: float = 0.0) -> None:
        """Start at `fraction` of the whole."""
        self._started = self._spoken = time.monotonic()
        self._start_fraction = fraction
        self._clips = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def count(self, clips: int) -> bool:
        """Take note of `clips` more; whether a second has passed since this was last True."""
        self._clips += clips
        now = time.monotonic()
        if now - self._spoken < EVERY_S:
            return False
        self._spoken = now
        return True

    def progress(self, what: str, fraction: float, *, figures: Mapping[str, str] | None = None) -> Progress:
        """A `Progress` with the rate since the start and the time left at that rate."""
        seconds, done = self.seconds, fraction - self._start_fraction
        return Progress(
            what=what,
            fraction=fraction,
            clips_per_s=self._clips / seconds if seconds > 0 else None,
            seconds_left=seconds * (1 - fraction) / done if done > 0 else None,
            figures=tuple((figures or {}).items()),
        )


def readable_time(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
