"""Engines: each compared with the model itself, and when they are built again."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.schema import CompileMode
from bench.measure.context import CaseContext
from bench.measure.parity import parity
from bench.measure.timing import forward as forward_module
from bench.measure.timing.engines import execution
from bench.measure.timing.engines.aot_inductor import compile_ahead
from bench.measure.timing.engines.cuda_graph import capture, explain_capture_errors
from bench.measure.timing.engines.execution import Execution
from bench.measure.timing.engines.onnx_session import adaptive_max_pool3d
from bench.measure.timing.engines.tensor_rt import build
from bench.measure.timing.engines.work import Work
from bench.measure.timing.forward import forward_of, prepare_model
from bench.measure.train_step import train_step

MODEL = """
from torch import nn


def plain(num_classes=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, num_classes))
"""
Load = Callable[..., CaseContext]


def work_over(batch: int) -> Work:
    return Work(model=nn.Identity(), inputs=(torch.zeros(batch, 2),), precision="fp32", autocast=None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An engine in place of AOTInductor that notes the batches it was built for."""
    batches: list[int] = []

    def make_ready(work: Work) -> Callable[..., Tensor]:
        batches.append(len(work.inputs[0]))
        return work.model

    monkeypatch.setattr(execution, "ENGINES", {"aotinductor": make_ready})
    return batches


def test_an_engine_is_built_again_only_for_another_shape(made: list[int]) -> None:
    engine = Execution("aotinductor")
    for batch in (2, 2, 3, 3, 2):
        engine.run_of(work_over(batch))
    assert made == [2, 3, 2]


def test_all_measures_of_a_case_share_an_engine(made: list[int], load: Load) -> None:
    case = load(compile="aotinductor")
    forward_of(case)(2)
    forward_of(case)(2)
    assert prepare_model(case).model is prepare_model(case).model, "and one model"
    forward_of(load(compile="aotinductor"))(2)
    assert made == [2, 2]


def test_clips_of_a_graph_are_copied_to_where_it_reads_them(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    """Otherwise measures after the first one would time a copy of the clips."""
    monkeypatch.setattr(execution, "ENGINES", {"cudagraphs": lambda work: lambda *clips: work.inputs[0]})
    monkeypatch.setattr(forward_module, "refusal", lambda mode, device: None)
    variant = prepare_model(load(compile="cudagraphs"))
    first, second = variant.forward(2, seed=0), variant.forward(2, seed=1)
    assert second.inputs[0] is first.inputs[0]
    assert torch.equal(second(), variant.inputs(2, seed=1)[0])
    assert variant.forward(3).inputs[0].shape[0] == 3
    assert torch.equal(variant.forward(2, seed=1)(), variant.inputs(2, seed=1)[0])


def test_other_clips_of_the_same_shape_give_other_logits(load: Load) -> None:
    variant = prepare_model(load())
    assert not torch.equal(variant.forward(2, seed=0)(), variant.forward(2, seed=1)())


@pytest.mark.parametrize(("size", "cells"), list(product([(4, 7, 9), (1, 2, 2)], [(1, 4, 4), (2, 3, 5)])))
def test_pooling_made_of_onnx_operators_equals_that_of_torch(size: tuple[int, ...], cells: tuple[int, ...]) -> None:
    volume = torch.randn(2, 3, *size)
    found, _ = adaptive_max_pool3d(volume, list(cells))
    assert torch.equal(found, nn.functional.adaptive_max_pool3d(volume, cells))


def test_onnx_runtime_computes_the_same_with_other_kernels(load: Load) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    case = load(compile="onnxruntime", batch=4)
    found = {m.name: m.value for m in parity(case)}
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]
    assert found["parity.max_difference"], "to the last bit it would be torch that ran"
    assert found["parity.top1_agreement"] == 100


def test_an_engine_that_computes_something_else_is_out_of_tolerance(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity is that of the engine's outputs, not of the model that it was built from."""

    def wrong(work: Work) -> Callable[..., Tensor]:
        return lambda *clips: -work.model(*clips)

    monkeypatch.setattr(execution, "ENGINES", {"onnxruntime": wrong})
    case = load(compile="onnxruntime")
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is False  # type: ignore[index,call-overload]


@pytest.mark.parametrize("axes", [{"compile": "onnxruntime"}, {"compile": "aotinductor"}, {"precision": "fp8"}])
def test_training_with_an_engine_is_refused(load: Load, axes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="cannot train as"):
        train_step(load(**axes, device="cuda"))


@pytest.mark.parametrize("mode", ["cudagraphs", "tensorrt"])
def test_cuda_engines_are_refused_on_a_cpu(load: Load, mode: CompileMode) -> None:
    with pytest.raises(InputError, match=f"compile {mode} needs a CUDA device"):
        forward_of(load(compile=mode))


def test_a_library_compiled_ahead_runs_on_the_device_of_its_clips_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[dict[str, object]] = []
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *_, **__: None)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path, **options: loaded.append(options))
    monkeypatch.setattr(Work, "export", lambda self: None)
    compile_ahead(work_over(1))
    monkeypatch.setattr(Work, "device", property(lambda self: torch.device("cuda:1")))
    compile_ahead(work_over(1))
    assert [each["run_single_threaded"] for each in loaded] == [True, True]
    assert [each["device_index"] for each in loaded] == [-1, 1]


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("CUDA error: operation not permitted when stream is capturing", InputError),
        ("CUDA error: operation failed due to a previous error during capture", InputError),
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_a_model_that_cannot_be_captured_is_one_clear_error(said: str, raised: type[Exception]) -> None:
    with pytest.raises(raised) as seen, explain_capture_errors():
        raise RuntimeError(said)
    assert ("cannot capture this model" in str(seen.value)) == (raised is InputError)


class FakeCuda:
    """Streams and captures like torch's: a failed capture leaves its stream behind as the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.current, self.fails = SimpleNamespace(name="main", waits_for=[]), fails
        self.options: dict[str, object] = {}
        self.passes: list[str] = []
        for name in ("stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.named("side"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        self.current = self.named("main")

    def named(self, name: str) -> SimpleNamespace:
        found = SimpleNamespace(name=name, waits_for=[])
        found.wait_stream = lambda other: found.waits_for.append(other.name)
        return found

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: object, **options: object) -> Iterator[None]:
        self.options.update(options)
        before, self.current = self.current, self.named("capture")
        try:
            yield
        finally:
            if self.fails:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.current = before

    def work(self) -> Work:
        def forward(clip: Tensor) -> Tensor:
            self.passes.append(self.current.name)
            return clip

        return replace(work_over(1), model=forward)  # type: ignore[arg-type]  # a function stands in for a module


def test_a_capture_is_not_broken_by_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader pins memory in a thread of its own, which CUDA forbids to all threads unless the mode is changed."""
    cuda = FakeCuda(monkeypatch)
    capture(cuda.work())
    assert cuda.options == {"capture_error_mode": "thread_local"}


def test_the_warm_up_before_a_capture_runs_on_a_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    capture(cuda.work())
    assert cuda.passes == ["side", "side", "side", "capture"]
    assert (cuda.current.name, cuda.current.waits_for) == ("main", ["side"])


def test_a_failed_capture_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch, fails=True)
    with pytest.raises(InputError, match="cannot capture this model"):
        capture(cuda.work())
    assert cuda.current.name == "main"


def test_tensorrt_builds_for_the_device_of_the_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    stand_in = SimpleNamespace(dynamo=SimpleNamespace(compile=lambda *_, **options: asked.update(options)))
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in)
    monkeypatch.setattr(Work, "export", lambda self: None)
    monkeypatch.setattr(Work, "device", property(lambda self: torch.device("cuda:1")))
    build(work_over(1))
    assert asked["device"] == torch.device("cuda:1")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
def test_aotinductor_computes_the_same_with_its_casts_inside(load: Load, precision: str) -> None:
    case = load(compile="aotinductor", precision=precision, batch=2)
    found = {m.name: m.value for m in parity(case)}
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]
    if precision != "fp32":
        assert found["parity.max_difference"], "its autocast was lost"


@pytest.mark.slow
def test_onnx_runtime_takes_cast_weights(load: Load) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    case = load(compile="onnxruntime", precision="fp16_weights", batch=4)
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]


@pytest.mark.slow
def test_more_shapes_than_the_compilers_limit_stay_compiled(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten batches of one model; torch falls back to eager at the ninth unless it is reset."""
    (tmp_path / "plain_network.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    at = forward_of(load(model="plain_network:plain", args={}, compile="default"))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for batch in range(1, 11):
            at(batch)()


CUDA_WAYS = [
    {"compile": mode, "precision": precision}
    for mode, precision in [
        *product(("cudagraphs", "aotinductor"), ("fp32", "bf16", "bf16_weights", "fp16_weights")),
        *product(("onnxruntime", "tensorrt"), ("fp32", "tf32", "fp16_weights")),
        ("off", "fp8"),
        ("cudagraphs", "fp8"),
    ]
]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", CUDA_WAYS, ids=lambda mode: "-".join(mode.values()))
def test_cuda_engines_are_within_tolerance(load: Load, mode: dict[str, str]) -> None:
    needs = {"tensorrt": ["torch_tensorrt"], "onnxruntime": ["onnxruntime", "onnxscript"]}
    for package in needs.get(mode["compile"], []):
        pytest.importorskip(package)
    if mode["compile"] == "onnxruntime":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has no CUDA provider")
    if mode["precision"] == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no fp8")
    case = load(**mode, device="cuda", clip="16x1x112", batch=2, args={"width": 0.25, "num_classes": 16})
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]


@pytest.mark.gpu
def test_a_replayed_graph_reads_other_clips(load: Load) -> None:
    case = load(compile="cudagraphs", device="cuda")
    variant = prepare_model(case)
    first = variant.forward(2, seed=0)().clone()
    second = variant.forward(2, seed=1)().clone()
    assert not torch.equal(first, second)
