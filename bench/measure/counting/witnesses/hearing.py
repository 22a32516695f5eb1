"""Hears counters one by one, each in a fresh process on a network of its own, so that nothing it breaks stays."""

import json
import pickle
import subprocess
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
from bench.measure.counting.tally import count
from bench.measure.counting.twin import twin_of
from bench.measure.counting.witnesses.testimony import Testimony
from bench.measure.counting.witnesses.verdicts import Verdict, failed, judge

TOOLS: Mapping[str, tuple[str, ...]] = {
    "fvcore": ("fvcore",),
    "thop": ("thop",),
    "ptflops": ("ptflops-pytorch", "ptflops-aten"),
}
OWN = "torch"
TIMEOUT_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A network that is built by name where it is needed, with random weights."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    def __call__(self) -> nn.Module:
        from bench.core.registry import import_plugins
        from bench.models.factory import create_model

        import_plugins(self.plugins)
        return create_model(self.model, **self.arguments)


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A network of the caller's, which travels as a copy."""

    model: nn.Module

    def __call__(self) -> nn.Module:
        return twin_of(self.model, "cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self(),)


def _unpacked(model: nn.Module) -> Copied:
    return Copied(model=model)


def tools_of(counters: Sequence[str]) -> list[str]:
    """The witnesses behind names of counters (`all` is every one, `torch` is ourselves and none of them)."""
    tools: list[str] = []
    for name in counters:
        if name not in (*TOOLS, OWN, "all"):
            raise UnknownNameError("counter", name, [*TOOLS, OWN, "all"])
        tools += [tool for known, parts in TOOLS.items() if name in (known, "all") for tool in parts]
    return list(dict.fromkeys(tools))


def hear_witnesses(
    build: Callable[[], nn.Module],
    shapes: Sequence[Sequence[int]],
    *,
    counters: Sequence[str] = ("all",),
    timeout_s: float = TIMEOUT_S,
) -> tuple[Verdict, ...]:
    """What each counter says of the network that `build` gives, for one clip of `shapes` (batch 1), and why.

    `build` must survive pickling: `Rebuilt` by name, `Copied` for a network at hand. Nothing of it runs here but our
    own count. A counter that crashes, hangs, prints nothing or cannot be sent the network has failed.
    """
    tools = tools_of(counters)
    if not tools:
        return ()
    clips = [(1, *shape[1:]) for shape in shapes]
    counted = count(build().eval(), tuple(torch.empty(clip, device="meta") for clip in clips))
    verdicts = []
    for tool in tools:
        answer = ask_child(tool, build, clips, timeout_s=timeout_s)
        if "testimony" in answer:
            verdicts.append(judge(counted, Testimony.from_dict(answer["testimony"])))
        else:
            verdicts.append(failed(tool, _version(tool), ours=counted.macs, error=str(answer["error"])))
    return tuple(verdicts)


def ask_child(
    tool: str, build: Callable[[], nn.Module], clips: Sequence[Sequence[int]], *, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """The child's answer: `testimony` or `error`, with `seconds` and `peak_bytes` of the counting alone."""
    with TemporaryDirectory(prefix="vbench-witness-") as folder:
        request, answer = Path(folder) / "request.pickle", Path(folder) / "answer.json"
        try:
            request.write_bytes(pickle.dumps({"build": build, "clips": [list(clip) for clip in clips]}))
        except Exception as error:
            return {"error": f"the network cannot be sent to another process: {type(error).__name__}: {error}"}
        alone = {**environment_with_import_path(), "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "bench.measure.counting.witnesses.child", tool, str(request), str(answer)]
        try:
            child = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"gave no answer in {timeout_s:g} s"}
        if not answer.is_file():
            return {"error": f"died with exit code {child.returncode}: {last_line(child.stderr)}"}
        heard: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return heard


def _version(tool: str) -> str:
    try:
        return version(tool.partition("-")[0])
    except PackageNotFoundError:
        return "not installed"
