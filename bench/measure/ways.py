"""One way to run a network: its precision, its memory format and what executes it; and which of them cannot be."""

from collections.abc import Mapping
from typing import get_args

from bench.core.schema import DEFAULT_AXES, CompileMode, Engine, Frozen, MemoryFormat, Point, Precision

ENGINES: frozenset[str] = frozenset(get_args(Engine))
CUDA_ONLY = {"precision": ("tf32", "fp8"), "compile": ("cudagraphs", "tensorrt")}
# What an engine is given to run, where it does not run whatever torch runs. Neither knows torch's memory formats.
TAKES: Mapping[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "tf32", "fp16_weights"),
    "tensorrt": ("fp32", "tf32", "fp16_weights", "bf16_weights"),
}


class Way(Frozen):
    """One way to run a network. Without arguments, the plainest: eager, contiguous fp32."""

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile: CompileMode = "off"

    def __str__(self) -> str:
        return ", ".join([self.precision, *(str(v) for k, v in self if k != "precision" and v != DEFAULT_AXES[k])])


def way_of(point: Point) -> Way:
    """The way in which a case runs its network; an axis that its measures leave open is at its plainest."""
    return Way.model_validate({axis: value for axis in DEFAULT_AXES if (value := getattr(point, axis)) is not None})


def refusal(way: Way, device: str) -> str | None:
    """Why a network cannot be run so on `device` (`cpu`, `cuda:1`), in one line; None where it can be tried."""
    if not device.startswith("cuda"):
        for axis, values in CUDA_ONLY.items():
            if (value := getattr(way, axis)) in values:
                return f"{axis} {value} needs a CUDA device; this case runs on {device}"
    takes = TAKES.get(way.compile)
    if takes is not None and way.precision not in takes:
        return f"compile {way.compile} takes precision {', '.join(takes)}; found {way.precision}"
    if takes is not None and way.memory_format != "contiguous":
        return f"compile {way.compile} lays out memory by itself and takes memory_format contiguous alone"
    return None


def absence(device: str, *, gpus: int) -> str | None:
    """Why `device` cannot be had where torch sees so many `gpus`, in one line; None where it can."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or int(number or 0) < gpus:
        return None
    if gpus == 0:
        return f"device {device}: torch sees no GPU here; `vbench doctor` says what is there"
    return f"device {device} is not here; torch sees {', '.join(f'cuda:{n}' for n in range(gpus))}"
