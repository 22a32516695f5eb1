"""Searches the fastest way to run a network whose outputs still match eager fp32. Pure: asks a function it is given."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field

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
    """What a search may try. An axis that is left out is tried in all that this kind of device may gain from."""

    precision: Annotated[tuple[Precision, ...], Field(min_length=1)] | None = None
    memory_format: Annotated[tuple[MemoryFormat, ...], Field(min_length=1)] | None = None
    compile: Annotated[tuple[CompileMode, ...], Field(min_length=1)] | None = None
    budget_s: float = Field(default=3000.0, gt=0)


Search = Literal["best"] | Space


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one way. `max_difference` (a share of the largest logit) and `top1_agreement` are its parity.

    `fell_out` says why it cannot be the answer: refused, failed, out of tolerance, or not tried.
    """

    mode: ExecutionMode
    clips_per_s: float | None = None
    max_difference: float | None = None
    top1_agreement: float | None = None
    fell_out: str | None = None

    def as_dict(self) -> dict[str, Json]:
        """For the record: the way in words beside its figures, null where there are none."""
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
    """`metric` as that of the best variant, unknown where even that fell out.

    Where eager fp32 is the best it is its own metric: timing it again would tell noise from noise.
    """
    unknown = {"value": None, "samples": (), "turns": (), "interval": None, "stopped_because": None}
    note = "; ".join(word for word in (str(best), metric.note) if word)
    told = {"labels": {**metric.labels, "variant": "best"}, "note": note}
    return metric.model_copy(update={**told, **(unknown if best.fell_out else {})})


def speedup(measure: str, best: Metric, own: Metric, *, note: str) -> Metric:
    """How many times as fast the best variant is as eager fp32, timed one after the other in one process."""
    ratio = best.value / own.value if best.value and own.value else None
    if ratio is not None and own.better == "lower":
        ratio = 1 / ratio
    labels = {name: value for name, value in own.labels.items() if name == "batch"}
    return Metric(name=f"{measure}.speedup", value=ratio, unit="x", better="higher", labels=labels, note=note)


def find_fastest(
    space: Space, attempt: Callable[[ExecutionMode], Trial], *, device: str, is_over: Callable[[], bool] = lambda: False
) -> list[Trial]:
    """Every way that was tried or refused, the fastest that matches first; empty of matches where not even eager ran.

    Eager fp32 is tried whatever the space says. Then come all precisions and memory formats, executed by the first of
    `compile`; then every other execution, of the two fastest of those that it takes. `is_over` ends the trying.
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
    """For each execution the two fastest ways that it takes."""
    for mode in modes:
        candidates = dict.fromkeys(each.model_copy(update={"compile": mode}) for each in leading)
        yield from itertools.islice((each for each in candidates if refusal(each, device) is None), FINALISTS)


def _ranked(trials: Iterable[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (trial.fell_out is not None, -(trial.clips_per_s or 0.0)))


def _modes(device: str) -> tuple[CompileMode, ...]:
    """Executions that may gain here, those left out whose package is not installed."""
    modes = CUDA_MODES if device.startswith("cuda") else CPU_MODES
    return tuple(mode for mode in modes if mode not in PACKAGES or find_spec(PACKAGES[mode]) is not None)
