"""Starts a case in a process that knows nothing yet, with compiler caches of its own that are empty."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.errors import InputError
from bench.measure.loaded import LoadedCase


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


def start_cold(case: LoadedCase, *, timeout_s: float) -> ColdStart:
    """Start the case once. InputError where its process dies, with the last thing that it said."""
    with TemporaryDirectory(prefix="vbench-cold-") as folder:
        answer = Path(folder) / "answer.json"
        request = {"case": case.case.model_dump(mode="json"), "device": case.device, "answer": str(answer)}
        command = [sys.executable, "-m", "bench.measure.timing.cold_child"]
        asked = json.dumps({**request, "spawned_s": time.monotonic()})
        try:
            child = subprocess.run(
                command,
                input=asked,
                env=_surroundings(folder),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"the cold start did not end within {timeout_s:g} s; raise its timeout_s") from None
        if not answer.is_file():
            raise InputError(f"the cold process ended with code {child.returncode}: {_last_line(child.stderr)}")
        return ColdStart(**json.loads(answer.read_text(encoding="utf-8")))


def _surroundings(folder: str) -> dict[str, str]:
    """The child finds the modules that we find, and nothing that a compiler left behind."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
    return {**os.environ, **caches, "PYTHONPATH": path}


def _last_line(text: str) -> str:
    return next(iter(reversed(text.strip().splitlines())), "it said nothing")
