"""Takes the samples of one timing of a case, and puts into its record what the clocks and the device said meanwhile."""

import os
import time
from collections.abc import Callable

import torch

from bench.core.schema import Json
from bench.core.stats import median
from bench.measure.context import CaseContext
from bench.measure.timing.protocol import Protocol, Sample, Timing, take_samples
from bench.measure.timing.turn_taking import TurnTaking
from bench.measure.timing.watching import Watch, watch_of

# A process that computes or spins holds a core all the time; one that lost a tenth of it was waiting for a turn.
RUNNING_SHARE = 0.9
FEW = 0.05
TURNS_A_CORE = 8


def take(case: CaseContext, step: Callable[[], Sample], *, what: str, max_s: float) -> Timing:
    """Time `step` by the protocol, warming up for at most `max_s` too. `what` names it in the record."""
    watch = watch_of(case.device)
    with case.turn_taking.held():
        timing = take_samples(
            in_turns(step, case.turn_taking),
            Protocol(max_s=max_s, warmup_s=min(Protocol.warmup_s, max_s)),
            clock_s=case.turn_taking.clock_s,
            is_slowed=watch.look,
            wait=time.sleep,
            on_warm=case.turn_taking.meet,
        )
    case.note(what, describe(timing, watch))
    warn_of_device(case, timing, what)
    _warn_of_waiting(case, timing, what)
    return timing


def in_turns(step: Callable[[], Sample], turn_taking: TurnTaking) -> Callable[[], Sample]:
    """`step`, before which the floor is passed on where another wants it too; each sample knows its turn.

    Every few turns a process of one thread begins anew on its next core, as the other does: else each would stay on its
    own, and what is wrong with that core would be in one side alone. From there the system may move it.
    """
    if not turn_taking.is_shared:
        return step
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    is_going_round = torch.get_num_threads() == 1 and len(cores) > 1

    def turned() -> Sample:
        before = turn_taking.turn
        turn_taking.pass_on()
        if is_going_round and turn_taking.turn != before and turn_taking.turn % TURNS_A_CORE == 0:
            os.sched_setaffinity(0, {cores[turn_taking.turn // TURNS_A_CORE % len(cores)]})
            os.sched_setaffinity(0, cores)
        return step()._replace(turn=turn_taking.turn)

    return turned


def describe(timing: Timing, watch: Watch | None = None) -> dict[str, Json]:
    """What is known of a timing beside its wall samples: warm-up, discarded samples, second clock, device."""
    gpu = watch.summary() if watch else None
    return {
        "warmup_samples": timing.warmup_samples,
        "discarded_samples": timing.discarded,
        "stopped_because": timing.stopped_because,
        **_second_clock(timing),
        **({"gpu": gpu} if gpu else {}),
    }


def descheduled_share(timing: Timing) -> float | None:
    """Share of the samples in which the process did not hold even one core; None without processor time."""
    known = [sample for sample in timing.samples if sample.cpu_s is not None]
    if not known:
        return None
    return sum(1 for sample in known if (sample.cpu_s or 0.0) < RUNNING_SHARE * sample.wall_s) / len(known)


def _second_clock(timing: Timing) -> dict[str, Json]:
    """Milliseconds of the second clock, sample by sample, with what they say of the wall clock's.

    `launching_p50_ms` is how long queueing the work held the host. Where that is nearly all of `device_p50_ms`, the
    device waits for launches, and a graph gains. `launch_overhead_p50_ms`, wall less device, says nothing of this: it
    is what comes before the first kernel and after the last, mostly waiting to be told of the end.
    """
    on_device = [1000 * s.device_s for s in timing.samples if s.device_s is not None]
    if on_device:
        beside = [1000 * (s.wall_s - s.device_s) for s in timing.samples if s.device_s is not None]
        launching = [1000 * s.launched_s for s in timing.samples if s.launched_s is not None]
        return {
            "device_p50_ms": median(on_device),
            "launch_overhead_p50_ms": median(beside),
            **({"launching_p50_ms": median(launching)} if launching else {}),
            "device_ms": list(on_device),
        }
    on_cpu = [1000 * s.cpu_s for s in timing.samples if s.cpu_s is not None]
    if on_cpu:
        return {
            "cpu_p50_ms": median(on_cpu),
            "descheduled_share": descheduled_share(timing),
            "cpu_ms": list(on_cpu),
        }
    return {}


def warn_of_device(case: CaseContext, timing: Timing, what: str) -> None:
    """Say where the device slowed itself down, or never became steady."""
    if timing.stopped_because == "throttled":
        case.warn(
            f"{what}: the device slowed itself down and did not recover",
            "let it cool, raise its power limit or lock its clock: see `vbench doctor --gpu`",
        )
    elif timing.discarded:
        case.warn(
            f"{what}: {timing.discarded} samples of a slowed device were thrown away", "see `vbench doctor --gpu`"
        )
    if not timing.is_steady:
        case.warn(
            f"{what} did not become steady within its warm-up",
            "see `vbench doctor` for what disturbs this machine, then run the case again",
        )


def _warn_of_waiting(case: CaseContext, timing: Timing, what: str) -> None:
    waiting = descheduled_share(timing)
    if waiting is not None and waiting > FEW:
        case.warn(
            f"{what}: in {waiting:.0%} of the samples this process waited for a core",
            "stop what else is running, or take fewer threads",
        )
