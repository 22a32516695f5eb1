"""Execution modes: precision, memory format and what executes the model; and which of them a device supports."""

from collections.abc import Mapping
from typing import get_args

from bench.core.schema import DEFAULT_AXES, CompileMode, Engine, Frozen, MemoryFormat, Point, Precision

ENGINES: frozenset[str] = frozenset(get_args(Engine))
CUDA_ONLY = {"precision": ("tf32", "fp8"), "compile": ("cudagraphs", "tensorrt")}
# Precisions that an engine accepts, for engines that do not run whatever torch runs. Both lay out memory themselves.
ACCEPTS: Mapping[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "tf32", "fp16_weights"),
    "tensorrt": ("fp32", "tf32", "fp16_weights", "bf16_weights"),
}


class ExecutionMode(Frozen):
    """How a model is executed. The default is the plainest mode: eager, contiguous fp32."""

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile: CompileMode = "off"

    def __str__(self) -> str:
        return ", ".join([self.precision, *(str(v) for k, v in self if k != "precision" and v != DEFAULT_AXES[k])])


def execution_mode_of(point: Point) -> ExecutionMode:
    """The execution mode of a case; axes that its measures leave open keep their defaults."""
    given = {axis: value for axis in DEFAULT_AXES if (value := getattr(point, axis)) is not None}
    return ExecutionMode.model_validate(given)


def refusal(mode: ExecutionMode, device: str) -> str | None:
    """Why `device` (`cpu`, `cuda:1`) does not support `mode`, in one line; None if it can be tried."""
    if not device.startswith("cuda"):
        for axis, values in CUDA_ONLY.items():
            if (value := getattr(mode, axis)) in values:
                return f"{axis} {value} needs a CUDA device; this case runs on {device}"
    accepted = ACCEPTS.get(mode.compile)
    if accepted is not None and mode.precision not in accepted:
        return f"compile {mode.compile} takes precision {', '.join(accepted)}; found {mode.precision}"
    if accepted is not None and mode.memory_format != "contiguous":
        return f"compile {mode.compile} lays out memory by itself and takes memory_format contiguous alone"
    return None


def absence(device: str, *, gpus: int) -> str | None:
    """Why `device` is not available if torch sees this many `gpus`, in one line; None if it is available."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or int(number or 0) < gpus:
        return None
    if gpus == 0:
        return f"device {device}: torch sees no GPU here; `vbench doctor` lists the devices"
    return f"device {device} is not available; torch sees {', '.join(f'cuda:{n}' for n in range(gpus))}"
