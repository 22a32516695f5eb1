"""Requests of several streams on simulated clocks. Nothing sleeps."""

import heapq
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.timing.sampling import Sample, SamplingRule
from bench.measure.timing.streams import rates_by_window, time_streams

SHORT = SamplingRule(window=5, warmup_s=1.0, min_samples=10, min_s=0.2, max_s=2.0, back_off_s=0.5, max_back_offs=2)


class Server:
    """Streams in a closed loop whose request `n` takes `seconds(stream, n)`; the clock shows the last end."""

    def __init__(self, streams: int, seconds: Callable[[int, int], float]) -> None:
        self._seconds, self._requests, self.now_s = seconds, count(), 0.0
        self._running: list[tuple[float, float, int]] = []
        self.pauses_s: list[float] = []
        for stream in range(streams):
            self._send(stream, at_s=0.0)

    def next(self) -> Sample:
        ended_s, started_s, stream = heapq.heappop(self._running)
        self.now_s = ended_s
        self._send(stream, at_s=ended_s)
        return Sample(wall_s=ended_s - started_s, ended_s=ended_s)

    def pause(self, seconds: float) -> None:
        self.pauses_s.append(self.now_s)
        self.now_s += seconds
        streams = [stream for _, _, stream in self._running]
        self._running.clear()
        for stream in streams:
            self._send(stream, at_s=self.now_s)

    def _send(self, stream: int, *, at_s: float) -> None:
        heapq.heappush(self._running, (at_s + self._seconds(stream, next(self._requests)), at_s, stream))


def test_four_streams_that_do_not_hinder_each_other_give_four_times_the_rate() -> None:
    server = Server(4, lambda stream, n: 0.010)
    found = time_streams(server, SHORT, streams=4, clock_s=lambda: server.now_s)
    assert found.timing.samples_s == pytest.approx([0.010] * len(found.timing.samples_s))
    assert found.requests_per_s == pytest.approx([400.0] * len(found.requests_per_s))
    assert found.timing.stopped_because == "precise"
    assert len(found.timing.samples) >= 4 * SHORT.min_samples


def test_streams_that_queue_for_one_place_wait_longer_without_a_higher_rate() -> None:
    server = Server(4, lambda stream, n: 0.010 if n == 0 else 0.010 * min(n + 1, 4))
    found = time_streams(server, SHORT, streams=4, clock_s=lambda: server.now_s)
    assert found.timing.samples_s == pytest.approx([0.040] * len(found.timing.samples_s))
    assert found.requests_per_s == pytest.approx([100.0] * len(found.requests_per_s))


def test_a_fast_and_a_slow_stream_are_counted_as_they_are() -> None:
    """10 ms and 40 ms: 100 + 25 requests a second, four fifths of the requests fast."""
    server = Server(2, lambda stream, n: (0.010, 0.040)[stream])
    found = time_streams(server, SHORT, streams=2, clock_s=lambda: server.now_s)
    fast = sum(s < 0.02 for s in found.timing.samples_s) / len(found.timing.samples_s)
    assert fast == pytest.approx(0.8, abs=0.02)
    assert sum(found.requests_per_s) / len(found.requests_per_s) == pytest.approx(125, rel=0.02)


def test_first_requests_that_are_slow_are_warm_up() -> None:
    server = Server(2, lambda stream, n: 0.1 if n < 6 else 0.01)
    found = time_streams(server, SHORT, streams=2, clock_s=lambda: server.now_s)
    assert max(found.timing.samples_s) == pytest.approx(0.01)
    assert found.timing.is_steady


def test_a_pause_of_a_throttled_device_is_in_no_rate() -> None:
    server = Server(2, lambda stream, n: 0.01)
    throttled = iter([False] * 15 + [True] + [False] * 10_000)
    found = time_streams(server, SHORT, streams=2, clock_s=lambda: server.now_s, is_throttled=lambda: next(throttled))
    assert len(server.pauses_s) == 1
    assert found.timing.discarded == 1
    assert found.requests_per_s == pytest.approx([200.0] * len(found.requests_per_s))


def test_a_device_that_stays_throttled_has_times_but_no_rate() -> None:
    server = Server(2, lambda stream, n: 0.01)
    found = time_streams(server, SHORT, streams=2, clock_s=lambda: server.now_s, is_throttled=lambda: True)
    assert found.timing.stopped_because == "throttled"
    assert found.timing.samples_s
    assert found.requests_per_s == ()


def test_rates_by_hand() -> None:
    assert rates_by_window([0.0, 0.5, 1.0, 1.25, 1.5], window=2) == pytest.approx([2.0, 4.0])
    assert rates_by_window([1.0, 0.5, 0.0], window=10) == pytest.approx([2.0]), "sorted; fewer than a window are one"
    assert rates_by_window([0.0, 0.5, 1.0, 1.25, 1.5], window=2, pauses_s=[0.7]) == pytest.approx([4.0])
    assert rates_by_window([3.0], window=2) == rates_by_window([], window=2) == ()


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60), st.integers(1, 12))
def test_windows_cover_the_time_once(gaps: list[float], window: int) -> None:
    moments = [0.0]
    for gap in gaps:
        moments.append(moments[-1] + gap)
    rates = rates_by_window(moments, window=window)
    width = min(window, len(gaps))
    assert sum(width / rate for rate in rates) == pytest.approx(moments[len(rates) * width])
    assert len(rates) == len(gaps) // width
