"""One question to a fresh process: a request on its standard input, the answer in a file, one line if it fails."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.core.cpus import usable_cpus
from bench.core.errors import InputError, last_line, mentions_out_of_memory
from bench.core.import_path import environment_with_import_path
from bench.core.process import ChildTimeoutError, run_supervised
from bench.core.registry import import_plugins
from bench.core.schema import Case
from bench.measure.context import CaseContext
from bench.measure.timing.variants import release


def request_of(case: CaseContext) -> dict[str, Any]:
    """What a child must be told to load the same case."""
    return {"case": case.case.model_dump(mode="json"), "device": case.device}


def case_of(request: Mapping[str, Any]) -> CaseContext:
    """The case in the child: its plugins imported, its device and threads set."""
    import torch

    case = Case.model_validate(request["case"])
    import_plugins(case.plugins)
    if case.point.threads is not None:
        torch.set_num_threads(case.point.threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))  # as in the worker
    pinned = case.model_copy(update={"point": case.point.model_copy(update={"device": request["device"]})})
    return CaseContext(pinned, artifacts=Path())


def ask_child(
    module: str,
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    what: str,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `python -m module` writes into the file that `request["answer"]` names for it. The device is left to it.

    InputError where it does not end in time or dies, with the last thing that it said; `what` names it there.
    MemoryError where that was for want of memory.
    """
    release()
    with TemporaryDirectory(prefix="vbench-answer-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            child = run_supervised(
                [sys.executable, "-m", module],
                stdin=json.dumps({**request, "answer": str(answer)}).encode(),
                environment={**environment_with_import_path(), **(environment or {})},
                timeout_s=timeout_s,
            )
        except ChildTimeoutError:
            raise InputError(f"the {what} did not end within {timeout_s:g} s; raise its timeout_s") from None
        if not answer.is_file():
            said = f"the {what} ended with code {child.returncode}: {last_line(child.stderr)}"
            raise MemoryError(said) if mentions_out_of_memory(said) else InputError(said)
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
