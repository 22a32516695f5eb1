"""Counts of whole models to the digits in which the field knows them, and against PyTorch's own counter."""

import pytest
import torch
from torch import nn

from bench.core.registry import MODELS
from bench.core.schema import Clip
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import count
from bench.measure.counting.peak_memory import peak_memory_estimate
from bench.models.base import inputs_of
from bench.models.factory import create_model

# GMACs at batch 1 to the third decimal, of clips of frames x pixels.
KNOWN = {
    "r3d_18": (16, 112, 40.697),
    "mc3_18": (16, 112, 43.343),
    "r2plus1d_18": (16, 112, 40.519),
    "s3d": (16, 224, 17.979),
    "mvit_v1_b": (16, 224, 70.599),
    "mvit_v2_s": (16, 224, 64.224),
    "swin3d_t": (16, 224, 43.882),
    "swin3d_s": (16, 224, 82.841),
    "swin3d_b": (16, 224, 140.667),
}
QUICK = ("c3d", "resnet3d_18", "slow_r50_4x16", "x3d_xs", "cnn_lstm")


def at(name: str, clip: str, *, batch: int = 1) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model without weights and inputs without values."""
    with on_meta():
        model = create_model(name)
        return model, tuple(
            torch.empty(spec.shape(Clip.model_validate(clip), batch=batch)) for spec in inputs_of(model)
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_torchvision_to_the_known_digits(name: str) -> None:
    frames, size, known = KNOWN[name]
    model, inputs = at(f"torchvision:{name}", f"{frames}x1x{size}")
    counted = count(model.eval(), inputs)
    assert round(counted.macs / 1e9, 3) == known
    assert counted.is_complete
    assert counted.device_used == "meta"


def macs_by_torch(model: nn.Module, inputs: tuple[torch.Tensor, ...], *, backward: bool) -> int:
    """PyTorch's own count; it knows no RNN kernel and no grouped backward, which none of these has on meta."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = model(*inputs)
        if backward:
            out.sum().backward()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["c3d", "resnet3d_18", "slow_r50_4x16", "cnn_lstm"])
@pytest.mark.parametrize("backward", [False, True])
def test_models_without_groups_are_counted_as_pytorch_counts_them(name: str, backward: bool) -> None:
    model, inputs = at(name, MODELS.get(name).clip, batch=2)
    model = model.train(backward)
    assert count(model, inputs, backward=backward).macs == macs_by_torch(model, inputs, backward=backward)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS.names())])
def test_every_model_of_the_zoo_is_counted_completely(name: str) -> None:
    model, inputs = at(name, MODELS.get(name).clip, batch=2)
    one, two = (count(model.eval(), tuple(x[:batch] for x in inputs)) for batch in (1, 2))
    step = count(model.train(), inputs, backward=True)
    assert (one.is_complete, step.is_complete, one.device_used, step.device_used) == (True, True, "meta", "meta")
    assert two.macs == 2 * one.macs
    assert step.forward_macs == two.macs
    assert two.macs < step.backward_macs <= 2 * two.macs
    assert sum(row.macs for row in one.rows) == one.by_module[""] == one.macs
    assert one.params == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["c3d", "resnet3d_50", "x3d_s"])
def test_peak_memory_is_what_mem_tracker_says(name: str) -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    model, inputs = at(name, MODELS.get(name).clip, batch=2)
    estimate = peak_memory_estimate(model, inputs)
    tracker = MemTracker()
    tracker.track_external(model.train(), *inputs)
    with tracker:
        model(*inputs).sum().backward()
    [snapshot] = tracker.get_tracker_snapshot("peak").values()
    assert estimate.training_bytes == pytest.approx(snapshot["Total"], abs=1024)


@pytest.mark.parametrize("name", ["c3d", "slow_r50_4x16", "cnn_lstm", "videomae_s", "tin_r50"])
def test_peak_memory_of_a_counted_pass_is_that_of_a_pass_of_its_own(name: str) -> None:
    model, inputs = at(name, MODELS.get(name).clip)
    estimate = peak_memory_estimate(model, inputs)
    forward = count(model.eval(), inputs, with_peak_memory=True)
    step = count(model.train(), inputs, backward=True, with_peak_memory=True)
    assert (forward.peak_memory, step.peak_memory) == (estimate.inference, estimate.training)
    assert step.peak_notes == estimate.notes
    assert count(model, inputs).peak_memory is None


def test_peak_memory_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 1000, bias=False))
    estimate = peak_memory_estimate(model, torch.randn(10, 1000))
    weights, rows = 2 * 4_000_000, 40_000
    assert (estimate.inference.weights, estimate.inference.inputs) == (weights, rows)
    assert estimate.inference.activations == 2 * rows
    assert estimate.inference_bytes == weights + 3 * rows
    assert estimate.training is not None
    assert estimate.training.weights + estimate.training.inputs == weights + rows
    # At the worst moment the first weight's gradient has just been made beside the second's.
    assert estimate.training.gradients + estimate.training.temporaries == pytest.approx(weights + rows, abs=64)
    assert estimate.training_bytes == estimate.training.total


def test_what_cannot_train_has_no_training_memory_and_says_so() -> None:
    estimate = peak_memory_estimate(nn.ReLU(), torch.randn(2, 3))
    assert estimate.training_bytes is None
    assert "nothing to train" in estimate.notes[0]
