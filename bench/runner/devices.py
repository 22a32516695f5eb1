"""Several devices of one machine: `--devices cuda:0,cuda:1`, and which pending run each may start next."""

import heapq
import os
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.core.errors import InputError
from bench.core.nvml import gpu_names
from bench.core.registry import MEASURES
from bench.core.schema import Case
from bench.runner.idle import is_timed_case

VISIBLE = "CUDA_VISIBLE_DEVICES"
PendingRun = tuple[Case, int]


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A device on which one case runs at a time. Two lanes of the CPU have different numbers."""

    device: str
    number: int = 0

    def __str__(self) -> str:
        return self.device if self.device != "cpu" or not self.number else f"cpu ({self.number + 1})"

    @property
    def is_cpu(self) -> bool:
        return self.device == "cpu"

    def variables(self, case: Case) -> dict[str, str]:
        """Environment variables that show a worker only this device; a case that names a number finds it itself."""
        if case.point.device is not None and ":" in case.point.device:
            return {}
        if self.is_cpu:
            return {} if case.point.device == "cpu" else {VISIBLE: ""}
        return {VISIBLE: _visible_name(int(self.device.partition(":")[2]), os.environ.get(VISIBLE))}


def uses_device(case: Case) -> bool:
    """Whether the case runs on its device, rather than counting on meta; an unknown measure might."""
    return is_timed_case(case) or any(
        MEASURES.get(name).is_repeated or MEASURES.get(name).is_shared for name in case.measures
    )


def machine_facts(lanes: Sequence[Lane] = ()) -> dict[str, Any]:
    """The facts of this machine for `Requirement.unmet`. A case on a lane sees one GPU, or none."""
    names = gpu_names()
    if lanes:
        names = tuple(names[int(lane.device.partition(":")[2])] for lane in lanes if not lane.is_cpu)[:1]
    return {"gpus": names, "memory_bytes": psutil.virtual_memory().total}


def lanes_from_text(text: str, *, gpus: int | None = None) -> tuple[Lane, ...]:
    """Parse `cuda:0,cuda:1`, `all` (every GPU) or `cpu,cpu`; `gpus` is the number that this process may use.

    Raises InputError for another form, a GPU that is not there, and a GPU that is named twice.
    """
    present = len(gpu_names()) if gpus is None else gpus
    names = [name.strip() for name in text.split(",")]
    if names == ["all"]:
        if not present:
            raise InputError("--devices all: there is no GPU here; cpu,cpu runs two cases that are not timed at once")
        names = [f"cuda:{number}" for number in range(present)]
    seen: Counter[str] = Counter()
    lanes = []
    for given in names:
        found = re.fullmatch(r"cpu|cuda:(\d{1,4})", given)
        if found is None:
            raise InputError(f"--devices {text!r}: {given!r} is not cpu or a GPU such as cuda:0; `all` is every GPU")
        name = given if found[1] is None else f"cuda:{int(found[1])}"  # cuda:00 is no second GPU
        if name != "cpu" and int(found[1]) >= present:
            there = ", ".join(f"cuda:{number}" for number in range(present)) or "none"
            raise InputError(f"--devices {text!r}: there is no {name} here; GPUs: {there}")
        if name != "cpu" and seen[name]:
            raise InputError(f"--devices {text!r} names {name} twice; one case at a time runs on a GPU")
        lanes.append(Lane(device=name, number=seen[name]))
        seen[name] += 1
    return tuple(lanes)


def _visible_name(number: int, visible: str | None) -> str:
    """The value of CUDA_VISIBLE_DEVICES that shows only the GPU that is `cuda:number` here."""
    return str(number) if visible is None else visible.split(",")[number].strip()


@dataclass(kw_only=True)
class Schedule:
    """The pending runs of several lanes, in their order.

    A case that is timed on a GPU stays on the lane that takes its first run, so that its repeats, which stay
    interleaved with those of other cases there, are of one device. A case that is timed on the CPU runs alone. Not safe
    for threads.
    """

    runs: Sequence[PendingRun]
    lanes: Sequence[Lane]
    running: dict[Lane, PendingRun] = field(default_factory=dict)
    _free: deque[tuple[int, PendingRun]] = field(default_factory=deque)  # may start on any lane that takes them
    _alone: deque[tuple[int, PendingRun]] = field(default_factory=deque)
    _later: dict[str, list[tuple[int, PendingRun]]] = field(default_factory=dict)  # repeats, by case
    _bound: dict[Lane, list[tuple[int, PendingRun]]] = field(default_factory=dict)  # heaps

    def __post_init__(self) -> None:
        homeless = [case for case, _ in self.runs if not self._lanes_of(case)]
        if homeless:
            wanted = ", ".join(sorted({str(case.point.device) for case in homeless}))
            names = ", ".join(map(str, self.lanes))
            raise InputError(
                f"{homeless[0].title} needs {wanted}, which --devices {names} does not name; add it, or leave the case "
                "out with --only"
            )
        started: set[str] = set()
        for place, (case, index) in enumerate(self.runs):
            entry = (place, (case, index))
            if self._runs_alone(case):
                self._alone.append(entry)
            elif not is_timed_case(case) or case.id not in started:
                started.add(case.id)
                self._free.append(entry)
            else:
                self._later.setdefault(case.id, []).append(entry)

    def _lanes_of(self, case: Case) -> list[Lane]:
        """The lanes that the case may run on: a GPU if it names no device and there is a lane of one."""
        wanted, gpus = case.point.device, [lane for lane in self.lanes if not lane.is_cpu]
        if wanted is None:
            return gpus or list(self.lanes)
        return gpus if wanted == "cuda" else [lane for lane in self.lanes if lane.device == wanted]

    def _runs_alone(self, case: Case) -> bool:
        """Whether the case is timed on the CPU, where every other case would disturb it."""
        return is_timed_case(case) and all(lane.is_cpu for lane in self._lanes_of(case))

    @property
    def has_ended(self) -> bool:
        """Whether no run is left to start."""
        return not (self._free or self._alone or self._later or any(self._bound.values()))

    def next(self, lane: Lane) -> PendingRun | None:
        """Take the run that this lane, which is idle, starts now; None if there is none for it at the moment."""
        if any(self._runs_alone(case) for case, _ in self.running.values()):
            return None
        chosen = self._take_shared(lane)
        if chosen is None and not self.running:
            chosen = next((entry for entry in self._alone if lane in self._lanes_of(entry[1][0])), None)
            if chosen is not None:
                self._alone.remove(chosen)
        if chosen is None:
            return None
        self.running[lane] = chosen[1]
        return chosen[1]

    def _take_shared(self, lane: Lane) -> tuple[int, PendingRun] | None:
        free = next((entry for entry in self._free if lane in self._lanes_of(entry[1][0])), None)
        bound = self._bound.get(lane)
        if bound and (free is None or bound[0][0] < free[0]):
            return heapq.heappop(bound)
        if free is None:
            return None
        self._free.remove(free)
        heap = self._bound.setdefault(lane, [])
        for entry in self._later.pop(free[1][0].id, []):
            heapq.heappush(heap, entry)
        return free

    def finish(self, lane: Lane) -> None:
        """The run of this lane has ended."""
        del self.running[lane]
