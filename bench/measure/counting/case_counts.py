"""Counts of a case for one clip, cached per case, for the measures `params`, `macs` and `activations`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn

from bench.core.errors import InputError
from bench.measure.counting.counters.agreement import Agreement
from bench.measure.counting.counters.run_counters import ModelByName, run_counters
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import Count, count

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

_counted: "WeakKeyDictionary[CaseContext, dict[bool, Count | None]]" = WeakKeyDictionary()


def forward_of(case: "CaseContext") -> Count:
    """Return the count of one clip in eval mode, without gradients."""
    counts = _counted.setdefault(case, {})
    if False not in counts:
        model = built_without_weights(case)
        counts[False] = _reported(case, count(model, case.inputs(model, batch=1, device="meta")))
    counted = counts[False]
    assert counted is not None  # only a train step can be missing
    return counted


def train_step_of(case: "CaseContext") -> Count | None:
    """Return the count of one clip forward and backward, in train mode if one clip can be trained, else eval.

    None if the model has no backward pass; the record then has a warning with the reason.
    """
    counts = _counted.setdefault(case, {})
    if True not in counts:
        counted = _train_step(case)
        counts[True] = None if counted is None else _reported(case, counted)
    return counts[True]


def _train_step(case: "CaseContext") -> Count | None:
    model = built_without_weights(case).train()
    inputs = case.inputs(model, batch=1, device="meta")
    try:
        return count(model, inputs, backward=True)
    except InputError as error:
        in_train_mode = error
    try:
        counted = count(model.eval(), inputs, backward=True)
    except InputError as error:
        remedy = "give each operator a backward pass, such as with torch.library.register_autograd"
        case.warn(f"no train step was counted: {error}", remedy)
        return None
    case.warn(f"the train step is counted in eval mode: {in_train_mode}", "count with a model that trains on one clip")
    return counted


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


def _reported(case: "CaseContext", counted: Count) -> Count:
    """Add to the record what its reader must know about `counted`, and return it."""
    case.uncounted(counted.uncounted_ops)
    for note in counted.notes:
        case.warn(note)
    if counted.fallback_reason is not None:
        case.note("counted_on_cpu", counted.fallback_reason)
    if not counted.is_complete:
        names = ", ".join(f"{name} ({calls} calls)" for name, calls in counted.uncounted_ops.items())
        case.warn(
            f"the count is incomplete: no formula for {names}",
            "give each a formula with bench.counts_macs_of, or name it with bench.costs_nothing (in a plug-in)",
        )
    return counted
