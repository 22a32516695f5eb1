"""How many processors this process may use: its affinity, and the CPU quota of its container (cgroup v1 and v2)."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Processors that this process can keep busy: those of its affinity, at most its quota rounded up; at least 1."""
    quota = cpu_quota()
    return max(1, allowed_cpus() if quota is None else min(allowed_cpus(), math.ceil(quota)))


def allowed_cpus() -> int:
    """Processors of this process's affinity; all of the machine on systems without affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(*, root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Processors that the control groups of this process grant, such as 1.5 for 150 ms per 100 ms; None if unlimited.

    The smallest quota from the process's own group up to the root holds: a parent limits all of its children.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files, cgroup-v1 in sched-bwc.rst.
    """
    quotas = [quota for folder in cpu_groups(root, own) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def cpu_groups(root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's CPU groups with their parents, in the hierarchies of both versions.

    Inside a container the path in `own` may be the host's, whose folder is not mounted; the root then is its group.
    """
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    for line in ("0::/", "0:cpu:/", *lines):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        group = PurePosixPath(path.lstrip("/"))
        hierarchies = [root] if not controllers else [root / "cpu", root / controllers, root / "cpu,cpuacct"]
        for hierarchy in hierarchies:
            yield from (hierarchy / each for each in (group, *group.parents))


def _quota_of(folder: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota_us / period_us if quota_us > 0 else None  # -1: no limit
    return None
