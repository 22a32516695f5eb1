"""Finds the fastest execution mode whose outputs match eager fp32, with a function that tries one mode."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field

from bench.core.metric_spec import MetricSpec
from bench.core.schema import CompileMode, Frozen, Json, MemoryFormat, Metric, Precision
from bench.measure.execution_mode import ExecutionMode, refusal

FINALISTS = 2
PACKAGES: dict[CompileMode, str] = {"onnxruntime": "onnxruntime", "tensorrt": "torch_tensorrt"}
MEMORY_FORMATS: tuple[MemoryFormat, ...] = ("contiguous", "channels_last_3d")
ON_CPU: tuple[Precision, ...] = ("fp32", "bf16", "bf16_weights")
ON_CUDA: tuple[Precision, ...] = ("fp32", "tf32", "fp16_weights", "bf16", "bf16_weights", "fp8")
CPU_MODES: tuple[CompileMode, ...] = ("off", "default", "aotinductor", "onnxruntime")
CUDA_MODES: tuple[CompileMode, ...] = ("off", "cudagraphs", "default", "max-autotune", "aotinductor", *PACKAGES)


class Space(Frozen):
    """What a search tries. An axis that is left out has every value that can be faster on this kind of device."""

    precision: Annotated[tuple[Precision, ...], Field(min_length=1)] | None = None
    memory_format: Annotated[tuple[MemoryFormat, ...], Field(min_length=1)] | None = None
    compile: Annotated[tuple[CompileMode, ...], Field(min_length=1)] | None = None
    budget_s: float = Field(default=3000.0, gt=0)


Search = Literal["best"] | Space


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one execution mode. `max_difference` (a share of the largest logit) and `top1_agreement` are its
    parity.

    `fell_out` is the reason why it cannot be the fastest: unsupported, failed, outside the tolerance, or not tried.
    """

    mode: ExecutionMode
    clips_per_s: float | None = None
    max_difference: float | None = None
    top1_agreement: float | None = None
    fell_out: str | None = None

    def as_dict(self) -> dict[str, Json]:
        """Return plain data for the record: the mode in words, and its values; null if there are none."""
        return {**vars(self), "mode": str(self.mode)}

    def __str__(self) -> str:
        if self.mode == ExecutionMode() and self.fell_out is not None:
            return f"no execution mode of this model worked in a process of its own, eager fp32: {self.fell_out}"
        if self.fell_out is not None:
            return f"{self.mode} fell out: {self.fell_out}"
        if self.mode == ExecutionMode():
            return "eager fp32 itself: of what was tried and matches, nothing is faster"
        if self.max_difference is None or self.top1_agreement is None:
            return str(self.mode)
        within = f"logits within {self.max_difference:.2g} of eager fp32, top-1 agrees on {self.top1_agreement:.0%}"
        return f"{self.mode}; {within}"


def as_best(metric: Metric, best: Trial) -> Metric:
    """`metric` labelled as that of the best execution mode, unknown if even that one fell out.

    If eager fp32 is the best, its own metric is used: timing it again would only add noise.
    """
    unknown = {"value": None, "samples": (), "turns": (), "interval": None, "stopped_because": None}
    note = "; ".join(word for word in (str(best), metric.note) if word)
    labelled = {"labels": {**metric.labels, "variant": "best"}, "note": note}
    return metric.model_copy(update={**labelled, **(unknown if best.fell_out else {})})


def speedup(spec: MetricSpec, best: Metric, own: Metric, *, note: str) -> Metric:
    """How many times as fast as eager fp32 the best execution mode is; both are timed in one process."""
    ratio = best.value / own.value if best.value and own.value else None
    if ratio is not None and own.better == "lower":
        ratio = 1 / ratio
    labels = {name: value for name, value in own.labels.items() if name == "batch"}
    return spec.metric(ratio, labels=labels, note=note)


def find_fastest(
    space: Space, attempt: Callable[[ExecutionMode], Trial], *, device: str, is_over: Callable[[], bool] = lambda: False
) -> list[Trial]:
    """Every execution mode that was tried or refused, the fastest with matching outputs first.

    Eager fp32 is always tried. Then come all precisions and memory formats with the first value of `compile`, then each
    other value of `compile` with the two fastest modes that it supports. After `is_over` no further mode is tried.
    """
    trials: dict[ExecutionMode, Trial] = {}

    def tried(mode: ExecutionMode) -> None:
        if mode not in trials:
            refused = refusal(mode, device)
            late = "not tried: the search had used up its time" if is_over() else None
            trials[mode] = Trial(mode=mode, fell_out=refused or late) if refused or late else attempt(mode)

    tried(ExecutionMode())
    first, *others = space.compile or _modes(device)
    for precision, memory_format in itertools.product(
        space.precision or (ON_CUDA if device.startswith("cuda") else ON_CPU), space.memory_format or MEMORY_FORMATS
    ):
        tried(ExecutionMode(precision=precision, memory_format=memory_format, compile=first))
    leading = [trial.mode for trial in _ranked(trials.values()) if trial.fell_out is None]
    for mode in _finalists(leading, others, device):
        tried(mode)
    return _ranked(trials.values())


def _finalists(leading: list[ExecutionMode], modes: list[CompileMode], device: str) -> Iterator[ExecutionMode]:
    """For each value of `compile` the two fastest modes that it supports."""
    for mode in modes:
        candidates = dict.fromkeys(each.model_copy(update={"compile": mode}) for each in leading)
        yield from itertools.islice((each for each in candidates if refusal(each, device) is None), FINALISTS)


def _ranked(trials: Iterable[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (trial.fell_out is not None, -(trial.clips_per_s or 0.0)))


def _modes(device: str) -> tuple[CompileMode, ...]:
    """Values of `compile` that can be faster on this device, without those whose package is not installed."""
    modes = CUDA_MODES if device.startswith("cuda") else CPU_MODES
    return tuple(mode for mode in modes if mode not in PACKAGES or find_spec(PACKAGES[mode]) is not None)
