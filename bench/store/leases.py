"""Leases on the runs of a results folder that several workers share: who works on what, and who has stopped.

A lease is a small file that its worker touches while it works. Nothing here needs flock, so that folders on NFS can be
shared. All times are of the file system's clock, since clocks of machines differ.
"""

import dataclasses
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from secrets import token_hex

import psutil
from pydantic import TypeAdapter

from bench.store.lines import store_errors

LEASES = "leases"
LOCAL = "local"  # the worker that holds the folder alone
BEAT_S = 10.0
EXPIRES_S = 60.0  # six missed heartbeats: attribute caches of NFS alone may hide a touch for up to 60 s


@cache
def process_namespace() -> str:
    """Return what the processes share that this one can see: a start of a machine, or a container on it.

    Host names do not tell: containers may have that of their machine, and machines of one image all the same.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


@dataclass(frozen=True, kw_only=True)
class LeaseFacts:
    """Who works on a run: `attempt` is unique, `losses` counts earlier attempts whose worker stopped responding."""

    case_id: str
    run_index: int
    worker: str
    title: str = ""
    job: str = ""
    attempt: str = field(default_factory=lambda: token_hex(8))
    losses: int = 0
    host: str = field(default_factory=socket.gethostname)
    namespace: str = field(default_factory=process_namespace)
    process: int = field(default_factory=os.getpid)
    process_started: float = field(default_factory=lambda: psutil.Process().create_time())
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def is_orphaned(self) -> bool:
        """Whether the worker was a process of this machine that has ended."""
        if (self.host, self.namespace) != (socket.gethostname(), process_namespace()):
            return False
        try:
            return psutil.Process(self.process).create_time() != self.process_started
        except (psutil.NoSuchProcess, ValueError):  # ValueError: no number of a process
            return True
        except psutil.Error:
            return False


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """A lease and the seconds since its last heartbeat."""

    facts: LeaseFacts
    silent_s: float

    @property
    def run(self) -> tuple[str, int]:
        return self.facts.case_id, self.facts.run_index

    @property
    def has_expired(self) -> bool:
        return self.silent_s > EXPIRES_S or self.facts.is_orphaned


class Lease:
    """A run that this worker holds; `is_held` turns False if another worker took it over."""

    def __init__(self, file: Path, facts: LeaseFacts) -> None:
        self.file = file
        self.facts = facts

    @property
    def is_held(self) -> bool:
        found = _read(self.file)
        return found is not None and found.attempt == self.facts.attempt

    def beat(self) -> None:
        """Touch the lease; after an error of a busy file system the next heartbeat tries again."""
        if self.is_held:
            with suppress(OSError):
                os.utime(self.file)

    def release(self) -> None:
        if self.is_held:
            self.file.unlink(missing_ok=True)

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Touch the lease from a thread every `BEAT_S` seconds; it is released at the end, also after an error."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(BEAT_S):
                self.beat()

        thread = threading.Thread(target=run, name="lease heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()


class Leases:
    """All leases of a results folder, for one `worker`; `job` is its job of a cluster."""

    def __init__(self, folder: Path, *, worker: str, job: str = "") -> None:
        self.folder = folder / LEASES
        self.worker = worker
        self.job = job
        self._clock: tuple[float, float] | None = None  # monotonic time of this machine, time of the file system

    def take(self, case_id: str, run_index: int, *, title: str = "") -> Lease | None:
        """Return the lease on a run, or None if another worker holds it. An expired lease is taken over.

        Creating a file exclusively and replacing one are atomic on NFS too, so that one of several workers wins.
        """
        with store_errors(self.folder, "written"):
            file = self.folder / f"{case_id}-{run_index}.json"
            facts = LeaseFacts(case_id=case_id, run_index=run_index, worker=self.worker, title=title, job=self.job)
            if self._create(file, facts):
                return Lease(file, facts)
            state = self._state(file)
            if state is None or not state.has_expired:
                return None
            is_resumed = self.worker == LOCAL and state.facts.worker == LOCAL  # the user killed it and began again
            facts = dataclasses.replace(facts, losses=state.facts.losses + (not is_resumed))
            with self._alone_on(file, state.facts) as is_alone:
                if is_alone:  # replaced and not removed, or a third worker could create its own in between
                    new = self.folder / f".new-{facts.attempt}"
                    new.write_bytes(_bytes_of(facts))
                    new.replace(file)
            return Lease(file, facts) if is_alone else None

    def states(self) -> list[LeaseState]:
        """The leases of all workers, ordered by the start of their work."""
        with store_errors(self.folder, "read"):
            files = sorted(self.folder.glob("*.json")) if self.folder.is_dir() else []
            found = [state for file in files if (state := self._state(file)) and state.facts.attempt]
        return sorted(found, key=lambda state: state.facts.started_at)

    def remove_expired(self) -> None:
        """Remove the leases of workers that were killed after they had stored their result."""
        with store_errors(self.folder, "written"):
            for state in self.states():
                if state.has_expired:
                    file = self.folder / f"{state.facts.case_id}-{state.facts.run_index}.json"
                    with self._alone_on(file, state.facts) as is_alone:
                        if is_alone:
                            file.unlink(missing_ok=True)

    def _create(self, file: Path, facts: LeaseFacts) -> bool:
        """Create a lease; False if there is one."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            descriptor = os.open(file, flags, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the first lease of all; looking for the folder each time is a third of the load
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._create(file, facts)
        with open(descriptor, "wb") as opened:
            opened.write(_bytes_of(facts))
        return True

    def _state(self, file: Path) -> LeaseState | None:
        now = self._now()
        with suppress(OSError), file.open("rb") as opened:  # one file, or its time may be that of the lease before
            facts = _facts_of(opened.read()) or _unknown_facts(file)
            silent_s = max(0.0, now - os.fstat(opened.fileno()).st_mtime)
            return LeaseState(facts=facts, silent_s=silent_s)
        return None

    def _now(self) -> float:
        """The present time of the file system that holds the leases; its clock is read once a minute."""
        if self._clock is None or time.monotonic() - self._clock[0] > EXPIRES_S:
            file = self.folder / ".clock"
            try:
                file.touch()
                now = file.stat().st_mtime
            except OSError:  # a folder that is only read: its machine's clock is the best there is
                now = datetime.now(UTC).timestamp()
            self._clock = time.monotonic(), now
        asked, then = self._clock
        return then + time.monotonic() - asked

    @contextmanager
    def _alone_on(self, file: Path, expired: LeaseFacts) -> Iterator[bool]:
        """Whether only this worker may replace or remove an expired lease in the block, and it is still that lease."""
        taking = file.with_suffix(".taking")
        try:
            os.close(os.open(taking, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            with suppress(FileNotFoundError):
                if self._now() - taking.stat().st_mtime > EXPIRES_S:  # of a worker that was killed in its block
                    taking.unlink()
            yield False
            return
        try:
            found = self._state(file)
            yield found is not None and found.has_expired and found.facts.attempt == expired.attempt
        finally:
            taking.unlink(missing_ok=True)


def _bytes_of(facts: LeaseFacts) -> bytes:
    return json.dumps(asdict(facts)).encode()


def _read(file: Path) -> LeaseFacts | None:
    """The facts of a lease; None if there is no such file or it is only just being written."""
    try:
        return _facts_of(file.read_bytes())
    except OSError:
        return None


@cache
def _lease_facts() -> TypeAdapter[LeaseFacts]:
    return TypeAdapter(LeaseFacts)


def _facts_of(content: bytes) -> LeaseFacts | None:
    try:
        return _lease_facts().validate_json(content)
    except ValueError:
        return None


def _unknown_facts(file: Path) -> LeaseFacts:
    """Facts of a lease that is being written, or that a crash of its machine left empty; it expires like any other."""
    case_id, _, index = file.stem.rpartition("-")
    return LeaseFacts(
        case_id=case_id,
        run_index=int(index) if re.fullmatch(r"[0-9]{1,9}", index) else 0,
        worker="unknown",
        attempt="",
        host="",
        namespace="",
        process=0,
        process_started=0.0,
        started_at="",
    )
