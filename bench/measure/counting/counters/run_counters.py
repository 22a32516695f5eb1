"""Run FLOP counters one by one, each in a fresh process on its own model, so that what one breaks stays there."""

import json
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from bench.core.errors import UnknownNameError, last_line
from bench.core.import_path import environment_with_import_path
from bench.core.process import ChildTimeoutError, run_supervised
from bench.measure.counting.counters.agreement import Agreement, failed, judge
from bench.measure.counting.counters.counter_report import CounterReport
from bench.measure.counting.model_copy import copy_to
from bench.measure.counting.model_count import count

TOOLS: Mapping[str, tuple[str, ...]] = {
    "fvcore": ("fvcore",),
    "thop": ("thop",),
    "ptflops": ("ptflops-pytorch", "ptflops-aten"),
}
OWN = "torch"
TIMEOUT_S = 900.0
CHILD = "bench.measure.counting.counters.counter_child"


@dataclass(frozen=True, kw_only=True)
class ModelByName:
    """Builds a model by name in the process that calls it, with random weights."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    def __call__(self) -> nn.Module:
        from bench.core.registry import import_plugins
        from bench.models.factory import create_model

        import_plugins(self.plugins)
        return create_model(self.model, **self.arguments)


@dataclass(frozen=True, kw_only=True)
class ModelCopy:
    """A model of the caller, which travels to the child as a copy."""

    model: nn.Module

    def __call__(self) -> nn.Module:
        return copy_to(self.model, "cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self(),)


def _unpacked(model: nn.Module) -> ModelCopy:
    return ModelCopy(model=model)


def backends_of(counters: Sequence[str]) -> list[str]:
    """Return the backends behind counter names; `all` is every one, and `torch` is our own count, which has none."""
    tools: list[str] = []
    for name in counters:
        if name not in (*TOOLS, OWN, "all"):
            raise UnknownNameError("counter", name, [*TOOLS, OWN, "all"])
        tools += [tool for known, parts in TOOLS.items() if name in (known, "all") for tool in parts]
    return list(dict.fromkeys(tools))


def run_counters(
    build: Callable[[], nn.Module],
    shapes: Sequence[Sequence[int]],
    *,
    counters: Sequence[str] = ("all",),
    timeout_s: float = TIMEOUT_S,
) -> tuple[Agreement, ...]:
    """Return how each counter's result for one clip of `shapes` (batch 1) agrees with ours, and why it differs.

    `build` returns the model and must be picklable: `ModelByName`, or `ModelCopy` of an existing model. Only our own
    count runs in this process. A counter that crashes, hangs, prints nothing or cannot receive the model has failed.
    """
    tools = backends_of(counters)
    if not tools:
        return ()
    clips = [(1, *shape[1:]) for shape in shapes]
    counted = count(build().eval(), tuple(torch.empty(clip, device="meta") for clip in clips))
    agreements = []
    for tool in tools:
        answer = run_counter(tool, build, clips, timeout_s=timeout_s)
        if "report" in answer:
            agreements.append(judge(counted, CounterReport.from_dict(answer["report"])))
        else:
            agreements.append(failed(tool, _version(tool), ours=counted.macs, error=str(answer["error"])))
    return tuple(agreements)


def run_counter(
    tool: str, build: Callable[[], nn.Module], clips: Sequence[Sequence[int]], *, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Return the child's answer: `report` or `error`, with `seconds` and `peak_bytes` of the counting alone."""
    with TemporaryDirectory(prefix="vbench-counter-") as folder:
        request, answer = Path(folder) / "request.pickle", Path(folder) / "answer.json"
        try:
            request.write_bytes(pickle.dumps({"build": build, "clips": [list(clip) for clip in clips]}))
        except Exception as error:  # pickle passes on whatever the user's objects raise
            return {"error": f"the model cannot be sent to another process: {type(error).__name__}: {error}"}
        alone = {**environment_with_import_path(), "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        command = [
            sys.executable,
            "-m",
            "bench.measure.counting.counters.counter_child",
            tool,
            str(request),
            str(answer),
        ]
        try:
            child = run_supervised(command, environment=alone, timeout_s=timeout_s)
        except ChildTimeoutError:
            return {"error": f"did not answer within {timeout_s:g} s"}
        if not answer.is_file():
            return {"error": f"died with exit code {child.returncode}: {last_line(child.stderr)}"}
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def _version(tool: str) -> str:
    try:
        return version(tool.partition("-")[0])
    except PackageNotFoundError:
        return "not installed"
