"""Train steps of a small model, and their parts with simulated times."""

import re
from collections.abc import Callable

import pytest
import torch

from bench.core.errors import InputError
from bench.measure.context import CaseContext
from bench.measure.timing.forward import prepare_model
from bench.measure.timing.sampling import Sample, Timing
from bench.measure.timing.training_step import _TrainStep, train_step_of
from bench.measure.train_step import _metrics, train_step

Load = Callable[..., CaseContext]


def test_parts_and_rates_come_from_the_samples() -> None:
    samples = tuple(Sample(wall_s=s, parts_s=(s / 4, s / 2, s / 8)) for s in (0.08, 0.16, 0.32))
    timing = Timing(samples=samples, warmup_samples=0, is_steady=True, stopped_because="precise")
    found = {metric.name: metric.value for metric in _metrics(timing, batch=4)}
    assert found == pytest.approx(
        {
            "train_step.step_ms": 160,
            "train_step.forward_ms": 40,
            "train_step.backward_ms": 80,
            "train_step.optimizer_ms": 20,
            "train_step.clips_per_s": 25,
        }
    )


def test_a_real_step_has_three_parts_that_fill_it(load: Load) -> None:
    sample = train_step_of(load(), batch=2)()
    assert len(sample.parts_s) == 3
    assert all(part > 0 for part in sample.parts_s)
    assert sum(sample.parts_s) == pytest.approx(sample.wall_s, rel=0.2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
def test_a_step_changes_every_weight_that_it_trains(load: Load, precision: str) -> None:
    step = _TrainStep(prepare_model(load(precision=precision)), batch=2)
    step.forward()
    step.backward()
    grads = {name: p.grad for name, p in step._prepared.model.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())
    step.update()
    assert all(p.grad is None for p in step._prepared.model.parameters())


def test_a_batch_too_small_to_normalise_says_what_to_give(load: Load) -> None:
    case = load(model="resnet3d", args={"depth": 10, "widen_factor": 0.125, "num_classes": 4}, clip="4x1x32")
    with pytest.raises(InputError, match=re.escape("train_step: {batch: 8}")):
        train_step(case, max_s=0.1)


def test_a_timed_step_has_every_metric(load: Load) -> None:
    case = load(batch=2)
    found = {metric.name: metric for metric in train_step(case, max_s=0.1)}
    rates, steps_ms = found["train_step.clips_per_s"].samples, found["train_step.step_ms"].samples
    assert rates
    assert rates == pytest.approx([2000 / step for step in steps_ms])
    assert "train_step" in case.details


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "bf16_weights"])
def test_cuda_parts_lie_within_the_step(load: Load, precision: str) -> None:
    step = train_step_of(load(device="cuda", precision=precision), batch=2)
    step()
    sample = step()
    assert sample.device_s is not None
    assert 0 < sum(sample.parts_s) <= sample.device_s
