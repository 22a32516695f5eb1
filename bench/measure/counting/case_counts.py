"""Counts of a case for one clip, cached per case, for the measures `params`, `macs` and `activations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn

from bench.measure.counting.counters.agreement import Agreement
from bench.measure.counting.counters.run_counters import ModelByName, run_counters
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import Count, count

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

_counted: "WeakKeyDictionary[CaseContext, dict[bool, Count]]" = WeakKeyDictionary()


def forward_of(case: "CaseContext") -> Count:
    """Return the count of one clip in eval mode, without gradients."""
    return _count_once(case, is_training=False)


def train_step_of(case: "CaseContext") -> Count:
    """Return the count of one clip forward and backward, in train mode if one clip can be trained, else eval."""
    return _count_once(case, is_training=True)


def _count_once(case: "CaseContext", *, is_training: bool) -> Count:
    counts = _counted.setdefault(case, {})
    if is_training not in counts:
        counts[is_training] = _train_step(case) if is_training else _forward(case)
        case.uncounted(counts[is_training].uncounted_ops)
        _report_incomplete(case, counts[is_training])
    return counts[is_training]


def _forward(case: "CaseContext") -> Count:
    model = built_without_weights(case)
    return count(model, case.inputs(model, batch=1, device="meta"))


def _train_step(case: "CaseContext") -> Count:
    model = built_without_weights(case).train()
    inputs = case.inputs(model, batch=1, device="meta")
    try:
        return count(model, inputs, backward=True)
    except Exception as error:
        case.warn(f"the train step is counted in eval mode: {error}", "count with a model that can train on one clip")
        return count(model.eval(), inputs, backward=True)


def built_without_weights(case: "CaseContext") -> nn.Module:
    """Return the model on the meta device, or on the CPU if it cannot be built there."""
    try:
        with on_meta():
            return case.build_model("meta")
    except (NotImplementedError, RuntimeError) as error:
        case.note("built_on_cpu", f"{type(error).__name__}: {error}")
        return case.build_model("cpu")


def counter_reports(case: "CaseContext", counters: Sequence[str]) -> tuple[Agreement, ...]:
    """Return how the named counters agree with our count; each counter builds the model itself."""
    point = case.point
    build = ModelByName(model=point.model, arguments=dict(point.args), plugins=case.case.plugins)
    return run_counters(build, case.input_shapes(built_without_weights(case)), counters=counters)


def _report_incomplete(case: "CaseContext", counted: Count) -> None:
    if counted.fallback_reason is not None:
        case.note("counted_on_cpu", counted.fallback_reason)
    if not counted.is_complete:
        names = ", ".join(f"{name} ({calls} calls)" for name, calls in counted.uncounted_ops.items())
        case.warn(
            f"the count is incomplete: no formula for {names}",
            "give each a formula with counts_macs_of (bench.measure.counting.formulas), or costs_nothing",
        )
