"""Sends each record to a tracker (`--sink mlflow:URI`) once it is stored. A tracker that fails costs one warning.

Records are sent by a thread, for which the run waits a few seconds between two cases: what is sent must neither disturb
the next timing nor stop the run.
"""

import pkgutil
import queue
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from bench.core.errors import InputError, MissingPackageError, UnknownNameError
from bench.core.schema import Json, Record
from bench.runner import sinks

SEND_S = 20.0  # for one record
CONNECT_S = 60.0  # for the first one, which imports the package of the tracker


class Sender(Protocol):
    """A connection to a tracker. An error of its methods ends it with a warning."""

    def send(self, record: Record) -> None: ...

    def close(self) -> None: ...


class Sink:
    """A tracker that gets a copy of each record, such as `mlflow:http://localhost:5000`.

    Raises InputError for another form, UnknownNameError, and MissingPackageError if its package is not installed.
    """

    def __init__(self, text: str) -> None:
        name, _, self._target = text.partition(":")
        known = sink_names()
        if name not in known:
            raise UnknownNameError("tracker", name, known, where="--sink")
        self.name, module = name, import_module(f"{sinks.__name__}.{name}")
        if not self._target:
            raise InputError(f"--sink {text!r} needs {module.TARGET}, after '{name}:'")
        if find_spec(module.PACKAGE) is None:
            raise MissingPackageError(
                module.PACKAGE, needed_for=f"--sink {name}", install=f"pip install 'vbench-video[{module.EXTRA}]'"
            )
        self._open: Callable[..., Sender] = module.Sender
        self._records: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._is_idle = threading.Event()
        self._error: BaseException | None = None
        self._is_off = self._is_connected = False
        self._lock = threading.Lock()

    def start(self, suite: str) -> None:
        """Start the thread; nothing is connected before the first record."""
        # A daemon: a connection that hangs must not keep the command from ending.
        threading.Thread(target=self._work, args=(suite,), daemon=True, name=f"sink {self.name}").start()

    def add(self, record: Record) -> str | None:
        """Send one record; returns a warning the first time that this fails, and then nothing is sent any more."""
        with self._lock:  # lanes finish cases at the same time
            if self._is_off:
                return None
            self._is_idle.clear()
            self._records.put(record)
            limit_s = SEND_S if self._is_connected else CONNECT_S
            if self._is_idle.wait(limit_s) and self._error is None:
                self._is_connected = True
                return None
            self._is_off = True
        why = f"{type(self._error).__name__}: {self._error}" if self._error else f"no answer within {limit_s:g} s"
        line = " ".join(why.split())[:300]
        return f"--sink {self.name}: {line}; nothing more is sent to it, and the records are in the results folder"

    def close(self) -> None:
        """Let the thread end; waits a few seconds for it."""
        self._is_idle.clear()
        self._records.put(None)
        if not self._is_off:
            self._is_idle.wait(SEND_S)

    def _work(self, suite: str) -> None:
        sender: Sender | None = None
        try:
            while (record := self._records.get()) is not None:
                sender = sender or self._open(self._target, suite=suite)
                sender.send(record)
                self._is_idle.set()
            if sender is not None:
                sender.close()
        except BaseException as error:  # packages of trackers raise everything, SystemExit included
            self._error = error
        self._is_idle.set()


def sink_names() -> list[str]:
    """The names of the trackers: each file in `bench/runner/sinks/` is one."""
    return sorted(module.name for module in pkgutil.iter_modules(sinks.__path__))


def open_sinks(texts: Sequence[str]) -> tuple[Sink, ...]:
    """The sinks that `--sink` names; raises as `Sink` does, before anything runs."""
    return tuple(Sink(text) for text in texts)


def parameters_of(record: Record) -> dict[str, Json]:
    """The axes of a record's case, its run and the machine, each with its own name."""
    hardware = record.environment.hardware
    machine = {name: hardware.get(name) for name in ("gpu", "cpu") if hardware.get(name) is not None}
    return {**record.case.point.named(), "run": record.run_index, **machine}


def known_metrics(record: Record) -> dict[str, float]:
    """The metrics that have a value, by name with labels; trackers cannot store an unknown value."""
    return {metric.key: float(metric.value) for metric in record.metrics if metric.value is not None}
