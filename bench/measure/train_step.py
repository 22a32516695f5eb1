"""Train step: forward with loss, backward and optimizer, each alone and all together; loading is not included."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    from bench.measure.timing.sampling import Timing

STEP = MetricSpec(
    "train_step.step_ms",
    "ms",
    "lower",
    title="Train step",
    meaning="median time of forward, backward and optimizer step",
    headline=True,
)
FORWARD = MetricSpec(
    "train_step.forward_ms", "ms", "lower", title="Train step, forward", meaning="median time of forward and loss"
)
BACKWARD = MetricSpec(
    "train_step.backward_ms", "ms", "lower", title="Train step, backward", meaning="median time of the backward pass"
)
OPTIMIZER = MetricSpec(
    "train_step.optimizer_ms", "ms", "lower", title="Train step, optimizer", meaning="median time of the optimizer step"
)
CLIPS = MetricSpec(
    "train_step.clips_per_s", "clips/s", "higher", title="Training rate", meaning="clips per second of train steps"
)
PARTS = (FORWARD, BACKWARD, OPTIMIZER)


@register_measure(
    "train_step",
    depends_on=TIMING_AXES,
    version=1,
    is_timed=True,
    metrics=(STEP, *PARTS, CLIPS),
    duration_s=8.0,
)
def train_step(case: CaseContext, *, max_s: float = 10.0) -> list[Metric]:
    """Milliseconds of a train step at the case's batch (1 by default) and of its parts, and clips per second.

    The step is cross entropy and SGD with momentum in the case's precision: autocast for `fp16` (with loss scaling)
    and `bf16`, plain steps on cast weights for the others. On CUDA the parts are timed between events and the step
    between two synchronisations, so the parts may add up to less than the step.
    """
    from bench.measure.timing.case_timing import time_step
    from bench.measure.timing.training_step import train_step_of

    batch = case.point.batch or 1
    step = train_step_of(case, batch=batch)
    return _metrics(time_step(case, step, what="train_step", max_s=max_s), batch=batch)


def _metrics(timing: "Timing", *, batch: int) -> list[Metric]:
    from bench.measure.timing.case_timing import sampled_metric

    parts = [
        sampled_metric(spec, [1000 * s.parts_s[place] for s in timing.samples], timing=timing)
        for place, spec in enumerate(PARTS)
    ]
    return [
        sampled_metric(STEP, [1000 * s for s in timing.samples_s], timing=timing),
        *parts,
        sampled_metric(CLIPS, [batch / s for s in timing.samples_s], timing=timing),
    ]
