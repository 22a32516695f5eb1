"""What tests share: surroundings that are nobody's own, and the folder of real clips and published references."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core: threads of torch would only take turns

# A hook and `git rebase --exec` name their repository, in which tests would commit; settings sign and translate.
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}

# As hypothesis itself does where CI is set: a machine may be slow, and its checkout read-only.
settings.register_profile(
    "anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, print_blob=True
)
settings.load_profile("anywhere")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder named by VBENCH_TEST_ASSETS, with `clips/` and `reference/`; skips the test where it is not set."""
    folder = os.environ.get("VBENCH_TEST_ASSETS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VBENCH_TEST_ASSETS does not name a folder with clips/ and reference/")
    return Path(folder)


@pytest.fixture(scope="session")
def clips(assets: Path) -> Path:
    """The folder of real video files with its manifest.csv."""
    return assets / "clips"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and here is none")


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def wait_until_gone() -> Callable[..., None]:
    """Fails if one of the processes is alive after some seconds."""

    def wait(pids: Iterable[int], *, within_s: float = 10.0) -> None:
        left, deadline = list(pids), time.monotonic() + within_s
        while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"alive after {within_s:g} s: {left}"

    return wait
