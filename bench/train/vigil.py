"""Each of several processes tells the others that it is alive, so that none waits for one that died.

They meet at the store that `torch.distributed` began with. A thread counts up this rank's beats there and looks at
those of the others, whatever the main thread waits for.
"""

import os
import sys
import threading
import time

import torch.distributed as dist

from bench.core.errors import TrainingError
from bench.train.meeting import meeting

BEAT_S = 1.0
SUSPECTED_S = 6.0  # without a beat, once a collective operation has failed
GRACE_S = 10.0  # for the main thread to end by an error of its own
ANSWER_S = 5.0  # for one question to the store
WORDS = ("gloo", "nccl", "connection", "socket", "timed out", "timeout")  # torch has no type for all of them


class Vigil:
    """Watches over `world` processes of which this is `rank`; one that is silent for `dead_after_s` has died.

    Where the main thread is stuck in a collective operation with a dead rank, this process ends with the exit code of
    TrainingError and a line on standard error.
    """

    def __init__(self, *, rank: int, world: int, dead_after_s: float) -> None:
        self._rank, self._others, self._world = rank, [r for r in range(world) if r != rank], world
        self._dead_after_s = dead_after_s
        self._beats = dict.fromkeys(self._others, 0)
        self._seen = dict.fromkeys(self._others, time.monotonic())
        self._store = meeting("vigil", timeout_s=ANSWER_S)
        self._found: str | None = None
        self._is_found, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vbench-vigil", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._is_over.set()
        self._thread.join()

    def explain(self, error: BaseException) -> str | None:
        """Which other rank is to blame for `error`, with its own error where it could tell; None where this one is.

        An error of this rank's own is told to the others first.
        """
        if self._found is None and not is_of_distribution(error):
            self._tell(error)
            return None
        self._dead_after_s = min(self._dead_after_s, SUSPECTED_S)
        self._is_found.wait(SUSPECTED_S + GRACE_S)
        return self._found

    def _tell(self, error: BaseException) -> None:
        text = " ".join(str(error).split())
        try:
            self._store.set(f"failed/{self._rank}", f"{type(error).__name__}: {text}"[:1000])
        except RuntimeError:
            return
        time.sleep(2 * BEAT_S)  # the store may end with this process, so the others are given time to read it

    def _watch(self) -> None:
        while not self._is_over.wait(BEAT_S):
            self._found = self._look()
            if self._found is None:
                continue
            self._is_found.set()
            if not self._is_over.wait(SUSPECTED_S + GRACE_S):
                print(f"vbench: {self._found}", file=sys.stderr, flush=True)
                os._exit(TrainingError.exit_code)
            return

    def _look(self) -> str | None:
        """What is wrong with another rank, or None."""
        try:
            self._store.add(f"beat/{self._rank}", 1)
            return next(filter(None, map(self._look_at, self._others)), None)
        except RuntimeError:
            return f"rank 0 of {self._world} died, or the launcher: the store that they held is not there any more"

    def _look_at(self, rank: int) -> str | None:
        if self._store.check([f"failed/{rank}"]):
            return f"rank {rank} of {self._world} failed: {self._store.get(f'failed/{rank}').decode()}"
        now, beats = time.monotonic(), self._store.add(f"beat/{rank}", 0)
        if beats != self._beats[rank]:
            self._beats[rank], self._seen[rank] = beats, now
        silent_s = now - self._seen[rank]
        if silent_s <= self._dead_after_s:
            return None
        return f"rank {rank} of {self._world} died: nothing was heard of it for {silent_s:.0f} s"


def is_of_distribution(error: BaseException) -> bool:
    """Whether an error speaks of the processes' connection, and so may be another rank's doing."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and any(word in str(error).lower() for word in WORDS)
