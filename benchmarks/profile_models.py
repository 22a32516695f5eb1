"""Measures what `vbench profile NAME` takes for each registered model, in imports of torch.

    python benchmarks/profile_models.py ['PATTERN' ...] > benchmarks/profile_models.md

CPU time, not time on the clock, so that other processes change it little. Each model is counted in a fork of a process
that has imported what every profile imports, and that time is added: as in a new process, a model pays for what it
alone imports, such as PyTorch's compiler. The budget is three imports of torch.
"""

import json
import os
import sys
import time
from typing import Any

BUDGET = 3.0
COMPILER = "torch._dynamo"


def main() -> None:
    began = time.process_time()
    import torch  # noqa: F401  # this import is the unit

    torch_s = time.process_time() - began
    import bench.measure.counting.model_count  # noqa: F401  # what every profile imports
    from bench.models.factory import list_models

    names = list_models(sys.argv[1:] or "*")
    imports_s = time.process_time() - began
    rows = []
    for name in names:
        seconds, counted_on, has_compiler = _in_fork(name)
        rows.append((imports_s + seconds, name, counted_on, "yes" if has_compiler else "no"))
        print(f"{name} {(imports_s + seconds) / torch_s:.2f}", file=sys.stderr, flush=True)
    rows.sort(reverse=True)
    late = sum(seconds > BUDGET * torch_s for seconds, *_ in rows)
    print("# CPU time of a profile\n")
    print(f"`import torch` takes {torch_s:.2f} s. {late} of {len(rows)} models take more than {BUDGET:g} times that.\n")
    print("| model | seconds | imports of torch | counted on | imports the compiler |\n|---|---|---|---|---|")
    for seconds, name, device, compiler in rows:
        print(f"| {name} | {seconds:.2f} | {seconds / torch_s:.2f} | {device} | {compiler} |")


def _in_fork(name: str) -> tuple[float, str, bool]:
    """Return CPU seconds of counting one model, the device it was counted on, and whether the compiler was imported."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        with os.fdopen(sender, "w") as answer:
            json.dump(_count(name), answer)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    seconds, counted_on, has_compiler = json.loads(text)
    return seconds, counted_on, has_compiler


def _count(name: str) -> tuple[float, str, bool]:
    from bench.profiling import _counted

    began = time.process_time()
    request: dict[str, Any] = {"model": name, "shapes": None, "num_classes": None, "arguments": {}, "device": "meta"}
    found = _counted({**request, "counters": ["torch"], "views": "1x1"}, weights=None, entry=None)
    return time.process_time() - began, found.counted_on, COMPILER in sys.modules


if __name__ == "__main__":
    main()
