"""Hardware and software facts for a record. Unknown is None; torch is used only if it is loaded already."""

import functools
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bench
from bench.core.cpus import allowed_cpus, cpu_quota
from bench.core.git import run_git
from bench.core.nvml import (
    device_handle,
    gpu_handle,
    gpu_processes,
    gpu_temperature_c,
    other_processes,
    read_gpu_state,
)
from bench.core.privacy import recorded_variables
from bench.core.schema import Environment, Json
from bench.store import RECORD_FILES, SUITE_FILE

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "av", "numpy", "codecarbon", "nvidia-ml-py")
RESULTS = (RECORD_FILES, SUITE_FILE, "predictions.parquet", ".vbench/**")  # files of a run that people keep in git
COMMIT = ("commit", "committed_at", "is_dirty")
STAGED = "VBENCH_STAGED"  # environment variable: the copy of a working tree that a job runs from, and its commit


def describe_environment(*, device: str | None = None, model_file: str | None = None) -> Environment:
    """The machine as it is now; `device` adds facts of that GPU. Facts of torch are included if it is loaded.

    `model_file` is the source file of the model; the commit of its repository is included.
    """
    return Environment(
        hardware={**_cpu(), **_gpu_hardware(device)},
        software={**_software(), **_torch_build()},
        state={**_load(), **_gpu_state(device), **_gpu_processes(device), **_code(model_file), **_settings()},
    )


def read_constant_facts() -> None:
    """Read and cache the facts that stay while this process lives, without a question to any device."""
    _software()
    _own_commit()
    _cpu()


def staged_variables(folder: Path, *, root: Path) -> dict[str, str]:
    """Return the variable by which jobs that run from the copy `folder` know the commit of the working tree `root`."""
    return {STAGED: json.dumps({"folder": str(folder), **_commit_of(root, prefix="")})}


def _cpu() -> dict[str, Json]:
    import psutil

    return {
        "cpu": _cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=False),
        "cpu_threads": psutil.cpu_count(),
        "cpu_threads_usable": allowed_cpus(),
        "cpu_quota": cpu_quota(),
        "ram_bytes": psutil.virtual_memory().total,
        "architecture": platform.machine(),
    }


def _cpu_name() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


@functools.cache  # the versions of loaded modules do not change; reading them takes 30 ms
def _software() -> dict[str, Json]:
    found: dict[str, Json] = {
        "vbench": bench.__version__,
        "python": platform.python_version(),
        "os": platform.platform(),
    }
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _torch_build() -> dict[str, Json]:
    """How torch was built and is configured, if it is loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    has_cudnn = torch.cuda.is_available() and torch.backends.cudnn.is_available()
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if has_cudnn else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark if has_cudnn else None,
        "cudnn_deterministic": torch.backends.cudnn.deterministic if has_cudnn else None,
        # Not `allow_tf32`: reading that raises once a plug-in has set `fp32_precision`.
        "cudnn_allow_tf32": torch.backends.cudnn.conv.fp32_precision == "tf32" if has_cudnn else None,
        "matmul_allow_tf32": (
            torch.backends.cuda.matmul.fp32_precision == "tf32" if torch.cuda.is_available() else None
        ),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _load() -> dict[str, Json]:
    return {
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "cpu_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "container": _container(),
    }


def _container() -> str | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    return _read("/run/systemd/container") or os.environ.get("container")  # noqa: SIM112  # systemd and podman spell it so


def _settings() -> dict[str, Json]:
    return {f"env.{name}": value for name, value in recorded_variables().items()}


def _code(model_file: str | None) -> dict[str, Json]:
    """Commits of the working folder, of vbench and of the model, and whether each has uncommitted changes."""
    facts = {**_commit_of(Path(), prefix=""), **_own_commit()}  # not Path.cwd(), which a model may have removed
    if staged := _staged():
        facts["staged_tree"] = Path(staged["folder"]).name
    if model_file is None:
        return facts
    folder = Path(model_file).parent
    if folder.is_relative_to(Path(bench.__file__).parent):
        own = {name.replace("vbench_", "model_"): value for name, value in _own_commit().items()}
        return {**facts, **own}
    return {**facts, **_commit_of(folder, prefix="model_")}


def _staged() -> dict[str, Any]:
    """The folder and the commit of the staged tree that this process runs from; empty if it runs from none."""
    found: dict[str, Any] = json.loads(os.environ.get(STAGED, "{}"))
    return found


@functools.cache  # this process goes on with the code that it has loaded
def _own_commit() -> dict[str, Json]:
    return _commit_of(Path(bench.__file__).parent, prefix="vbench_")


def _commit_of(folder: Path, *, prefix: str) -> dict[str, Json]:
    """Commit, time and dirty flag of a folder; None if git does not track it, as for installed packages.

    The dirty flag is None if git did not answer in time. Records and baselines that are kept in git are left out: they
    change with every run, which is no change of the code. A staged tree has those of the tree that it is a copy of.
    """
    names = [f"{prefix}{name}" for name in COMMIT]
    staged = _staged()  # its jobs start in it
    if staged and (folder == Path() or folder.absolute().is_relative_to(staged["folder"])):
        return dict(zip(names, (staged[name] for name in COMMIT), strict=True))
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:
        return dict.fromkeys(names)
    left_out = [f":(exclude,top,glob)**/{name}" for name in RESULTS]
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", *left_out)
    commit, _, seconds = (_git(folder, "log", "-1", "--no-show-signature", "--format=%H %ct") or "").partition(" ")
    at = datetime.fromtimestamp(int(seconds), UTC).isoformat(timespec="seconds") if seconds else None
    return dict(zip(names, (commit or None, at, None if changed is None else bool(changed)), strict=True))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails, is not installed, or does not answer within ten seconds."""
    try:
        done = run_git("-C", str(folder), *arguments, timeout_s=10)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip() or None
    return None


def _gpu_hardware(device: str | None) -> dict[str, Json]:
    return _from_nvml(device, _hardware_of)


def _gpu_state(device: str | None) -> dict[str, Json]:
    return _from_nvml(device, _state_of)


def _gpu_processes(device: str | None) -> dict[str, Json]:
    """Other processes on this GPU, by name."""
    if device is None or read_gpu_state(device) is None:
        return {}
    torch = sys.modules.get("torch")
    is_on_gpu = torch is not None and torch.cuda.is_initialized()
    others = other_processes(gpu_processes(device), own_pid=os.getpid(), is_on_gpu=is_on_gpu)
    return {"gpu_other_processes": [str(process) for process in others]}


def _from_nvml(device: str | None, read: Callable[[str], dict[str, Json]]) -> dict[str, Json]:
    """Facts that `read` gets from NVML; empty for other devices and without a driver."""
    if device is None or not device.startswith("cuda"):
        return {}
    import pynvml

    try:
        return read(device)
    except pynvml.NVMLError:
        return {}


def _hardware_of(device: str) -> dict[str, Json]:
    import pynvml as nvml

    part, handle = device_handle(device), gpu_handle(device)
    facts: dict[str, Callable[[], Json]] = {
        "gpu": lambda: _text(nvml.nvmlDeviceGetName(part)),
        "gpu_uuid": lambda: _text(nvml.nvmlDeviceGetUUID(part)),
        "gpu_memory_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(part).total,
        "gpu_driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
        "gpu_power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "gpu_clock_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "gpu_clock_memory_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "gpu_ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
        "gpu_mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
        "gpu_pcie_generation": lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),
        "gpu_pcie_width": lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle),
    }
    return _known(facts)


def _state_of(device: str) -> dict[str, Json]:
    import pynvml as nvml

    handle = gpu_handle(device)
    facts: dict[str, Callable[[], Json]] = {
        "gpu_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "gpu_clock_application_mhz": lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM),
        "gpu_clock_memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "gpu_temperature_c": lambda: gpu_temperature_c(handle),
        "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "gpu_pcie_generation_now": lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle),
        "gpu_pcie_width_now": lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle),
        "gpu_persistence": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
    }
    return _known(facts)


def _known(facts: dict[str, Callable[[], Json]]) -> dict[str, Json]:
    """Each fact, or None if this GPU or driver does not support it."""
    import pynvml

    found: dict[str, Json] = {}
    for name, read in facts.items():
        try:
            found[name] = read()
        except (pynvml.NVMLError, AttributeError):  # bindings for CUDA 14 no longer have some of the functions
            found[name] = None
    return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
