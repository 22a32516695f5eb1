"""The process that tries batches: a case on its first line, then one batch a line, one answer a line."""

import json
import os
import sys
from collections.abc import Callable, Iterator

import torch

from bench.core.errors import is_out_of_memory
from bench.measure.timing.child import case_of
from bench.measure.timing.variants import Forward, forward_of

BLOCK_S = 0.2


def main() -> None:
    """Answer until nothing more is asked. What a model prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines = iter(sys.stdin.readline, "")
    for answer in _answers(lines):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answers(lines: Iterator[str]) -> Iterator[dict[str, float | str]]:
    case = case_of(json.loads(next(lines)))
    at: Callable[[int], Forward] | None = None
    for line in lines:
        try:
            at = at or forward_of(case)
            yield {"clips_per_s": _rate(at(int(line)))}
        except Exception as error:  # whatever a model or a device raises is the answer
            yield {"error": "oom" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"}
        if torch.cuda.is_available():
            _empty_cache()


def _rate(forward: Forward) -> float:
    steps = max(2, round(BLOCK_S / max(1e-6, forward.warm().wall_s)))
    return forward.batch / forward.block(steps).wall_s


def _empty_cache() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # a broken context; this process is about to be replaced
        return


if __name__ == "__main__":
    main()
