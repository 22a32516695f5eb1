"""Energy of one clip: by NVML's counter on a GPU and RAPL's on a CPU; of processor and memory also by codecarbon."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.carbon import SHORTEST_S, UsedEnergy, require_country, sources, tracked
from bench.measure.context import CaseContext
from bench.measure.energy_counter import EnergyCounter, counter_of

if TYPE_CHECKING:
    from bench.measure.timing.forward import Forward

NO_COUNTRY = "no country is given; write `energy: {country: FRA}`"
NOT_ABOVE = "no more was used than by the idle device; take more seconds or a larger batch"

CLIP = MetricSpec(
    "energy.j_per_clip", "J", "lower", title="Energy", meaning="joules of the device for one clip", headline=True
)
ABOVE_IDLE = MetricSpec(
    "energy.j_per_clip_above_idle",
    "J",
    "lower",
    title="Energy above idle",
    meaning="joules of the device for one clip, less what the idle device uses in that time",
)
CLIPS = MetricSpec(
    "energy.clips_per_j", "clips/J", "higher", title="Clips per joule", meaning="clips for one joule of the device"
)
CPU = MetricSpec(
    "energy.cpu_j_per_clip", "J", "lower", title="CPU energy", meaning="joules of the processor for one clip"
)
RAM = MetricSpec(
    "energy.ram_j_per_clip", "J", "lower", title="Memory energy", meaning="joules of main memory for one clip"
)
CO2E = MetricSpec(
    "energy.co2e_g_per_clip",
    "g",
    "lower",
    title="CO2e",
    meaning="estimated grams of CO2 equivalent for one clip, with the electricity of the given country",
)


@register_measure(
    "energy",
    depends_on=TIMING_AXES,
    version=1,
    is_sampled=True,
    metrics=(CLIP, ABOVE_IDLE, CLIPS, CPU, RAM, CO2E),
    duration_s=12.0,
    order=60,
)
def energy(case: CaseContext, *, seconds: float = 10.0, country: str | None = None) -> list[Metric]:
    """Joules per clip over at least `seconds` of the same forward pass, with and without the idle power.

    They come from the energy counter of the device, and are null with the reason if it has none: a value guessed from
    the name of the processor is not measured. With a `country` (a code of three letters, such as FRA) codecarbon adds,
    offline, the joules of processor and memory, each noted as measured or estimated, and the CO2e with the electricity
    of that country; it needs 10 seconds. Raises InputError for an unknown country code.
    """
    counter, why_no_carbon = counter_of(case.device), _why_no_carbon(country, seconds=seconds)
    why_no_counter = None if counter else _why_no_counter(case.device)
    if counter is None and why_no_carbon:
        return [*_device_metrics(None, why=why_no_counter), *_carbon_metrics(None, why=why_no_carbon)]
    passes, used = _measure(case, counter, seconds=seconds, country=None if why_no_carbon else country)
    case.note(
        "energy",
        {
            **asdict(passes),
            "source": counter.name if counter else None,
            "codecarbon": {**asdict(used), "from": sources()} if used else None,
        },
    )
    return [
        *_device_metrics(passes, source=counter.name if counter else "", why=why_no_counter),
        *_carbon_metrics((passes, used) if used else None, why=why_no_carbon),
    ]


@dataclass(frozen=True, kw_only=True)
class TimedPasses:
    """Passes over `clips` clips, with the joules of their device and its idle power; None if it has no counter."""

    clips: int
    seconds: float
    joules: float | None
    idle_w: float | None


def _measure(
    case: CaseContext, counter: EnergyCounter | None, *, seconds: float, country: str | None
) -> tuple[TimedPasses, UsedEnergy | None]:
    from bench.measure.timing.forward import forward_of

    forward = forward_of(case)(case.point.batch or 1)
    forward.warm()
    idle_w = _idle_watts(counter, seconds=min(2.0, seconds)) if counter else None
    with ExitStack() as stack:
        tracking = stack.enter_context(tracked(country)) if country else None
        before_j, started_s = counter.joules() if counter else None, time.perf_counter()
        clips = _run_passes(forward, seconds=seconds)
        after_j, spent_s = counter.joules() if counter else None, time.perf_counter() - started_s
    joules = None if before_j is None or after_j is None or after_j < before_j else after_j - before_j
    passes = TimedPasses(clips=clips, seconds=spent_s, joules=joules, idle_w=idle_w)
    return passes, tracking.used if tracking else None


def _run_passes(forward: "Forward", *, seconds: float) -> int:
    """Run forward passes for at least `seconds`; returns the number of clips."""
    started, clips = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        forward.block(3)
        clips += 3 * forward.batch
    return clips


def _idle_watts(counter: EnergyCounter, *, seconds: float) -> float:
    before, started = counter.joules(), time.perf_counter()
    time.sleep(seconds)
    after, spent = counter.joules(), time.perf_counter() - started
    return max(0.0, ((after or 0.0) - (before or 0.0)) / spent)


def _device_metrics(passes: TimedPasses | None, *, source: str = "", why: str | None = None) -> list[Metric]:
    """The metrics of the device's counter, all null with the reason `why` if it has no value."""
    if passes is None or not passes.joules:
        why = why or f"{source} did not rise, or was reset meanwhile"
        return [spec.metric(None, note=why) for spec in (CLIP, ABOVE_IDLE, CLIPS)]
    idle_w = passes.idle_w or 0.0
    above_j = passes.joules - idle_w * passes.seconds
    above = (
        ABOVE_IDLE.metric(above_j / passes.clips, note=f"less {idle_w:.1f} W of the idle device")
        if above_j > 0
        else ABOVE_IDLE.metric(None, note=NOT_ABOVE)
    )
    return [
        CLIP.metric(passes.joules / passes.clips, note=f"from {source}, idle power included"),
        above,
        CLIPS.metric(passes.clips / passes.joules),
    ]


def _carbon_metrics(measured: tuple[TimedPasses, UsedEnergy] | None, *, why: str = "") -> list[Metric]:
    """The metrics of codecarbon: its mean power times the time of a clip. Null with the reason `why`."""
    if measured is None:
        return [spec.metric(None, note=why) for spec in (CPU, RAM, CO2E)]
    passes, used = measured
    by_clip, known_by = passes.seconds / used.seconds / passes.clips, sources()
    metrics = []
    for part, spec in (("cpu", CPU), ("ram", RAM)):
        joules = used.joules[part]
        note = f"{used.by}, {known_by[part]}" if joules else f"{used.by} has no value"
        metrics.append(spec.metric(joules * by_clip if joules else None, note=note))
    grams = None if used.co2e_g is None else used.co2e_g * by_clip
    note = f"{used.by}, electricity of {used.country}, of processor, memory and all GPUs; estimated"
    return [*metrics, CO2E.metric(grams, note=note)]


def _why_no_carbon(country: str | None, *, seconds: float) -> str:
    """The reason why codecarbon is not used, empty if it is. Raises InputError for an unknown country code."""
    if country is None:
        return NO_COUNTRY
    require_country(country)
    return "" if seconds >= SHORTEST_S else f"codecarbon needs {SHORTEST_S:.0f} s; `seconds` is {seconds:g}"


def _why_no_counter(device: str) -> str:
    if device.startswith("cuda"):
        return "NVML has no energy counter of this GPU"
    return "no energy counter of this processor can be read (RAPL); a guess from its name would not be a measurement"
