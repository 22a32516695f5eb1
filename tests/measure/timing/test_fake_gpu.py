"""What measures run on a GPU, with fake CUDA tensors in place of one: devices and dtypes of what they make."""

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.measure.context import CaseContext
from bench.measure.timing.forward import prepare_model
from bench.measure.timing.parity_check import _in_chunks
from bench.measure.timing.training_step import _TrainStep

Load = Callable[..., CaseContext]
GPU = torch.device("cuda:0")
PRECISIONS = {  # without autocast, which does not see the device of fakes
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16_weights": torch.float16,
    "bf16_weights": torch.bfloat16,
    "fp8": torch.bfloat16,
}
LAYERS_FOR_FP8 = {"width": 0.25, "num_classes": 16}


def apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What `nn.Module.to` does, with new parameters in place of changed ones: torch cannot change fakes in place."""
    for part in module.modules() if recurse else [module]:
        with torch.no_grad():
            for name, value in part._parameters.items():
                if value is not None:
                    part._parameters[name] = nn.Parameter(function(value), requires_grad=value.requires_grad)
            for name, value in part._buffers.items():
                part._buffers[name] = None if value is None else function(value)
    return module


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(nn.Module, "_apply", apply)
    with warnings.catch_warnings(), FakeTensorMode():
        warnings.simplefilter("ignore")
        yield


def on_gpu(load: Load, **axes: Any) -> CaseContext:
    return load(device="cuda", clip="8x1x64", args=LAYERS_FOR_FP8, **axes)


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize(("precision", "memory_format"), list(product(PRECISIONS, ["contiguous", "channels_last_3d"])))
def test_a_prepared_pass_has_everything_on_the_gpu_in_its_dtype(load: Load, precision: str, memory_format: str) -> None:
    prepared = prepare_model(on_gpu(load, precision=precision, memory_format=memory_format))
    assert {tensor.device for tensor in (*prepared.model.parameters(), *prepared.model.buffers())} == {GPU}
    forward = prepared.forward(2)
    assert {clip.device for clip in forward.inputs} == {GPU}
    logits = forward()
    assert (logits.device, logits.dtype) == (GPU, PRECISIONS[precision])


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize("precision", ["fp32", "bf16_weights"])
def test_the_forward_part_of_a_train_step_stays_on_the_gpu(load: Load, precision: str) -> None:
    prepared = prepare_model(on_gpu(load, precision=precision))
    step = _TrainStep(prepared, batch=2)
    step.forward()
    assert (step._labels.device, step._loss.device) == (GPU, GPU)


@pytest.mark.usefixtures("fake_gpu")
def test_logits_are_compared_on_the_cpu_in_double_precision(load: Load) -> None:
    logits = _in_chunks(prepare_model(on_gpu(load)), batch=10, clips=20)
    assert (logits.shape, logits.device.type, logits.dtype) == ((20, 16), "cpu", torch.float64)
