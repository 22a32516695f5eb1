"""Checks what this machine has, what is missing, and what would disturb a measurement; changes nothing."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from bench.core.files import cache_folder
from bench.core.schema import Environment, Json
from bench.runner.environment import describe_environment

REQUIRED = ("torch", "torchvision", "fvcore", "thop", "ptflops", "pandas", "plotly", "codecarbon", "av")
# Extras of the distribution by what they give, with the packages that they install.
EXTRAS = {
    "timm": ("models named timm:…", ("timm",)),
    "hf": ("models of Hugging Face folders, hf:…", ("transformers",)),
    "flow": ("`vbench data flow`: optical flow", ("opencv-contrib-python-headless",)),
    "hdf5": ("videos in HDF5 files of frames", ("h5py",)),
    "onnx": ("compile: onnxruntime", ("onnx", "onnxruntime", "onnxscript")),
    "tensorrt": ("compile: tensorrt, on NVIDIA GPUs", ("torch-tensorrt",)),
    "tensorboard": ("`vbench train --tensorboard`", ("tensorboard",)),
    "query": ("`vbench query`: SQL over records", ("duckdb",)),
    "slurm": ("`vbench run --executor slurm`", ("submitit",)),
    "ray": ("`vbench run --executor ray`", ("ray",)),
    "mlflow": ("`vbench run --sink mlflow:…`", ("mlflow-skinny",)),
    "wandb": ("`vbench run --sink wandb:…`", ("wandb",)),
    "trackio": ("`vbench run --sink trackio:…`", ("trackio",)),
}
DISTRIBUTION = "vbench-video"

CAP_SYS_ADMIN = 21  # linux/capability.h


@dataclass(frozen=True, kw_only=True)
class DoctorCheck:
    """The result of one check: `ok`, `note` (works, with a caveat) or `missing`, and what to do about it."""

    topic: str
    state: Literal["ok", "note", "missing"]
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Json]:
        return asdict(self)


def check_machine(*, with_gpu: bool = False) -> list[DoctorCheck]:
    """All checks of this machine. `with_gpu` adds how to reduce noise of the GPU."""
    environment = describe_environment(device="cuda")
    return [
        *_packages(),
        *_processor(environment),
        *_accelerator(environment),
        *_energy(environment),
        *_folders(),
        *(_noise_reduction(environment) if with_gpu else ()),
    ]


def _packages() -> Iterator[DoctorCheck]:
    for name in REQUIRED:
        found = _version(name)
        if found is None:
            yield DoctorCheck(topic=name, state="missing", found="not installed", remedy=f"pip install {name}")
        else:
            yield DoctorCheck(topic=name, state="ok", found=found)
    for extra, (gives, packages) in EXTRAS.items():
        versions = {name: _version(name) for name in packages}
        absent = [name for name, found in versions.items() if found is None]
        texts = [f"{name} {found}" for name, found in versions.items() if found is not None]
        yield DoctorCheck(
            topic=f"extra {extra}",
            state="note" if absent else "ok",
            found=f"{gives} (not installed)" if absent else f"{gives} ({', '.join(texts)})",
            remedy=f"pip install '{DISTRIBUTION}[{extra}]'" if absent else "",
        )
    torchcodec = _version("torchcodec")  # no extra: which release fits depends on torch and on the FFmpeg libraries
    yield DoctorCheck(
        topic="torchcodec",
        state="note" if torchcodec is None else "ok",
        found=f"decode: torchcodec ({torchcodec or 'not installed'})",
        remedy="pip install torchcodec; it needs FFmpeg's libraries" if torchcodec is None else "",
    )


def _processor(environment: Environment) -> Iterator[DoctorCheck]:
    hardware, state = environment.hardware, environment.state
    usable = hardware["cpu_threads_usable"]
    yield DoctorCheck(
        topic="CPU", state="ok", found=f"{hardware['cpu']}, {usable} of {hardware['cpu_threads']} threads"
    )
    load = state["load_1min"]
    if isinstance(load, float) and isinstance(usable, int) and load > 0.2 * usable:
        yield DoctorCheck(
            topic="load",
            state="note",
            found=f"{load:g} over the last minute: something else is running",
            remedy="stop it before timing, or expect `unsteady` and wide intervals",
        )
    governor = state["cpu_governor"]
    if governor not in (None, "performance"):
        yield DoctorCheck(
            topic="CPU governor",
            state="note",
            found=str(governor),
            remedy="sudo cpupower frequency-set -g performance",
        )


def _accelerator(environment: Environment) -> Iterator[DoctorCheck]:
    gpu = environment.hardware.get("gpu")
    if gpu is None:
        yield DoctorCheck(
            topic="GPU",
            state="note",
            found="no NVIDIA GPU that NVML can see; everything runs on the CPU",
            remedy="on a GPU machine: check that `nvidia-smi` works for this user",
        )
        return
    yield DoctorCheck(topic="GPU", state="ok", found=f"{gpu}, driver {environment.hardware.get('gpu_driver')}")
    others = environment.state.get("gpu_other_processes")
    if isinstance(others, list) and others:
        yield DoctorCheck(
            topic="GPU processes",
            state="note",
            found=f"other processes use this GPU: {', '.join(map(str, others))}",
            remedy="wait for them, or choose another GPU with CUDA_VISIBLE_DEVICES",
        )


def _energy(environment: Environment) -> Iterator[DoctorCheck]:
    counters = list(Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj"))
    if any(os.access(counter, os.R_OK) for counter in counters):
        yield DoctorCheck(topic="CPU energy", state="ok", found="RAPL counter can be read")
    elif "gpu" not in environment.hardware:
        remedy = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" if counters else ""
        yield DoctorCheck(
            topic="CPU energy", state="note", found="no counter can be read: energy is null", remedy=remedy
        )


def _folders() -> Iterator[DoctorCheck]:
    for topic, folder in (("cache", cache_folder()), ("working folder", Path.cwd())):
        there = next((f for f in (folder, *folder.parents) if f.exists()), folder)
        free = shutil.disk_usage(there).free / 1e9
        if os.access(there, os.W_OK):
            yield DoctorCheck(topic=topic, state="ok", found=f"{folder}, {free:.0f} GB free")
        else:
            remedy = "set XDG_CACHE_HOME to a folder of yours" if topic == "cache" else "use --out"
            yield DoctorCheck(topic=topic, state="missing", found=f"{folder} cannot be written", remedy=remedy)


def _noise_reduction(environment: Environment) -> Iterator[DoctorCheck]:
    """How to reduce the noise of this GPU, and whether this user is allowed to."""
    hardware, state = environment.hardware, environment.state
    if "gpu" not in hardware:
        yield DoctorCheck(topic="noise reduction", state="note", found="there is no GPU here")
        return
    may = may_set_clocks()
    yield DoctorCheck(
        topic="permission",
        state="ok" if may else "note",
        found="this user may lock clocks and set limits" if may else "not allowed here: locking clocks, setting limits",
        remedy="" if may else "ask the owner of the machine; in a container, do it on the host or with CAP_SYS_ADMIN",
    )
    if state.get("gpu_persistence") is False:
        yield DoctorCheck(
            topic="persistence",
            state="note",
            found="off: the driver unloads between processes, which makes each start slower",
            remedy="sudo nvidia-smi -pm 1",
        )
    yield DoctorCheck(
        topic="GPU clock",
        state="note",
        found=f"{state.get('gpu_clock_mhz')} MHz now, {hardware.get('gpu_clock_max_mhz')} MHz at most",
        remedy="lock it at the clock it keeps under load: sudo nvidia-smi -lgc MHZ,MHZ; undo with sudo nvidia-smi -rgc",
    )
    yield DoctorCheck(
        topic="GPU power",
        state="note",
        found=f"{state.get('gpu_power_w')} W now, limit {hardware.get('gpu_power_limit_w')} W",
        remedy="a lower locked clock keeps it under its power limit, so that the clock does not vary",
    )
    if hardware.get("gpu_mig"):
        yield DoctorCheck(
            topic="MIG",
            state="note",
            found="on: other slices share memory bandwidth and power with this one",
            remedy="measure on a whole GPU, or name the slice in the title of the results",
        )


def may_set_clocks(status: str | None = None) -> bool:
    """Whether this process has CAP_SYS_ADMIN, which drivers require; `status` is the text of /proc/self/status."""
    if status is None:
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return hasattr(os, "geteuid") and os.geteuid() == 0
    bits = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(bits, 16) >> CAP_SYS_ADMIN & 1)


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None
