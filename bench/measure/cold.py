"""Cold start: from a new process to the first logits, which a first request or a short job has to wait for."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    from bench.measure.timing.cold_start import ColdStart

TOTAL = MetricSpec(
    "cold.total_s",
    "s",
    "lower",
    title="Cold start",
    meaning="time of a fresh process until its first logits",
    headline=True,
)
INTERPRETER = MetricSpec(
    "cold.interpreter_s", "s", "lower", title="Cold start, interpreter", meaning="time until Python runs"
)
IMPORTS = MetricSpec("cold.import_s", "s", "lower", title="Cold start, imports", meaning="time to import packages")
BUILD = MetricSpec(
    "cold.build_s", "s", "lower", title="Cold start, model", meaning="time to build the model and load its weights"
)
FIRST_STEP = MetricSpec(
    "cold.first_step_s", "s", "lower", title="Cold start, first pass", meaning="time of the first forward pass"
)
COMPILE = MetricSpec(
    "cold.compile_s",
    "s",
    "lower",
    title="Cold start, compiling",
    meaning="time to prepare the engine, and what the first pass takes longer than later ones",
)


@register_measure(
    "cold",
    depends_on=TIMING_AXES,
    version=1,
    is_timed=True,
    metrics=(TOTAL, INTERPRETER, IMPORTS, BUILD, FIRST_STEP, COMPILE),
    duration_s=10.0,
)
def cold(case: CaseContext, *, timeout_s: float = 1800.0) -> list[Metric]:
    """Seconds of a fresh process until its first logits: interpreter, imports, building, first step, compiling.

    Compiler caches are empty. The file cache of the system is not: files that were read lately come from memory. The
    time of compiling is that of preparing an engine, and what the first step takes longer than later ones; it is null
    if the case does not compile.
    """
    from bench.measure.timing.cold_start import start_cold

    started = start_cold(case, timeout_s=timeout_s)
    case.note("cold", {"steady_step_s": started.steady_step_s, "first_step_s": started.first_step_s})
    return _metrics(started, is_compiled=case.point.compile not in (None, "off"))


def _metrics(started: "ColdStart", *, is_compiled: bool) -> list[Metric]:
    compile_s = started.prepare_s + max(0.0, started.first_step_s - started.steady_step_s)
    before_s = started.interpreter_s + started.import_s + started.build_s
    return [
        TOTAL.metric(before_s + started.prepare_s + started.first_step_s),
        INTERPRETER.metric(started.interpreter_s),
        IMPORTS.metric(started.import_s),
        BUILD.metric(started.build_s),
        FIRST_STEP.metric(started.first_step_s),
        COMPILE.metric(compile_s) if is_compiled else COMPILE.metric(None, note="this case does not compile"),
    ]
