"""The load of the processors from files of /proc and of control groups, computed by hand."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.cpu_load import CpuCounters, CpuLoad

HZ = os.sysconf("SC_CLK_TCK")


def machine(root: Path, *, cpu: str, processes: dict[int, tuple[int, str, str]], throttled: str = "") -> CpuCounters:
    """Counters of a machine whose processors all have the ticks `cpu`; processes have parent, name and four ticks."""
    number = min(os.sched_getaffinity(0))
    lines = [f"cpu  {cpu}", *(f"cpu{n} {cpu if n == number else '0 0 0 0 0 0 0 0'}" for n in range(number + 2))]
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "stat").write_text("\n".join([*lines, "intr 5 0"]))
    for pid, (parent, name, ticks) in processes.items():
        (root / "proc" / str(pid)).mkdir()
        (root / "proc" / str(pid) / "stat").write_text(f"{pid} ({name}) R {parent} {'0 ' * 9}{ticks} 20 0")
    if throttled:
        (root / "groups").mkdir()
        (root / "groups" / "cpu.stat").write_text(throttled)
    paths = {"proc": root / "proc", "cgroups": root / "groups", "own": root / "none"}
    return CpuCounters.read(root_pid=10, **paths)


TREE = {
    1: (0, "init", "900 0 0 0"),
    10: (1, "vbench run", f"{HZ} {HZ} {HZ} 0"),  # its children that ended are in the third and fourth number
    11: (10, "odd) (name", f"0 {2 * HZ} 0 0"),
    12: (11, "grandchild", f"{HZ} 0 0 0"),
    13: (1, "other", f"{9 * HZ} 0 0 0"),
}


def test_counters_are_seconds_of_the_usable_processors_and_of_the_process_tree(tmp_path: Path) -> None:
    cpu = f"{5 * HZ} {HZ} {2 * HZ} {70 * HZ} {HZ} {HZ} {HZ} {3 * HZ} 4 4"  # idle and waiting for disks are no work
    found = machine(tmp_path, cpu=cpu, processes=TREE, throttled="nr_throttled 4\nthrottled_usec 2500000\n")
    assert (found.busy_s, found.stolen_s) == (10, 3)
    assert found.own_s == 3 + 2 + 1
    assert found.throttled_s == 2.5


def test_throttling_is_read_in_version_1_too(tmp_path: Path) -> None:
    found = machine(tmp_path, cpu="0 " * 8, processes={}, throttled="nr_periods 9\nthrottled_time 1500000000\n")
    assert found.throttled_s == 1.5


def test_without_proc_everything_is_unknown(tmp_path: Path) -> None:
    found = CpuCounters.read(proc=tmp_path / "none", cgroups=tmp_path, own=tmp_path / "own")
    assert (found.busy_s, found.stolen_s, found.own_s, found.throttled_s) == (None, None, None, None)
    load = CpuLoad.between(found, found)
    assert (load.others, load.stolen, load.throttled) == (None, None, None)


def counters(at_s: float, **rest: float) -> CpuCounters:
    zero = {"busy_s": 0.0, "stolen_s": 0.0, "own_s": 0.0, "throttled_s": 0.0, "involuntary_switches": 0}
    return CpuCounters(at_s=at_s, **{**zero, **rest})


def test_the_load_is_per_second_and_what_is_not_own_is_of_others() -> None:
    after = counters(10, busy_s=18, own_s=6, stolen_s=1, throttled_s=2, involuntary_switches=300)
    load = CpuLoad.between(counters(0), after, cores=2)
    found = (load.own, load.others, load.stolen, load.throttled, load.switches_per_s)
    assert found == pytest.approx((0.6, 1.2, 0.1, 0.2, 30))
    assert load.as_dict()["other_cores"] == 1.2


def between(*, cores: int, **after: float) -> CpuLoad:
    return CpuLoad.between(counters(0), counters(10, **after), cores=cores)


@pytest.mark.parametrize(
    ("load", "threads", "part"),
    [
        (between(cores=2, busy_s=18, own_s=6), 2, "other processes used 1.2 of 2 cores"),
        (between(cores=2, busy_s=18, own_s=6), 1, "other processes used 1.2 of 2 cores"),
        (between(cores=2, busy_s=4, own_s=1, stolen_s=3), 1, "the hypervisor took 15% of the processor time"),
        (between(cores=8, throttled_s=3), 4, "the CPU quota stopped the process in 30% of the time"),
        (between(cores=8, involuntary_switches=2000), 16, "the scheduler interrupted it 200 times per second"),
    ],
)
def test_a_disturbance_is_named_with_its_remedy(load: CpuLoad, threads: int, part: str) -> None:
    found = load.disturbances(threads=threads)
    (text,) = [text for text in found if part in text]
    assert found[text]


@pytest.mark.parametrize(
    ("load", "threads"),
    [
        (between(cores=2, busy_s=10.5, own_s=10), 2),  # 0.05 cores of others: services of any machine
        (between(cores=2, busy_s=18, own_s=9), 1),  # one core is left for the other process
        (between(cores=64, busy_s=300, own_s=80), 8),
        (between(cores=8, involuntary_switches=100), 8),
    ],
)
def test_what_leaves_enough_cores_disturbs_nobody(load: CpuLoad, threads: int) -> None:
    assert load.disturbances(threads=threads) == {}


def test_a_busy_neighbour_is_seen_and_an_own_child_is_not_a_neighbour() -> None:
    """In real time: the child works for half a second, which its parent's tree contains."""
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    before = CpuCounters.read()
    subprocess.run([sys.executable, "-c", work], check=True)
    load = CpuLoad.between(before, CpuCounters.read())
    assert load.own is not None
    assert load.own * load.seconds >= 0.45
    child = subprocess.Popen([sys.executable, "-c", work.replace("0.5", "60")])
    try:
        time.sleep(0.3)
        before = CpuCounters.read(root_pid=child.pid)
        time.sleep(1.0)
        load = CpuLoad.between(before, CpuCounters.read(root_pid=child.pid))
    finally:
        child.kill()
        child.wait()
    assert load.own is not None
    assert load.own > 0
