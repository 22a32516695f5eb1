"""Latency, throughput and memory of a small model on the CPU."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.core.schema import Case, Clip, Json, Metric, Point
from bench.measure.context import CaseContext
from bench.measure.latency import latency
from bench.measure.memory import memory
from bench.measure.throughput import throughput
from bench.measure.timing.forward import Forward, forward_of
from bench.measure.timing.sampling import Sample


def loaded(tmp_path: Path, **axes: Json) -> CaseContext:
    point = Point(
        model="c3d_search",
        args={"width": 0.05, "num_classes": 4},
        clip="4x1x16",  # type: ignore[arg-type]  # Clip reads its short form
        device="cpu",
        **axes,  # type: ignore[arg-type]
    )
    return CaseContext(Case(suite="s", point=point, measures={}), artifacts=tmp_path / "artifacts" / "x")


def by_key(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.key: metric for metric in metrics}


def test_latency_keeps_its_samples_and_orders_its_percentiles(tmp_path: Path) -> None:
    found = by_key(latency(loaded(tmp_path), max_s=0.2))
    p50 = found["latency.p50_ms"]
    assert p50.value == pytest.approx(float(torch.tensor(p50.samples, dtype=torch.float64).quantile(0.5)), rel=1e-6)
    assert p50.stopped_because is not None
    values = [metric.value for metric in found.values()]
    assert values == sorted(values, key=float)  # type: ignore[arg-type]


@pytest.fixture
def ten_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model takes ten milliseconds a pass by its own clock, whatever its batch."""

    class TenMilliseconds(Forward):
        def latency(self) -> Sample:
            return Sample(wall_s=0.01)

        def block(self, steps: int) -> Sample:
            return Sample(wall_s=0.01)

    def at(batch: int) -> Forward:
        return TenMilliseconds(
            model=torch.nn.Identity(), inputs=(), device=torch.device("cpu"), batch=batch, autocast=None
        )

    monkeypatch.setattr("bench.measure.timing.forward.forward_of", lambda case: at)


@pytest.mark.usefixtures("ten_milliseconds")
def test_throughput_is_labelled_by_batch_and_is_clips_not_batches(tmp_path: Path) -> None:
    found = by_key(throughput(loaded(tmp_path), batch=[1, 16], max_s=0.01))
    assert {key: metric.value for key, metric in found.items()} == pytest.approx(
        {"throughput.clips_per_s{batch=1}": 100.0, "throughput.clips_per_s{batch=16}": 1600.0}
    )


def test_throughput_of_a_real_model_is_measured(tmp_path: Path) -> None:
    (metric,) = throughput(loaded(tmp_path), batch=2, max_s=0.1)
    assert metric.value is not None
    assert min(metric.samples) <= metric.value <= max(metric.samples)


def test_unknown_memory_is_null_with_the_reason(tmp_path: Path) -> None:
    found = by_key(memory(loaded(tmp_path)))
    assert found["memory.peak_allocated_bytes"].value is None
    assert found["memory.peak_allocated_bytes"].note
    peak = found["memory.peak_rss_bytes"].value
    assert peak is None or peak > 1 << 20


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model on CUDA that never runs, and the calls about its memory in order."""
    trace: list[str] = []

    class Traced(Forward):
        def __call__(self) -> torch.Tensor:
            trace.append("pass")
            return torch.zeros(1)

        def latency(self) -> Sample:
            self()
            return Sample(wall_s=0.01)

        def synchronize(self) -> None:
            return None

    def at(batch: int) -> Forward:
        return Traced(model=torch.nn.Identity(), inputs=(), device=torch.device("cuda"), batch=batch, autocast=None)

    variant = SimpleNamespace(forward=at)
    monkeypatch.setattr("bench.measure.timing.forward.prepare_model", lambda case: variant)
    monkeypatch.setattr("gc.collect", lambda: trace.append("collect"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: trace.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: trace.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 9)
    return trace


def test_memory_is_measured_after_the_compiling_pass(tmp_path: Path, on_cuda: list[str]) -> None:
    found = by_key(memory(loaded(tmp_path, compile="default")))
    assert on_cuda[-6:] == ["pass", "collect", "empty", "reset", "pass", "pass"]  # the last checks the outputs
    assert found["memory.peak_allocated_bytes"].value == 7
    assert found["memory.peak_reserved_bytes"].value == 9


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune", "cudagraphs"])
def test_memory_of_a_replayed_graph_is_null_with_the_reason(tmp_path: Path, on_cuda: list[str], mode: str) -> None:
    found = by_key(memory(loaded(tmp_path, compile=mode)))
    assert "pass" in on_cuda
    for name in ("memory.peak_allocated_bytes", "memory.peak_reserved_bytes"):
        assert found[name].value is None
        assert mode in (found[name].note or "")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last_3d"])
def test_execution_modes_give_the_same_logits_to_their_precision(
    tmp_path: Path, precision: str, memory_format: str
) -> None:
    plain = forward_of(loaded(tmp_path))(2)()
    variant = forward_of(loaded(tmp_path, precision=precision, memory_format=memory_format))(2)()
    tolerance = 1e-5 if precision == "fp32" else 5e-2
    assert torch.allclose(variant.float(), plain, atol=tolerance * float(plain.abs().max()))


@pytest.mark.gpu
def test_cuda_latency_waits_for_the_device(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    case = CaseContext(
        case.case.model_copy(update={"point": case.point.model_copy(update={"device": "cuda"})}), artifacts=tmp_path
    )
    found = by_key(latency(case, max_s=1.0))
    assert found["latency.p50_ms"].value
    assert by_key(memory(case))["memory.peak_allocated_bytes"].value


def test_the_largest_batch_on_a_cpu_is_null_with_the_reason(tmp_path: Path) -> None:
    found = by_key(throughput(loaded(tmp_path), batch="max"))
    assert found["throughput.max_batch"].value is None
    assert found["throughput.clips_per_s{batch=max}"].value is None
    assert "shares its memory" in (found["throughput.max_batch"].note or "")


@pytest.mark.usefixtures("ten_milliseconds")
def test_the_best_batch_is_searched_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[int, float | None] = {1: 10.0, 2: 20.0, 4: None}
    monkeypatch.setattr("bench.measure.timing.batch_search.BatchTrials.rate", lambda self, batch: rates[batch])
    case = loaded(tmp_path)
    found = by_key(throughput(case, batch=[1, "best"], views="5x3", max_s=0.05))
    assert found["throughput.best_batch"].value == 2
    best = found["throughput.clips_per_s{batch=best}"]
    assert (best.value, best.note) == (pytest.approx(200.0), "batch 2")
    videos = found["throughput.videos_per_s{batch=best,views=5x3}"]
    assert videos.value == pytest.approx((best.value or 0) / 15)
    assert videos.samples == pytest.approx([rate / 15 for rate in best.samples])
    assert found["throughput.clips_per_s{batch=1}"].note is None
    assert case.details["throughput.searched"] == {"1": 10.0, "2": 20.0, "4": None}


@pytest.mark.gpu
def test_the_largest_batch_fits_on_a_gpu(tmp_path: Path) -> None:
    case = loaded(tmp_path)
    point = case.point.model_copy(update={"device": "cuda", "clip": Clip.model_validate("16x1x112")})
    case = CaseContext(case.case.model_copy(update={"point": point}), artifacts=tmp_path)
    found = by_key(throughput(case, batch="max", max_s=1.0))
    assert found["throughput.max_batch"].value
    assert found["throughput.clips_per_s{batch=max}"].value
