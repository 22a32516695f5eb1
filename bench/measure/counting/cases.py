"""Counts of a loaded case, one clip of its default batch 1: what the thin measure files read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn

from bench.measure.counting.tally import Count, count
from bench.measure.counting.watching import without_data
from bench.measure.counting.witnesses.hearing import Rebuilt, hear_witnesses
from bench.measure.counting.witnesses.verdicts import Verdict

if TYPE_CHECKING:
    from bench.measure.context import LoadedCase

_counted: "WeakKeyDictionary[LoadedCase, dict[bool, Count]]" = WeakKeyDictionary()


def forward_of(case: "LoadedCase") -> Count:
    """One clip through the network in eval mode, without gradients."""
    return _count_once(case, is_training=False)


def train_step_of(case: "LoadedCase") -> Count:
    """One clip forward and backward in train mode; in eval mode where the network cannot train on one clip."""
    return _count_once(case, is_training=True)


def _count_once(case: "LoadedCase", *, is_training: bool) -> Count:
    counts = _counted.setdefault(case, {})
    if is_training not in counts:
        counts[is_training] = _train_step(case) if is_training else _forward(case)
        case.uncounted(counts[is_training].uncounted_ops)
        _say_what_is_missing(case, counts[is_training])
    return counts[is_training]


def _forward(case: "LoadedCase") -> Count:
    model = built_without_weights(case)
    return count(model, case.inputs(model, batch=1, device="meta"))


def _train_step(case: "LoadedCase") -> Count:
    model = built_without_weights(case).train()
    inputs = case.inputs(model, batch=1, device="meta")
    try:
        return count(model, inputs, backward=True)
    except Exception as error:
        case.warn(f"the train step is counted in eval mode: {error}", "count with a model that can train on one clip")
        return count(model.eval(), inputs, backward=True)


def built_without_weights(case: "LoadedCase") -> nn.Module:
    """The network on the meta device, on the CPU where it cannot be built there."""
    try:
        with without_data():
            return case.build_model("meta")
    except (NotImplementedError, RuntimeError) as error:
        case.note("built_on_cpu", f"{type(error).__name__}: {error}")
        return case.build_model("cpu")


def witnesses_of(case: "LoadedCase", counters: Sequence[str]) -> tuple[Verdict, ...]:
    """Verdicts on the counters named, each heard on a network that it builds for itself."""
    point = case.point
    build = Rebuilt(model=point.model, arguments=dict(point.args), plugins=case.case.plugins)
    return hear_witnesses(build, case.input_shapes(built_without_weights(case)), counters=counters)


def _say_what_is_missing(case: "LoadedCase", counted: Count) -> None:
    if counted.fallback_reason is not None:
        case.note("counted_on_cpu", counted.fallback_reason)
    if not counted.is_complete:
        names = ", ".join(f"{name} ({calls} calls)" for name, calls in counted.uncounted_ops.items())
        case.warn(
            f"the count is incomplete: no formula for {names}",
            "give each a formula with counts_macs_of (bench.measure.counting.formulas), or costs_nothing",
        )
