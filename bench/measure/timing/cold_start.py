"""Starts a case in a process that knows nothing yet, with compiler caches of its own that are empty."""

import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from bench.measure.context import CaseContext
from bench.measure.timing.child import ask_child, request_of

CHILD = "bench.measure.timing.cold_child"


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Seconds of each stretch from the start of the process on; `steady_step_s` is the fastest of three later steps.

    `prepare_s` is what an engine takes to be made ready; torch's own compiler works in the first step.
    """

    interpreter_s: float
    import_s: float
    build_s: float
    prepare_s: float
    first_step_s: float
    steady_step_s: float


def start_cold(case: CaseContext, *, timeout_s: float) -> ColdStart:
    """Start the case once. InputError where its process dies, with the last thing that it said."""
    with TemporaryDirectory(prefix="vbench-cold-") as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        request = {**request_of(case), "spawned_s": time.monotonic()}
        return ColdStart(**ask_child(CHILD, request, timeout_s=timeout_s, what="cold process", environment=caches))
