"""Concurrent streams: real threads that share a small model."""

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.concurrent import _metrics, concurrent
from bench.measure.context import CaseContext
from bench.measure.timing.forward import forward_of
from bench.measure.timing.sampling import Sample, Timing
from bench.measure.timing.streams import StreamTiming, running_streams

Load = Callable[..., CaseContext]


def test_every_count_of_streams_has_its_metrics(load: Load) -> None:
    case = load()
    threads = torch.get_num_threads()
    found = {metric.key: metric for metric in concurrent(case, streams=[1, 3], max_s=0.3)}
    assert set(found) == {
        f"concurrent.{name}{{streams={n}}}" for n in (1, 3) for name in ("p50_ms", "p95_ms", "p99_ms", "clips_per_s")
    }
    for n in (1, 3):
        p50, p95, p99 = (found[f"concurrent.p{p}_ms{{streams={n}}}"].value or 0 for p in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99
        detail = case.details[f"concurrent at {n} streams"]
        assert isinstance(detail, dict)
        assert len(detail["requests_by_stream"]) == n
        assert min(detail["requests_by_stream"]) > 0
        assert detail["torch_threads_by_stream"] == max(1, threads // n)
    assert torch.get_num_threads() == threads


def test_metrics_by_hand() -> None:
    samples = tuple(Sample(wall_s=s) for s in (0.01, 0.02, 0.03))
    timing = Timing(samples=samples, warmup_samples=0, is_steady=True, stopped_because="precise")
    found = {m.name: m for m in _metrics(StreamTiming(timing=timing, requests_per_s=(50.0, 70.0)), batch=4, streams=2)}
    assert found["concurrent.p50_ms"].value == pytest.approx(20)
    assert found["concurrent.p95_ms"].value == pytest.approx(29)
    assert found["concurrent.clips_per_s"].samples == pytest.approx((200, 280))
    assert {metric.labels["streams"] for metric in found.values()} == {"2"}
    lost = _metrics(StreamTiming(timing=timing, requests_per_s=()), batch=4, streams=2)[-1]
    assert (lost.value, lost.note) == (None, "the device was throttled all the time")


def test_streams_send_at_the_same_time_and_end_with_the_block(load: Load) -> None:
    """Two requests that can only end together: streams which took turns would never."""
    together = threading.Barrier(2, timeout=20)
    passes = count()

    def model(clip: Tensor) -> Tensor:
        if next(passes) >= 2:  # the first pass of each is alone
            together.wait()
        return clip

    forward = replace(forward_of(load())(1), model=model)
    with running_streams([forward, forward], threads_each=1) as streams:
        assert [streams.next().wall_s > 0 for _ in range(6)] == [True] * 6
        together.abort()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vbench-stream")]


@pytest.mark.parametrize("good", [0, 3])
def test_an_error_in_a_stream_fails_the_case(load: Load, good: int) -> None:
    passes = count()

    def model(clip: Tensor) -> Tensor:
        if next(passes) >= good:
            raise ValueError("this model fails")
        return clip

    forward = replace(forward_of(load())(1), model=model)
    with (
        pytest.raises(ValueError, match="this model fails"),
        running_streams([forward, forward], threads_each=1) as streams,
    ):
        [streams.next() for _ in range(10)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vbench-stream")]


def test_each_stream_has_its_own_threads_of_torch(load: Load) -> None:
    seen: list[int] = []

    def model(clip: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return clip

    before = torch.get_num_threads()
    forward = replace(forward_of(load())(1), model=model)
    with running_streams([forward, forward], threads_each=3) as streams:
        streams.next()
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_an_engine_for_a_single_caller_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match="concurrent cannot run fp32, reduce-overhead from several threads"):
        concurrent(load(compile="reduce-overhead"), streams=2)


@pytest.mark.gpu
def test_cuda_streams_do_not_wait_for_each_other(load: Load) -> None:
    case = load(device="cuda", clip="8x1x64")
    found = {metric.key: metric for metric in concurrent(case, streams=[1, 4], max_s=2.0)}
    assert found["concurrent.clips_per_s{streams=4}"].value
    detail = case.details["concurrent at 4 streams"]
    assert isinstance(detail, dict)
    assert isinstance(detail["device_p50_ms"], float)
