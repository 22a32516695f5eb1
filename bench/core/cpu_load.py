"""What the processors did during a period: this process tree, other processes, the hypervisor, the CPU quota.

Read from /proc and the control groups of Linux. On other systems, and if a file is missing, the values are None.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.core.cpus import CGROUPS, OWN_CGROUPS, allowed_cpus, cpu_groups
from bench.core.schema import Json

PROC = Path("/proc")
# Below these, every idle machine has as much: its own services, and a scheduler that moves processes.
FEW_CORES = 0.1
FEW_SWITCHES_PER_S = 50.0
FEW_SHARE = 0.01

LEAVE_CORES = "stop the other processes, wait for them with --wait-idle, or use fewer threads (axis `threads`)"
PASSIVE = "OMP_WAIT_POLICY=passive keeps threads that wait for each other from holding their cores"


@dataclass(frozen=True, kw_only=True)
class CpuCounters:
    """Counters since boot, in seconds over all usable processors. `own_s` is the processor time of a process tree."""

    at_s: float
    busy_s: float | None = None
    stolen_s: float | None = None
    own_s: float | None = None
    involuntary_switches: int | None = None
    throttled_s: float | None = None

    @classmethod
    def read(
        cls, *, root_pid: int | None = None, proc: Path = PROC, cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS
    ) -> "CpuCounters":
        """The counters now; the own process tree starts at `root_pid`, by default this process."""
        busy_s, stolen_s = _machine_s(proc)
        return cls(
            at_s=time.monotonic(),
            busy_s=busy_s,
            stolen_s=stolen_s,
            own_s=_tree_s(os.getpid() if root_pid is None else root_pid, proc),
            involuntary_switches=_involuntary_switches(),
            throttled_s=_throttled_s(cgroups, own),
        )


@dataclass(frozen=True, kw_only=True)
class CpuLoad:
    """The load of a period of `seconds` on `cores` usable processors; loads are in cores, None if unknown.

    `others` is what processes outside the own tree used, `stolen` what the hypervisor gave to other machines,
    `throttled` the share of the period in which the CPU quota stopped processes of the control group.
    """

    seconds: float
    cores: int
    own: float | None
    others: float | None
    stolen: float | None
    throttled: float | None
    switches_per_s: float | None

    @classmethod
    def between(cls, before: CpuCounters, after: CpuCounters, *, cores: int | None = None) -> "CpuLoad":
        """The load from `before` to `after`."""
        seconds = max(after.at_s - before.at_s, 1e-9)

        def rate(name: str) -> float | None:
            start, end = getattr(before, name), getattr(after, name)
            return None if start is None or end is None else max(0.0, (end - start) / seconds)

        busy, own = rate("busy_s"), rate("own_s")
        return cls(
            seconds=seconds,
            cores=allowed_cpus() if cores is None else cores,
            own=own,
            others=None if busy is None or own is None else max(0.0, busy - own),
            stolen=rate("stolen_s"),
            throttled=rate("throttled_s"),
            switches_per_s=rate("involuntary_switches"),
        )

    def as_dict(self) -> dict[str, Json]:
        """The load for a record, with unit in the names and rounded to what the counters resolve."""
        named = {
            "own_cores": self.own,
            "other_cores": self.others,
            "stolen_cores": self.stolen,
            "quota_throttled_share": self.throttled,
            "involuntary_switches_per_s": self.switches_per_s,
        }
        rounded = {name: None if value is None else round(value, 3) for name, value in named.items()}
        return {"seconds": round(self.seconds, 3), "usable_cores": self.cores, **rounded}

    def disturbances(self, *, threads: int) -> dict[str, str]:
        """What disturbed a process that runs `threads` threads, each with its remedy; empty if nothing did.

        Other processes disturb only if they and the threads need more cores than there are.
        """
        found: dict[str, str] = {}
        missing = 0.0 if self.others is None else self.others + min(threads, self.cores) - self.cores
        switches = self.switches_per_s or 0.0
        if self.others is not None and missing > FEW_CORES:
            found[f"other processes used {self.others:.1f} of {self.cores} cores"] = f"{LEAVE_CORES}; {PASSIVE}"
        if self.stolen is not None and self.stolen > FEW_SHARE * self.cores:
            text = f"the hypervisor took {self.stolen / self.cores:.0%} of the processor time (steal)"
            found[text] = "use a machine whose processors are not shared, or measure again later"
        if self.throttled is not None and self.throttled > FEW_SHARE:
            text = f"the CPU quota stopped the process in {self.throttled:.0%} of the time"
            found[text] = "use fewer threads than the quota allows, or raise the quota"
        if switches > FEW_SWITCHES_PER_S:
            remedy = "" if found else f"use fewer threads (axis `threads`); {PASSIVE}"
            found[f"the scheduler interrupted it {switches:.0f} times per second"] = remedy
        return found


def _machine_s(proc: Path) -> tuple[float | None, float | None]:
    """Seconds that the usable processors worked, and that the hypervisor took from them, since boot."""
    try:
        lines = (proc / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    usable = {f"cpu{number}" for number in allowed}
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    busy = stolen = 0
    for line in lines:
        name, *ticks = line.split()
        if name in usable and len(ticks) >= 8:
            # user nice system idle iowait irq softirq steal; guest time is part of user time
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return busy / ticks_per_s, stolen / ticks_per_s


def _tree_s(root_pid: int, proc: Path) -> float | None:
    """Processor time of a process and its descendants, those that have ended included."""
    if not (proc / "stat").is_file():
        return None
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):  # the process ended meanwhile
                text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                fields = text.rpartition(")")[2].split()  # after the name, which may contain spaces and parentheses
                parents[int(folder.name)] = int(fields[1])
                ticks[int(folder.name)] = sum(map(int, fields[11:15]))  # utime, stime, and of children waited for
    return sum(used for pid, used in ticks.items() if _is_below(pid, root_pid, parents)) / os.sysconf("SC_CLK_TCK")


def _is_below(pid: int, root_pid: int, parents: Mapping[int, int]) -> bool:
    while pid != root_pid and pid in parents:
        pid = parents[pid]
    return pid == root_pid


def _involuntary_switches() -> int | None:
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _throttled_s(root: Path, own: Path) -> float | None:
    """Seconds for which CPU quotas stopped this process's control groups; None if no group has a quota's counters."""
    found: list[float] = []
    for folder in dict.fromkeys(cpu_groups(root, own)):
        with suppress(OSError, ValueError):
            lines = (folder / "cpu.stat").read_text(encoding="ascii").splitlines()
            counters = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
            if "throttled_usec" in counters:  # version 2
                found.append(counters["throttled_usec"] / 1e6)
            elif "throttled_time" in counters:  # version 1, in nanoseconds
                found.append(counters["throttled_time"] / 1e9)
    return max(found, default=None)
