"""Tries ways to run a case's network, each in a process of its own, and tells the record what came of every one."""

import time
from collections.abc import Callable
from dataclasses import replace

from bench.core.errors import InputError
from bench.core.schema import Json
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode, execution_mode_of
from bench.measure.fastest import Search, Space, Trial, find_fastest
from bench.measure.timing.child import ask_child, request_of
from bench.measure.timing.outputs import compare_with_eager
from bench.measure.timing.variants import Forward, forward_of, release

CHILD = "bench.measure.timing.trying_child"
TRIAL_S = 900.0


def fastest_mode(
    case: CaseContext, search: Search | Json, *, batch: int, what: str, is_waited_for: bool
) -> Trial | None:
    """The fastest way at this batch whose outputs match, by latency where each pass `is_waited_for`, else throughput.

    The record's detail `<what>.search` has every way with its figures, or why it fell out. None where the case is not
    eager fp32, which the others are compared with: a suite may vary the axes as well. Where nothing runs and matches it
    is eager fp32 with why that fell out too.
    """
    if execution_mode_of(case.point) != ExecutionMode():
        case.note(f"{what}.search", "not here: the case of eager fp32 has it")
        return None
    space = Space() if search == "best" else Space.model_validate(search)
    ends_s = time.monotonic() + space.budget_s

    def attempt(mode: ExecutionMode) -> Trial:
        case.progress(f"{what}, batch {batch}, trying {mode}")
        left_s = max(1.0, ends_s - time.monotonic())
        return try_mode(case, mode, batch=batch, is_waited_for=is_waited_for, timeout_s=min(TRIAL_S, left_s))

    trials = find_fastest(space, attempt, device=case.device, is_over=lambda: time.monotonic() > ends_s)
    known = case.details.get(f"{what}.search")
    told = [trial.as_dict() for trial in trials]
    case.note(f"{what}.search", {**(known if isinstance(known, dict) else {}), f"batch {batch}": told})
    if trials[0].fell_out is None:
        return trials[0]
    eager = next(trial for trial in trials if trial.mode == ExecutionMode())
    case.warn(f"{what}, batch {batch}: {eager}", f"see the record's detail {what}.search for what was tried")
    return eager


def try_mode(case: CaseContext, mode: ExecutionMode, *, batch: int, is_waited_for: bool, timeout_s: float) -> Trial:
    """Clips/s and parity of one way, taken in a fresh process; whatever goes wrong there is why it falls out."""
    request = {**request_of(in_mode(case, mode, batch=batch)), "is_waited_for": is_waited_for}
    try:
        answer = ask_child(CHILD, request, timeout_s=timeout_s, what="trial")
    except (InputError, MemoryError) as error:
        return Trial(mode=mode, fell_out=str(error))
    return Trial(mode=mode, **answer)


def in_mode(case: CaseContext, mode: ExecutionMode, *, batch: int) -> CaseContext:
    """The same case, its network run in another way."""
    point = case.point.model_copy(update={**mode.model_dump(), "batch": batch, "device": case.device})
    return CaseContext(case.case.model_copy(update={"point": point}), artifacts=case.artifacts, session=case.session)


def still_matching(case: CaseContext, timed: CaseContext, best: Trial) -> Trial:
    """The best way with its parity at the batch that was `timed` in it, where it may fall out yet; `case` is told."""
    ((batch, parity),) = compare_with_eager(timed, clips=1).items()
    fell_out = None if parity.is_within else f"out of tolerance at batch {batch}: {parity.in_words}"
    if fell_out:
        case.warn(f"the best variant ({best.mode}) is {fell_out}", "vary its axes in a suite to see where it matches")
    return replace(best, max_difference=parity.max_difference, top1_agreement=parity.top1_agreement, fell_out=fell_out)


def forward_in(case: CaseContext, mode: ExecutionMode, *, batch: int) -> Callable[[int], Forward]:
    """The forward passes of the case's network run in another way; what was on the device before is let go."""
    release()
    return forward_of(in_mode(case, mode, batch=batch))
