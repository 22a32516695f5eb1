"""The process of one witness: builds the network, lets the counter count it, writes down what it said."""

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

from bench.measure.counting.witnesses.testimony import Testimony

BYTES_PER_UNIT = 1024 if sys.platform != "darwin" else 1


def main() -> None:
    """`python -m bench.measure.counting.witnesses.child TOOL REQUEST ANSWER`."""
    tool, request, answer = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    try:
        said = _heard(tool, pickle.loads(request.read_bytes()))
    except Exception as error:
        traceback.print_exc()
        said = {"error": f"{type(error).__name__}: {error}"}
    answer.write_text(json.dumps(said), encoding="utf-8")


def _heard(tool: str, request: dict[str, Any]) -> dict[str, Any]:
    witness = witness_called(tool)
    torch.manual_seed(0)
    model = request["build"]().eval()
    inputs = tuple(torch.randn(clip) for clip in request["clips"])
    before, started = _peak_bytes(), time.perf_counter()
    with torch.no_grad():
        testimony = witness(model, inputs)
    seconds = time.perf_counter() - started
    return {"testimony": testimony.as_dict(), "seconds": seconds, "peak_bytes": _peak_bytes() - before}


def witness_called(tool: str) -> Callable[[nn.Module, tuple[Tensor, ...]], Testimony]:
    """The function that lets a counter speak in this process; its library is imported now, outside its time."""
    library, _, backend = tool.partition("-")
    importlib.import_module({"fvcore": "fvcore.nn", "vbench": "bench"}.get(library, library))
    rules = importlib.import_module(f"bench.measure.counting.witnesses.by_{library}")
    function: Callable[[nn.Module, tuple[Tensor, ...]], Testimony] = getattr(rules, f"testify_{backend or library}")
    return function


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT


if __name__ == "__main__":
    main()
