"""Tries execution modes of a case, each in a child process, and records the outcome of each."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.core.errors import InputError, is_out_of_memory
from bench.core.process import ReplyPipe, read_request
from bench.core.schema import Json
from bench.core.stats import median
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode, execution_mode_of
from bench.measure.fastest import Search, Space, Trial, find_fastest
from bench.measure.timing.case_process import case_from_request, case_request, run_in_child
from bench.measure.timing.forward import Forward, forward_of, free_device_memory
from bench.measure.timing.parity_check import compare_with_eager, keep_logits, worst_parity

TRIAL_S = 900.0
PARITY_CLIPS = 8
BLOCK_S = 0.1
SAMPLING_S = 1.0
MIN_SAMPLES = 5


def fastest_mode(
    case: CaseContext, search: Search | Json, *, batch: int, what: str, is_synchronous: bool
) -> Trial | None:
    """The fastest execution mode at this batch whose outputs match; ranked by latency if `is_synchronous`.

    `is_synchronous` means that each pass is waited for; otherwise throughput decides. The detail `<what>.search` of the
    record holds every mode with its metrics, or why it was ruled out. Returns None if the case itself is not eager
    fp32, which the other modes are compared with (a suite may vary the same axes). If no mode runs and matches, returns
    the trial of eager fp32.
    """
    if execution_mode_of(case.point) != ExecutionMode():
        case.note(f"{what}.search", "not searched here: the case of eager fp32 has the result")
        return None
    space = Space() if search == "best" else Space.model_validate(search)
    ends_s = time.monotonic() + space.budget_s

    def attempt(mode: ExecutionMode) -> Trial:
        case.progress(f"{what}, batch {batch}, trying {mode}")
        left_s = max(1.0, ends_s - time.monotonic())
        return try_mode(case, mode, batch=batch, is_synchronous=is_synchronous, timeout_s=min(TRIAL_S, left_s))

    trials = find_fastest(space, attempt, device=case.device, is_over=lambda: time.monotonic() > ends_s)
    earlier = case.details.get(f"{what}.search")
    outcomes = [trial.as_dict() for trial in trials]
    case.note(f"{what}.search", {**(earlier if isinstance(earlier, dict) else {}), f"batch {batch}": outcomes})
    if trials[0].fell_out is None:
        return trials[0]
    eager = next(trial for trial in trials if trial.mode == ExecutionMode())
    case.warn(f"{what}, batch {batch}: {eager}", f"see the record's detail {what}.search for what was tried")
    return eager


def try_mode(case: CaseContext, mode: ExecutionMode, *, batch: int, is_synchronous: bool, timeout_s: float) -> Trial:
    """Clips/s and parity of one execution mode, measured in a child process; any failure rules the mode out."""
    request = {**case_request(case_in_mode(case, mode, batch=batch)), "is_synchronous": is_synchronous}
    try:
        found = run_in_child(f"{__name__}:reply_with_trial", request, timeout_s=timeout_s, what="trial")
    except (InputError, MemoryError) as error:
        return Trial(mode=mode, fell_out=str(error))
    return Trial(mode=mode, **found)


def case_in_mode(case: CaseContext, mode: ExecutionMode, *, batch: int) -> CaseContext:
    """The same case in another execution mode."""
    point = case.point.model_copy(update={**mode.model_dump(), "batch": batch, "device": case.device})
    return CaseContext(case.case.model_copy(update={"point": point}), artifacts=case.artifacts, session=case.session)


def forward_in_mode(case: CaseContext, mode: ExecutionMode, *, batch: int) -> Callable[[int], Forward]:
    """The forward passes of the case in another execution mode; frees the device memory first."""
    free_device_memory()
    return forward_of(case_in_mode(case, mode, batch=batch))


def recheck_parity(case: CaseContext, timed: CaseContext, best: Trial) -> Trial:
    """The best trial with its parity at the batch of `timed`, which may rule it out; then `case` gets a warning."""
    ((batch, parity),) = compare_with_eager(timed, clips=1).items()
    fell_out = None if parity.is_within else f"out of tolerance at batch {batch}: {parity}"
    if fell_out:
        case.warn(f"the best variant ({best.mode}) is {fell_out}", "vary its axes in a suite to see where it matches")
    return replace(best, max_difference=parity.max_difference, top1_agreement=parity.top1_agreement, fell_out=fell_out)


def reply_with_trial() -> None:
    """In the child: reply with the fields of a `Trial` except its mode."""
    request, reply = read_request(), ReplyPipe()
    reply.send(**trial_of(case_from_request(request), is_synchronous=request["is_synchronous"]))


def trial_of(case: CaseContext, *, is_synchronous: bool) -> dict[str, Any]:
    """The fields of a `Trial` except its mode: clips/s, parity, and why the mode is ruled out."""
    found: dict[str, Any] = {}
    try:
        found["clips_per_s"] = _rate(case, is_synchronous=is_synchronous)
        parity = worst_parity(compare_with_eager(case, clips=PARITY_CLIPS).values())
    except Exception as error:  # whatever a model, a compiler or a device raises rules this mode out
        first_line = str(error).strip().partition("\n")[0]
        reason = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {first_line}"
        return {**found, "fell_out": reason}
    found |= {"max_difference": parity.max_difference, "top1_agreement": parity.top1_agreement}
    return found if parity.is_within else {**found, "fell_out": f"out of tolerance: {parity}"}


def _rate(case: CaseContext, *, is_synchronous: bool) -> float:
    """Clips/s: the median over a second of passes, or of blocks of passes, after the warm-up."""
    forward = forward_of(case)(case.point.batch or 1)
    warm_s = max(1e-6, forward.warm().wall_s)
    steps = max(1, round(BLOCK_S / warm_s))
    seconds: list[float] = []
    started_s = time.monotonic()
    while len(seconds) < MIN_SAMPLES or time.monotonic() - started_s < SAMPLING_S:
        seconds.append((forward.latency() if is_synchronous else forward.block(steps)).wall_s)
    keep_logits(case, forward)
    return forward.batch / median(seconds)
