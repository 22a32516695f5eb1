"""Waits until the machine is idle before a timed case."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.core.cpu_load import CpuCounters, CpuLoad
from bench.core.errors import InputError
from bench.core.nvml import gpu_busy_share
from bench.core.registry import MEASURES
from bench.core.schema import Case, Record, RecordWarning

WINDOW_S = 1.0
PAUSE_S = 1.0  # between windows, so that the wait itself is no load
BUSY_SHARE = 0.05  # of the processors, or of the GPU's time: an idle desktop stays below


@dataclass(frozen=True, kw_only=True)
class MachineUse:
    """What processes outside this process tree use: of `cores` processors, and the share of the GPU's time."""

    other_cores: float
    cores: int
    gpu_busy_share: float | None = None

    @property
    def is_idle(self) -> bool:
        return self.other_cores <= BUSY_SHARE * self.cores and (self.gpu_busy_share or 0.0) <= BUSY_SHARE

    def __str__(self) -> str:
        parts = [f"other processes use {self.other_cores:.1f} of {self.cores} cores"]
        if self.gpu_busy_share is not None:
            parts.append(f"the GPU is busy for {self.gpu_busy_share:.0%} of the time")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class IdleWait:
    """How a wait ended: after `waited_s`, with the last `use`."""

    waited_s: float
    use: MachineUse

    def noted_in(self, record: Record) -> Record:
        """`record` with the wait among its details, and with a warning if the machine was still in use."""
        found = {"waited_s": round(self.waited_s, 1), "is_idle": self.use.is_idle, **asdict(self.use)}
        changes = {"details": {**record.details, "idle_wait": found}}
        if self.use.is_idle:
            return record.model_copy(update=changes)
        warning = RecordWarning(
            what=f"the machine was not idle after {self.waited_s:.0f} s of waiting: {self.use}",
            remedy="stop the other processes, or give --wait-idle more time",
        )
        return record.model_copy(update={**changes, "warnings": (*record.warnings, warning)})


def is_timed_case(case: Case) -> bool:
    """Whether a measure of the case times it; measures of plug-ins that are not imported here count as timed."""
    return any(name not in MEASURES or MEASURES.get(name).is_timed for name in case.measures)


def read_use(device: str | None, *, sleep: Callable[[float], None] = time.sleep) -> MachineUse:
    """Watch the machine for one second; the GPU too unless `device` is a CPU.

    Raises InputError on a system without /proc.
    """
    before = CpuCounters.read()
    sleep(WINDOW_S)
    load = CpuLoad.between(before, CpuCounters.read())
    if load.others is None:
        raise InputError("--wait-idle needs /proc/stat, which this system does not have")
    busy_share = None if device == "cpu" else gpu_busy_share(device or "cuda")
    return MachineUse(other_cores=load.others, cores=load.cores, gpu_busy_share=busy_share)


def wait_until_idle(
    limit_s: float,
    *,
    device: str | None = None,
    on_wait: Callable[[str], None] = lambda text: None,
    is_stopped: Callable[[], bool] = lambda: False,
    read: Callable[[str | None], MachineUse] = read_use,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> IdleWait:
    """Wait until other processes use at most 5 % of the processors, and of the GPU that `device` names.

    Gives up after `limit_s`, or if it `is_stopped` by another thread. Calls `on_wait` once with one line if there is
    anything to wait for.
    """
    started = clock_s()
    use = read(device)
    if not use.is_idle and limit_s > 0:
        on_wait(f"waiting at most {limit_s:g} s for an idle machine: {use}")
    while not use.is_idle and clock_s() - started < limit_s and not is_stopped():
        sleep(PAUSE_S)
        use = read(device)
    return IdleWait(waited_s=clock_s() - started, use=use)
