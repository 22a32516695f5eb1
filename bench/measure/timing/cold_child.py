"""The cold process: reads a case, and writes how long each stretch took until its first logits and a little beyond."""

import json
import sys
import time
from pathlib import Path

STEADY_STEPS = 3


def main() -> None:
    """Nothing heavy is imported before the clock of the imports runs."""
    here_s = time.monotonic()
    asked = json.loads(sys.stdin.read())
    seconds = {"interpreter_s": here_s - asked["spawned_s"]}
    started_s = time.monotonic()
    from bench.measure.timing.child import case_of
    from bench.measure.timing.clocks import synchronize
    from bench.measure.timing.output_check import check_outputs
    from bench.measure.timing.variants import variant_of

    case = case_of(asked)
    seconds["import_s"] = time.monotonic() - started_s

    started_s = time.monotonic()
    variant = variant_of(case)
    clips = variant.inputs(case.point.batch or 1)
    synchronize(variant.device)
    seconds["build_s"] = time.monotonic() - started_s

    started_s = time.monotonic()
    forward = variant.over(clips)
    forward.synchronize()
    seconds["prepare_s"] = time.monotonic() - started_s

    seconds["first_step_s"] = forward.latency().wall_s
    seconds["steady_step_s"] = min(forward.latency().wall_s for _ in range(STEADY_STEPS))
    check_outputs(case, forward)
    Path(asked["answer"]).write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
