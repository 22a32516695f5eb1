"""Energy of a clip: NVML's counter on a GPU, RAPL's on a CPU; of processor and memory also what codecarbon says."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Better, Metric
from bench.measure.axes import TIMING_AXES
from bench.measure.carbon import SHORTEST_S, Used, require_country, sources, tracked
from bench.measure.context import CaseContext
from bench.measure.energy_counter import EnergyCounter, counter_of

if TYPE_CHECKING:
    from bench.measure.timing.variants import Forward

NO_COUNTRY = "no country is given; say `energy: {country: FRA}`"
NOT_ABOVE = "no more was used than while the device was idle; take more seconds or a larger batch"

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

    They are the device's, from its counter: null with the reason where the machine has none, for a figure guessed from
    the processor's name is not measured. With a `country` (a code of three letters, such as FRA) codecarbon tells apart
    from them, offline, the joules of processor and memory, each noted as measured or estimated, and the CO2e by the
    electricity of that country; it needs 10 seconds.
    """
    counter, untold = counter_of(case.device), _why_untold(country, seconds=seconds)
    if counter is None and untold:
        return [*_of_counter(None, why=_why_unknown(case.device)), *_of_carbon(None, why=untold)]
    spent, used = _measure(case, counter, seconds=seconds, country=None if untold else country)
    case.note(
        "energy",
        {
            **asdict(spent),
            "source": counter.name if counter else None,
            "codecarbon": {**asdict(used), "from": sources()} if used else None,
        },
    )
    device = _of_counter(spent, source=counter.name) if counter else _of_counter(None, why=_why_unknown(case.device))
    return [*device, *(_of_carbon((spent, used)) if used else _of_carbon(None, why=untold))]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What some passes over `clips` used by the counter of their device; None where it has none."""

    clips: int
    seconds: float
    joules: float | None
    idle_w: float | None


def _measure(
    case: CaseContext, counter: EnergyCounter | None, *, seconds: float, country: str | None
) -> tuple[Spent, Used | None]:
    from bench.measure.timing.variants import forward_of

    forward = forward_of(case)(case.point.batch or 1)
    forward.warm()
    idle_w = _idle_watts(counter, seconds=min(2.0, seconds)) if counter else None
    with ExitStack() as stack:
        tracking = stack.enter_context(tracked(country)) if country else None
        before_j, started_s = counter.joules() if counter else None, time.perf_counter()
        clips = _pass_over(forward, seconds=seconds)
        after_j, spent_s = counter.joules() if counter else None, time.perf_counter() - started_s
    joules = None if before_j is None or after_j is None or after_j < before_j else after_j - before_j
    spent = Spent(clips=clips, seconds=spent_s, joules=joules, idle_w=idle_w)
    return spent, tracking.used if tracking else None


def _of_counter(spent: Spent | None, *, source: str = "", why: str | None = None) -> list[Metric]:
    """The device's own metrics; all null with the reason `why` where its counter said nothing."""
    joules = spent.joules if spent else None
    if spent is None or not joules:
        why = why or f"{source} did not rise, or began anew meanwhile"
        return [
            _metric("j_per_clip", None, note=why),
            _metric("j_per_clip_above_idle", None, note=why),
            _metric("clips_per_j", None, unit="clips/J", better="higher", note=why),
        ]
    above_j = joules - (spent.idle_w or 0.0) * spent.seconds
    return [
        _metric("j_per_clip", joules / spent.clips, note=f"from {source}, idle power included"),
        _metric(
            "j_per_clip_above_idle",
            above_j / spent.clips if above_j > 0 else None,
            note=f"{spent.idle_w or 0.0:.1f} W of the idle device are taken off" if above_j > 0 else NOT_ABOVE,
        ),
        _metric("clips_per_j", spent.clips / joules, unit="clips/J", better="higher"),
    ]


def _of_carbon(told: tuple[Spent, Used] | None, *, why: str = "") -> list[Metric]:
    """What codecarbon says, by clip: its mean power over the time of the passes. Null with the reason `why`."""
    if told is None:
        return [
            _metric("cpu_j_per_clip", None, note=why),
            _metric("ram_j_per_clip", None, note=why),
            _metric("co2e_g_per_clip", None, unit="g", note=why),
        ]
    spent, used = told
    by_clip, known_by = spent.seconds / used.seconds / spent.clips, sources()
    return [
        *(_part(name, used, by_clip=by_clip, known_by=known_by) for name in ("cpu", "ram")),
        _metric(
            "co2e_g_per_clip",
            None if used.co2e_g is None else used.co2e_g * by_clip,
            unit="g",
            note=f"{used.by}, electricity of {used.country}, of processor, memory and all GPUs; estimated",
        ),
    ]


def _part(name: str, used: Used, *, by_clip: float, known_by: Mapping[str, str]) -> Metric:
    joules = used.joules[name]
    note = f"{used.by}, {known_by[name]}" if joules else f"{used.by} reads none"
    return _metric(f"{name}_j_per_clip", joules * by_clip if joules else None, note=note)


def _metric(
    name: str, value: float | None, *, unit: str = "J", better: Better = "lower", note: str | None = None
) -> Metric:
    return Metric(name=f"energy.{name}", value=value, unit=unit, better=better, note=note)


def _why_untold(country: str | None, *, seconds: float) -> str:
    """Why codecarbon is not asked; empty where it is. InputError for what is no country."""
    if country is None:
        return NO_COUNTRY
    require_country(country)
    return "" if seconds >= SHORTEST_S else f"codecarbon needs {SHORTEST_S:.0f} s; these are {seconds:g}"


def _idle_watts(counter: EnergyCounter, *, seconds: float) -> float:
    before, started = counter.joules(), time.perf_counter()
    time.sleep(seconds)
    after, spent = counter.joules(), time.perf_counter() - started
    return max(0.0, ((after or 0.0) - (before or 0.0)) / spent)


def _pass_over(forward: "Forward", *, seconds: float) -> int:
    """The clips of at least `seconds` of passes."""
    started, clips = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        forward.block(3)
        clips += 3 * forward.batch
    return clips


def _why_unknown(device: str) -> str:
    if device.startswith("cuda"):
        return "NVML does not tell this GPU's energy"
    return "no energy counter of this processor can be read (RAPL); a guess from its name would not be a measurement"
