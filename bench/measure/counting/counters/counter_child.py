"""The child process of one counter: builds the model, runs the counter, writes its report to a file."""

import importlib
import json
import pickle
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.counting.counters.counter_report import CounterReport

BYTES_PER_UNIT = 1024 if sys.platform != "darwin" else 1


def main() -> None:
    """`python -m bench.measure.counting.counters.counter_child TOOL REQUEST ANSWER`."""
    tool, request, answer = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    try:
        answer_of_tool = _counted(tool, pickle.loads(request.read_bytes()))
    except Exception as error:  # another counter may raise anything; its column shows the error
        traceback.print_exc()
        answer_of_tool = {"error": f"{type(error).__name__}: {error}"}
    answer.write_text(json.dumps(answer_of_tool), encoding="utf-8")


def _counted(tool: str, request: dict[str, Any]) -> dict[str, Any]:
    count_model = counter_function(tool)
    torch.manual_seed(0)
    model = request["build"]().eval()
    inputs = tuple(torch.randn(clip) for clip in request["clips"])
    before, started = _peak_bytes(), time.perf_counter()
    with torch.no_grad():
        report = count_model(model, inputs)
    seconds = time.perf_counter() - started
    return {"report": report.as_dict(), "seconds": seconds, "peak_bytes": _peak_bytes() - before}


def counter_function(tool: str) -> Callable[[nn.Module, tuple[Tensor, ...]], CounterReport]:
    """Return the function that runs a counter in this process; its library is imported now, outside the timed part."""
    library, _, backend = tool.partition("-")
    importlib.import_module({"fvcore": "fvcore.nn", "vbench": "bench"}.get(library, library))
    library_file = "own_report" if library == "vbench" else f"{library}_report"
    rules = importlib.import_module(f"bench.measure.counting.counters.{library_file}")
    function: Callable[[nn.Module, tuple[Tensor, ...]], CounterReport] = getattr(
        rules, f"count_with_{backend or library}"
    )
    return function


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT


if __name__ == "__main__":
    main()
