"""Runs a function on the same case in a child process: the request, the case on the other side, and one reply."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.core.cpus import usable_cpus
from bench.core.errors import InputError, mentions_out_of_memory
from bench.core.import_path import environment_with_import_path
from bench.core.process import ChildProcess, ChildTimeoutError, Process
from bench.core.registry import import_plugins
from bench.core.schema import Case
from bench.measure.context import CaseContext


def case_request(case: CaseContext) -> dict[str, Any]:
    """What a child process needs to load the same case."""
    return {"case": case.case.model_dump(mode="json"), "device": case.device}


def select_device(device: str | None) -> None:
    """Make `cuda:N` the current device of this process, if a number is given.

    What ignores the device of its tensors (pinned memory, kernels of other packages) would use GPU 0: at best that
    disturbs the case that runs there.
    """
    import torch  # late: a cold start times this import

    if device is not None and torch.device(device).type == "cuda" and torch.device(device).index is not None:
        torch.cuda.set_device(device)


def case_from_request(request: Mapping[str, Any]) -> CaseContext:
    """In the child: the case, with its plug-ins imported and torch's threads set."""
    import torch  # late: a cold start times this import

    case = Case.model_validate(request["case"])
    select_device(request["device"])
    import_plugins(case.plugins)
    if case.point.threads is not None:
        torch.set_num_threads(case.point.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))  # as in the worker
    pinned = case.model_copy(update={"point": case.point.model_copy(update={"device": request["device"]})})
    return CaseContext(pinned, artifacts=Path())


def run_in_child(
    function: str,
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    what: str,
    environment: Mapping[str, str] | None = None,
    start: Callable[..., Process] | None = None,
) -> dict[str, Any]:
    """The reply of `function` (`module:name`), which runs in a child process that has the device to itself.

    `start`, if given, starts it; it takes the arguments of `subprocess.Popen`. Raises InputError if the child, which
    the message calls `what`, dies or does not reply within `timeout_s`, and MemoryError if it dies of exhausted memory.
    """
    from bench.measure.timing.forward import free_device_memory  # late: imports torch, which the child times

    free_device_memory()
    child_environment = {**environment_with_import_path(), **(environment or {})}
    with ChildProcess(function, request, environment=child_environment, start=start) as child:
        try:
            reply = next(child.messages(timeout_s=timeout_s), None)
        except ChildTimeoutError:
            raise InputError(f"the {what} did not end within {timeout_s:g} s; raise its timeout_s") from None
        if reply is None:
            message = f"the {what} ended with code {child.end()}: {child.last_error()}"
            raise MemoryError(message) if mentions_out_of_memory(message) else InputError(message)
    return reply
