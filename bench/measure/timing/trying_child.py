"""The process that tries one way to run a network: its rate first, then its parity with eager fp32."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.core.errors import is_out_of_memory
from bench.core.stats import median
from bench.measure.context import CaseContext
from bench.measure.timing.child import case_of
from bench.measure.timing.outputs import compare_with_eager, keep_logits, worst
from bench.measure.timing.variants import forward_of

CLIPS = 8
BLOCK_S = 0.1
BLOCKS_S = 1.0
FEWEST = 5


def main() -> None:
    """Answer one request. What a model prints goes to standard error."""
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.read())
    answer = answer_to(case_of(asked), is_waited_for=asked["is_waited_for"])
    Path(asked["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def answer_to(case: CaseContext, *, is_waited_for: bool) -> dict[str, Any]:
    """The fields of a `Trial` beside its way."""
    found: dict[str, Any] = {}
    try:
        found["clips_per_s"] = _rate(case, is_waited_for=is_waited_for)
        parity = worst(compare_with_eager(case, clips=CLIPS).values())
    except Exception as error:  # whatever a model, a compiler or a device raises is why this way falls out
        said = str(error).strip().partition("\n")[0]
        return {**found, "fell_out": "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {said}"}
    found |= {"max_difference": parity.max_difference, "top1_agreement": parity.top1_agreement}
    return found if parity.is_within else {**found, "fell_out": f"out of tolerance: {parity.in_words}"}


def _rate(case: CaseContext, *, is_waited_for: bool) -> float:
    """Clips/s: the median of passes, or of blocks of passes, over a second once it is warm."""
    forward = forward_of(case)(case.point.batch or 1)
    warm_s = max(1e-6, forward.warm().wall_s)
    steps = 1 if is_waited_for else max(1, round(BLOCK_S / warm_s))
    seconds: list[float] = []
    started_s = time.monotonic()
    while len(seconds) < FEWEST or time.monotonic() - started_s < BLOCKS_S:
        seconds.append((forward.latency() if is_waited_for else forward.block(steps)).wall_s)
    keep_logits(case, forward)
    return forward.batch / median(seconds)


if __name__ == "__main__":
    main()
