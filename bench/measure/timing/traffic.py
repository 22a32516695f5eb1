"""Requests of several streams that overlap, timed as one traffic. Pure: driven by requests and clocks given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface

from bench.measure.timing.protocol import Protocol, Sample, Timing, take_samples


class Senders(Interface):
    """Streams that send request after request, whether or not anybody looks."""

    def next(self) -> Sample:
        """The request that ended next, of whichever stream; `ended_s` says when."""

    def pause(self, seconds: float) -> None:
        """Send nothing for so long; what ended meanwhile is forgotten."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The requests' own times, and how many ended per second in each window of them, over all streams."""

    timing: Timing
    requests_per_s: tuple[float, ...]


def time_traffic(
    senders: Senders,
    protocol: Protocol,
    *,
    streams: int,
    clock_s: Callable[[], float],
    is_slowed: Callable[[], bool] = lambda: False,
) -> Traffic:
    """Look at what `senders` send until the protocol is content, whose counts of samples are of each stream.

    The protocol is that of a single stream: warm-up, stop rule, pauses of all streams where the device is slowed.
    """
    pauses_s: list[float] = []

    def wait(seconds: float) -> None:
        pauses_s.append(clock_s())
        senders.pause(seconds)

    window = streams * protocol.window
    shared = replace(protocol, window=window, min_samples=streams * protocol.min_samples)
    timing = take_samples(senders.next, shared, clock_s=clock_s, is_slowed=is_slowed, wait=wait)
    ended_s = [sample.ended_s for sample in timing.samples if sample.ended_s is not None]
    return Traffic(timing=timing, requests_per_s=rates_of(ended_s, window=window, pauses_s=pauses_s))


def rates_of(ended_s: Sequence[float], *, window: int, pauses_s: Sequence[float] = ()) -> tuple[float, ...]:
    """Requests per second of every whole `window` of requests, of all of them where there are fewer.

    A window lasts from the end of the request before it to that of its last one. Those with a pause in them are left
    out; none may be left.
    """
    moments = sorted(ended_s)
    width = min(window, len(moments) - 1)
    if width < 1:
        return ()
    spans = zip(moments[::width], moments[width::width], strict=False)
    return tuple(
        width / (last - first)
        for first, last in spans
        if last > first and not any(first <= pause <= last for pause in pauses_s)
    )
