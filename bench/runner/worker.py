"""The child process that measures one case: the only place that touches a device."""

import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.core.cpus import usable_cpus
from bench.core.errors import InputError, StopSignal, is_out_of_memory
from bench.core.file_modules import file_module_name
from bench.core.import_path import add_working_folder
from bench.core.model_name import is_file_name, is_registered_name
from bench.core.process import ReplyPipe, read_request
from bench.core.registry import MEASURES, MODELS, MeasureEntry, import_plugins
from bench.core.schema import Case, Environment, Failure, Frozen, Json, Metric, RecordWarning, Status
from bench.measure.context import CaseContext
from bench.measure.execution_mode import absence
from bench.measure.parity import needs_parity
from bench.measure.timing.case_process import select_device
from bench.measure.timing.turn_taking import process_turns
from bench.runner.disturbance import check_timings, is_timed, watch_disturbance, watch_processors
from bench.runner.environment import describe_environment, read_constant_facts


class WorkerRequest(Frozen):
    """A case, and the folders of its files."""

    case: Case
    artifacts: str
    recipes: tuple[str, ...] = ()
    session: str = ""
    log: str = ""


class WorkerResult(Frozen):
    """The result of one run of a case."""

    status: Status
    metrics: tuple[Metric, ...] = ()
    details: dict[str, Json] = Field(default_factory=dict)
    uncounted_operators: dict[str, int] = Field(default_factory=dict)
    environment: Environment = Environment()
    warnings: tuple[RecordWarning, ...] = ()
    error: Failure | None = None
    artifacts: dict[str, str] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)


def preload() -> None:
    """Import what cases that are not timed need, in the process from which their workers are forked.

    No code of the user, which may change, and nothing that starts a thread or asks for a device: even
    `torch.cuda.is_available` would keep CUDA from forked processes.
    """
    import torch.fx.experimental.symbolic_shapes  # noqa: F401  # imports sympy, which the first convolution on meta needs

    import bench.measure.counting.case_counts
    import bench.measure.counting.counters.run_counters
    import bench.measure.counting.published_costs
    import bench.models.factory
    import bench.models.weights.loading  # noqa: F401

    list(MODELS)
    list(MEASURES)
    read_constant_facts()


def preload_timed() -> None:
    """Import what timed cases need, in an interpreter that waits for one."""
    import torch  # noqa: F401

    import bench.measure.timing.canary
    import bench.measure.timing.parity_check
    import bench.models.factory  # noqa: F401

    list(MODELS)
    list(MEASURES)
    read_constant_facts()


def main() -> None:
    """Measure the case of the request on standard input and send the result; exits with 1 if a rank fails.

    Of several ranks that share a case, the first sends the result.
    """
    add_working_folder()
    request, rank = WorkerRequest.model_validate(read_request()), int(os.environ.get("RANK", "0"))
    reply = ReplyPipe()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores in commands that end with &
    for wanted in (signal.SIGTERM, signal.SIGUSR2):  # a cluster may signal every process of a job, not only the first
        signal.signal(wanted, _stop)
    turns = process_turns()  # connects here, so that no child process inherits the address of the relay
    case = CaseContext(
        request.case,
        artifacts=Path(request.artifacts),
        recipes=tuple(Path(folder) for folder in request.recipes),
        session=request.session,
        on_progress=lambda text, fraction: None if rank else reply.send(kind="progress", text=text, fraction=fraction),
    )
    result = measure_case(case, rank=rank)
    turns.close()
    if not rank:
        reply.send(kind="outcome", outcome=result.model_dump(mode="json"))
    elif result.error:
        sys.exit(f"{result.error.traceback}\nvbench: {result.error.message}")


def _stop(number: int, frame: object) -> None:
    raise StopSignal(number)


def measure_case(case: CaseContext, *, rank: int = 0, has_canary: bool = True) -> WorkerResult:
    """Take every measure of `case` in order. The first that fails ends the case; earlier metrics are kept.

    A `rank` other than the first takes only the measures that several processes share. Without `has_canary` the canary,
    which takes about a second on a GPU, does not run around timed measures.
    """
    metrics: list[Metric] = []
    seconds: dict[str, float] = {}
    failed: dict[str, Any] = {}
    status: Status = "ok"
    try:
        _prepare(case)
        with watch_disturbance(case) if has_canary and is_timed(case) else nullcontext():
            measures = _measures_of(case, rank=rank)
            case.note("measure_versions", {name: MEASURES.get(name).version for name in measures})
            for name, options in measures.items():
                case.progress(name, None)
                started = time.perf_counter()
                measure = MEASURES.get(name)
                with _timed(case, name) if measure.is_timed else nullcontext():
                    metrics += _as_declared(case, measure, measure.function(case, **options))
                seconds[name] = round(time.perf_counter() - started, 3)
        if source := _source_of(case):
            case.note("model_source", source)
        if paper := MODELS.get(case.point.model).paper if case.point.model in MODELS else "":
            case.note("model_paper", paper)
        status = check_timings(case, metrics)
    except Exception as error:  # whatever a model raises ends its case, not the suite
        failed = {"status": _status_of(error), "error": failure_of(error)}
    except KeyboardInterrupt as stop:  # Ctrl-C in the parent; a training has saved its state by now
        failed = {"status": "interrupted", "error": failure_of(stop)}
    return WorkerResult(
        **{"status": status, **failed},
        metrics=tuple(metrics),
        details=case.details,
        uncounted_operators=case.uncounted_operators,
        environment=describe_environment(device=_device_of(case), model_file=_file_of(case)),
        warnings=tuple(case.warnings),
        artifacts=case.kept,
        seconds=seconds,
    )


@contextmanager
def _timed(case: CaseContext, measure: str) -> Iterator[None]:
    with process_turns().held(), watch_processors(case, measure):
        yield


def _as_declared(case: CaseContext, measure: MeasureEntry, found: Sequence[Metric]) -> Sequence[Metric]:
    """Return `found`, with a warning for each metric that its measure, which declares others, does not declare so."""
    declared = {(spec.name, spec.unit, spec.better) for spec in measure.metrics}
    for name, unit, better in sorted({(m.name, m.unit, m.better) for m in found} - declared, key=str):
        if declared:
            case.warn(
                f"measure {measure.name} does not declare {name} with unit {unit!r} and better {better!r}",
                f"add a MetricSpec to its register_measure, else reports show {name} without title and meaning",
            )
    return found


def failure_of(error: BaseException) -> Failure:
    """`error` as it is stored in a record: type, message and the last 20 lines of the traceback."""
    trace = "".join(traceback.format_exception(error)).splitlines()[-20:]
    message = str(error).strip() or type(error).__name__
    return Failure(type=type(error).__name__, message=message[:2000], traceback="\n".join(trace))


def _measures_of(case: CaseContext, *, rank: int = 0) -> dict[str, dict[str, Json]]:
    """The measures of the case. A timed execution mode is compared with the plain one last, by `parity`."""
    measures = case.case.measures
    if rank:
        return {name: options for name, options in measures.items() if MEASURES.get(name).is_shared}
    if is_timed(case) and needs_parity(case.point):
        others = {name: options for name, options in measures.items() if name != "parity"}
        return {**others, "parity": measures.get("parity", {})}
    return measures


def _prepare(case: CaseContext) -> None:
    import torch

    absent = absence(case.point.device or "", gpus=torch.cuda.device_count())
    if absent is not None:
        raise InputError(absent)
    select_device(case.point.device)
    import_plugins(case.case.plugins)
    case.artifacts.mkdir(parents=True, exist_ok=True)
    if case.point.threads is not None:
        torch.set_num_threads(case.point.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        # torch counts processors, not the container's quota; threads beyond it wait for each other at every barrier.
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))


def _device_of(case: CaseContext) -> str | None:
    """The device to describe; that of the point if torch could not be loaded, which is then the error to report."""
    return case.device if "torch" in sys.modules else case.point.device


def _file_of(case: CaseContext) -> str | None:
    """The source file of the case's model, if it is known without building the model."""
    name = case.point.model.partition(":")[0]
    if is_registered_name(case.point.model):
        module = inspect.getmodule(MODELS.get(name).function) if name in MODELS else None
    else:
        module = sys.modules.get(file_module_name(name) if is_file_name(name) else name)
    return getattr(module, "__file__", None)


def _source_of(case: CaseContext) -> str | None:
    """Where the model's factory is written, as `file:line`, if that is below the working folder."""
    name, _, factory = case.point.model.partition(":")
    if factory:
        function = getattr(sys.modules.get(name), factory, None)
    else:
        function = MODELS.get(name).function if name in MODELS else None
    try:
        file, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]  # type: ignore[arg-type]
        return f"{Path(file or '').resolve().relative_to(Path.cwd().resolve())}:{line}"
    except (TypeError, OSError, ValueError):  # no function with source, or it is elsewhere
        return None


def _status_of(error: BaseException) -> Status:
    return "oom" if is_out_of_memory(error) else "error"


if __name__ == "__main__":
    main()
