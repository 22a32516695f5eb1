"""Starts a case in a fresh process with empty compiler caches, and times each stage up to the first logits.

Everything but the standard library is imported late: the child times its imports.
"""

import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.core.process import ReplyPipe, read_request

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

STEADY_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Seconds of each stage from the start of the process; `steady_step_s` is the fastest of three later steps.

    `prepare_s` is the time to build an engine; torch.compile works in the first step.
    """

    interpreter_s: float
    import_s: float
    build_s: float
    prepare_s: float
    first_step_s: float
    steady_step_s: float


def start_cold(case: "CaseContext", *, timeout_s: float) -> ColdStart:
    """Start the case once in a child process. Raises InputError if that dies or has no result after `timeout_s`."""
    from bench.measure.timing.case_process import case_request, run_in_child

    with TemporaryDirectory(prefix="vbench-cold-") as folder:
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "CUDA_CACHE_PATH": f"{folder}/cuda",  # of the driver, for kernels that it compiles from PTX
        }
        request = {**case_request(case), "spawned_s": time.monotonic()}
        function = f"{__name__}:reply_with_stages"
        return ColdStart(
            **run_in_child(function, request, timeout_s=timeout_s, what="cold process", environment=caches)
        )


def reply_with_stages() -> None:
    """In the child: reply with the seconds of each stage."""
    entered_s = time.monotonic()
    request, reply = read_request(), ReplyPipe()
    seconds = {"interpreter_s": entered_s - request["spawned_s"]}
    started_s = time.monotonic()
    from bench.measure.timing.case_process import case_from_request
    from bench.measure.timing.clocks import synchronize
    from bench.measure.timing.forward import check_outputs, prepare_model

    case = case_from_request(request)
    seconds["import_s"] = time.monotonic() - started_s

    started_s = time.monotonic()
    prepared = prepare_model(case)
    clips = prepared.inputs(case.point.batch or 1)
    synchronize(prepared.device)
    seconds["build_s"] = time.monotonic() - started_s

    started_s = time.monotonic()
    forward = prepared.over(clips)
    forward.synchronize()
    seconds["prepare_s"] = time.monotonic() - started_s

    seconds["first_step_s"] = forward.latency().wall_s
    seconds["steady_step_s"] = min(forward.latency().wall_s for _ in range(STEADY_STEPS))
    check_outputs(case, forward)
    reply.send(**seconds)
