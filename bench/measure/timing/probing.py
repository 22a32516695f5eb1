"""Tries batches in a process of their own: one that runs out of memory is an answer, one that breaks it is replaced."""

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

from bench.core.import_path import environment_with_import_path
from bench.measure.context import CaseContext
from bench.measure.timing.child import request_of
from bench.measure.timing.variants import release

CHILD = "bench.measure.timing.probing_child"


class Prober:
    """Asks a child process for the throughput of a batch. `broken` has what broke a process, by batch.

    A device error that is not for want of memory leaves a process unusable: the next question goes to a fresh one.
    """

    def __init__(self, case: CaseContext, *, module: str = CHILD) -> None:
        self._request = request_of(case)
        self._command = [sys.executable, "-m", module]
        self._child: subprocess.Popen[str] | None = None
        self.broken: dict[int, str] = {}

    def rate(self, batch: int) -> float | None:
        """Clips/s of a short block of passes over `batch` clips; None where it does not fit or breaks its process."""
        answer = self._ask(batch)
        if "clips_per_s" in answer:
            return float(answer["clips_per_s"])
        if answer["error"] != "oom":
            self.broken[batch] = str(answer["error"])
            self.close()
        return None

    def fits(self, batch: int) -> bool:
        """Whether a forward pass over `batch` clips can be done."""
        return self.rate(batch) is not None

    def close(self) -> None:
        """End the child, and with it all that it holds on the device."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def __enter__(self) -> "Prober":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, batch: int) -> dict[str, Any]:
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(f"{batch}\n")
            child.stdin.flush()
        except BrokenPipeError:
            return {"error": f"its process ended with code {child.wait()}"}
        line = child.stdout.readline()
        if not line:
            return {"error": f"its process ended with code {child.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> "subprocess.Popen[str]":
        release()
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            text=True,
            env=environment_with_import_path(),
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(self._request) + "\n")
        return self._child
