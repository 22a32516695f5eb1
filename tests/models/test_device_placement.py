"""Every model keeps to the device of its weights and clips: passes over fake CUDA tensors, which need no GPU.

A tensor that a pass creates on the CPU raises an error here, as it would on a GPU. Values that a fake tensor does not
have raise as well: a pass that reads one waits for the device, and cannot be captured in a CUDA graph.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.core.registry import MODELS
from bench.core.schema import Clip
from bench.measure.timing.fp8 import use_fp8
from bench.models.base import inputs_of
from bench.models.factory import create_model, find_model

GPU = torch.device("cuda:0")
FAMILIES = sorted({entry.family: entry.name for entry in reversed(list(MODELS))}.values())  # the first of each
OF_TORCHVISION = [f"torchvision:{name}" for name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "swin3d_t")]


@contextmanager
def on_fake_gpu() -> Iterator[None]:
    """Tensors without storage that know their device; every other tensor in an operation is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cuDNN's layout of LSTM weights asks for addresses, which fakes do not have
        with FakeTensorMode(allow_non_fake_inputs=False):
            yield


def placed(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Put fakes on the GPU in place of the weights and buffers of a model on meta."""

    def fake(tensor: Tensor) -> Tensor:
        kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=GPU)

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
    return model


def on_meta(name: str) -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    with torch.device("meta"):
        model = create_model(name).eval()
    clip = Clip.model_validate(find_model(name).clip)
    return model, tuple(spec.shape(clip, batch=2) for spec in inputs_of(model))


@pytest.mark.parametrize("name", [*FAMILIES, *OF_TORCHVISION])
def test_a_forward_pass_stays_on_the_device_of_its_clips(name: str) -> None:
    model, shapes = on_meta(name)
    with on_fake_gpu(), torch.inference_mode():
        logits = placed(model)(*(torch.empty(shape, device=GPU) for shape in shapes))
        assert logits.device == GPU


NOT_IN_TRAINING = "cnn_lstm"  # torch asks cuDNN itself about an LSTM that trains


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*FAMILIES, *OF_TORCHVISION) if name != NOT_IN_TRAINING])
def test_a_training_pass_stays_on_the_device_of_its_clips(name: str) -> None:
    """Up to the loss: the backward pass asks CUDA itself for its device, and so needs a real one."""
    model, shapes = on_meta(name)
    with on_fake_gpu():
        logits = placed(model).train()(*(torch.empty(shape, device=GPU) for shape in shapes))
        rows = logits.float().flatten(0, -2)  # an encoder returns one vector for each token
        loss = nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.int64, device=GPU))
        assert (logits.device, loss.device) == (GPU, GPU)


@pytest.mark.parametrize("name", ["videomae", "torchvision:swin3d_t", "timesformer"])
def test_float8_layers_stay_on_the_device_of_their_clips(name: str) -> None:
    model, shapes = on_meta(name)
    with on_fake_gpu(), torch.inference_mode():
        model = placed(model, torch.bfloat16)
        clips = [torch.empty(shape, device=GPU, dtype=torch.bfloat16) for shape in shapes]
        assert use_fp8(model, clips).in_fp8
        assert model(*clips).device == GPU


class OnCpu(nn.Module):
    """Creates a mask on the CPU in each pass, as models do that were never run on a GPU."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip * torch.ones(clip.shape[-1])


class Deciding(nn.Module):
    """Reads a value of the clip to decide what to do."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip if clip.sum().item() > 0 else -clip


@pytest.mark.parametrize(("model", "said"), [(OnCpu(), "on the same device"), (Deciding(), "scalar_dense")])
def test_a_tensor_on_the_cpu_and_a_value_read_by_the_host_are_found(model: nn.Module, said: str) -> None:
    with on_fake_gpu(), torch.inference_mode(), pytest.raises(Exception, match=said):
        model(torch.empty(2, 3, 4, 8, 8, device=GPU))
