"""The CPU quota of control groups of both versions, and the number of processors that follows from it."""

from pathlib import Path

import pytest

from bench.core import cpus
from bench.core.cpus import cpu_quota, usable_cpus
from bench.runner.environment import describe_environment


def tree(tmp_path: Path, own: str, files: dict[str, str]) -> dict[str, Path]:
    """A /sys/fs/cgroup with these files, and a /proc/self/cgroup with these lines."""
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    return {"root": tmp_path / "sys", "own": tmp_path / "own"}


V1 = "cpu,cpuacct"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "200000 100000\n"}, 0.5),
        ("0::/host/path\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {"cpu.max": "25000 50000"}, 0.5),
        (f"4:{V1}:/\n", {f"{V1}/cpu.cfs_quota_us": "150000", f"{V1}/cpu.cfs_period_us": "100000"}, 1.5),
        ("4:cpu:/docker/x\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (
            f"5:memory:/m\n4:{V1}:/docker/x\n",
            {f"{V1}/docker/x/cpu.cfs_quota_us": "200000", f"{V1}/docker/x/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("5:cpuset:/c\n", {"cpuset/c/cpu.max": "100000 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quotas_by_hand(tmp_path: Path, own: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(**tree(tmp_path, own, files)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(root=tmp_path / "none", own=tmp_path / "none") is None


@pytest.mark.parametrize(("allowed", "quota", "usable"), [(8, None, 8), (8, 1.5, 2), (8, 0.25, 1), (2, 16.0, 2)])
def test_usable_processors(monkeypatch: pytest.MonkeyPatch, allowed: int, quota: float | None, usable: int) -> None:
    monkeypatch.setattr(cpus, "allowed_cpus", lambda: allowed)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    assert usable_cpus() == usable


def test_the_environment_states_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runner.environment.cpu_quota", lambda: 1.5)
    assert describe_environment().hardware["cpu_quota"] == 1.5
