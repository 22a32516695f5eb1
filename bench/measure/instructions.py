"""Measure `instructions`: CPU instructions of a forward pass, a steady stand-in for its time on shared processors."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.core.stats import median
from bench.measure.axis_sets import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

FORWARD = MetricSpec(
    "instructions.forward",
    "instructions",
    "lower",
    title="Instructions",
    meaning="CPU instructions of one forward pass on one thread, without the kernel's; instructions are not time",
    headline=True,
)


# Not `compile`, whose compilers would run in valgrind too, nor `device` and `threads`: it is one thread of the CPU.
@register_measure(
    "instructions",
    depends_on=COUNT_AXES | {"precision", "memory_format", "batch"},
    version=1,
    is_sampled=True,
    metrics=(FORWARD,),
    duration_s=60.0,
)
def instructions(case: "CaseContext", *, passes: int = 3, timeout_s: float = 1800.0) -> list[Metric]:
    """Instructions of one forward pass at the case's batch (1 by default) on one CPU thread, the median of `passes`.

    They hardly vary, whatever else the machine does, so they show a change of the code where time would be noise. But
    instructions are not time: an operator that waits for memory executes few. The label `by` says what counted them:
    `perf`, the processor's own counter, or `callgrind` if that cannot be read, which valgrind simulates (50 times
    slower, and without AVX-512, so other kernels run). Null with a note if neither is available.
    """
    from bench.measure.instruction_counter import CannotCountError, count_passes

    try:
        counts = count_passes(case, passes=passes, timeout_s=timeout_s)
    except CannotCountError as error:
        return [FORWARD.metric(None, note=str(error))]
    case.note("instructions", {"tool": counts.tool, "passes": list(counts.passes)})
    value, samples = median(counts.passes), tuple(map(float, counts.passes))
    return [FORWARD.metric(value, samples=samples, labels={"by": counts.tool}, note="instructions are not time")]
