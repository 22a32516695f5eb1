"""Starts several ranks by torchrun for one question, and says in one line why they did not answer it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from bench.core.errors import TrainingError, last_line, mentions_out_of_memory
from bench.core.import_path import environment_with_import_path
from bench.measure.timing.variants import release

PLACE = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR"}
    | {"MASTER_PORT", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "VBENCH_CALL"}
)
FAREWELL_S = 10.0
# As torchrun tells of the first process that it saw die.
DEATH = re.compile(
    r"Root Cause.*?rank\s*: (?P<rank>\d+).*?traceback : (?P<how>[^\n]+?)(?: received by PID \d+)?\n", re.S
)


def ask_ranks(module: str, request: Mapping[str, Any], *, world: int, threads: int, timeout_s: float) -> dict[str, Any]:
    """What the first of `world` ranks, each `python -m module REQUEST_FILE`, writes where the request's `answer` says.

    The device is left to them. TrainingError where a rank fails or dies, with its error, or where they do not end in
    time; MemoryError where it was for want of memory.
    """
    release()
    with TemporaryDirectory(prefix="vbench-ranks-") as name:
        folder = Path(name)
        failed, answer, asked = folder / "failed", folder / "answer.json", folder / "request.json"
        failed.mkdir()
        asked.write_text(json.dumps({**request, "answer": str(answer), "failed": str(failed)}), encoding="utf-8")
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m", module]
        with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
            arguments = [sys.executable, *command, str(asked)]
            with _running(arguments, _environment(threads=threads), log=log) as launcher:
                try:
                    launcher.wait(timeout=timeout_s)
                except subprocess.TimeoutExpired:
                    why = f"{world} ranks did not end within {timeout_s:g} s; raise timeout_s"
                    raise TrainingError(why) from None
            log.seek(0)
            if launcher.returncode or not answer.is_file():
                raise _failure(why_they_ended(failed, log.read(), world=world))
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def why_they_ended(failed: Path, log: str, *, world: int) -> str:
    """The error that the first rank to fail left in folder `failed`, else how torchrun says that one died."""
    left = sorted(failed.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    if left:
        return " ".join(left[0].read_text(encoding="utf-8").split())
    death = DEATH.search(log)
    if death is not None:
        return f"rank {death['rank']} of {world} died: {death['how']}"
    return last_line(log, otherwise=f"{world} ranks ended without an answer and said nothing")


def _failure(why: str) -> Exception:
    return MemoryError(why) if mentions_out_of_memory(why) else TrainingError(why)


@contextmanager
def _running(
    arguments: list[str], environment: Mapping[str, str], *, log: TextIO
) -> Iterator["subprocess.Popen[bytes]"]:
    """torchrun, which is asked to end its ranks where the block leaves it running."""
    launcher = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            try:
                launcher.wait(timeout=FAREWELL_S)
            except subprocess.TimeoutExpired:
                launcher.kill()
                launcher.wait()


def _environment(*, threads: int) -> dict[str, str]:
    """Ours, but for the place that this process may have among other ranks, and `threads` for each rank."""
    own = {
        name: v
        for name, v in environment_with_import_path().items()
        if name not in PLACE and not name.startswith("TORCHELASTIC_")
    }
    usual = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**usual, **own, "OMP_NUM_THREADS": str(threads)}
