"""The cost of a training, in total and until it reached an accuracy: seconds, joules and CO2e."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.metric_spec import MetricSpec
from bench.core.schema import Metric
from bench.measure.carbon import SHORTEST_S, sources, tracked

if TYPE_CHECKING:
    from bench.train.curves import EpochRow

FILE = "carbon.json"

TIME_TO_REACH = MetricSpec(
    "accuracy.time_to_top1_s",
    "s",
    "lower",
    title="Time to top-1",
    meaning="time of training and validation until the validated top-1 was as good",
)
ENERGY_TO_REACH = MetricSpec(
    "accuracy.energy_to_top1_j",
    "J",
    "lower",
    title="Energy to top-1",
    meaning="joules of the device until the validated top-1 was as good",
)
TRAIN_GPU = MetricSpec(
    "accuracy.train_gpu_j", "J", "lower", title="Training energy, GPU", meaning="joules of all GPUs in the training"
)
TRAIN_CPU = MetricSpec(
    "accuracy.train_cpu_j",
    "J",
    "lower",
    title="Training energy, CPU",
    meaning="joules of the processor in the training",
)
TRAIN_RAM = MetricSpec(
    "accuracy.train_ram_j",
    "J",
    "lower",
    title="Training energy, memory",
    meaning="joules of main memory in the training",
)
TRAIN_CO2E = MetricSpec(
    "accuracy.train_co2e_g",
    "g",
    "lower",
    title="Training CO2e",
    meaning="estimated grams of CO2 equivalent of the training, with the electricity of the given country",
)
TRAINING_COSTS = (TIME_TO_REACH, ENERGY_TO_REACH, TRAIN_GPU, TRAIN_CPU, TRAIN_RAM, TRAIN_CO2E)


def cost_to_reach(rows: Sequence["EpochRow"], levels: Sequence[float]) -> Iterator[Metric]:
    """Seconds and joules of a training, validations included, until an epoch first reached each level of top-1 in %.

    They are null with the reason if no epoch reached or validated it, or if no energy counter could be read.
    """
    for level in levels:
        row = next((row for row in rows if (row.get("val_top1") or 0) >= level), None)
        why = None if row else _why_not_reached(rows)
        seconds, joules = (None, None) if row is None else (row["seconds"], row.get("energy_j"))
        labels = {"top1": f"{level:g}"}
        yield TIME_TO_REACH.metric(seconds, labels=labels, note=why)
        if why is None and joules is None:
            why = "no energy counter could be read"
        yield ENERGY_TO_REACH.metric(joules, labels=labels, note=why)


def _why_not_reached(rows: Sequence["EpochRow"]) -> str:
    seen = [value for row in rows if (value := row.get("val_top1")) is not None]
    if not seen:
        return "the recipe validates no epoch"
    return f"not reached: the best of {len(rows)} epochs had {max(seen):.1f} %"


@contextmanager
def carbon_kept(folder: Path, *, country: str | None) -> Iterator[None]:
    """Measure the block by codecarbon, with the electricity of `country` (such as FRA), and write a file to `folder`.

    Without a country nothing is measured. If the block resumes a training, the energy of its first part is unknown, and
    the file is marked `is_rest`.
    """
    if country is None:
        yield
        return
    from bench.train.checkpointing import has_states, write_text

    is_rest = has_states(folder)
    with tracked(country) as tracking:
        yield
    write_text(folder / FILE, json.dumps({**asdict(tracking.used), "is_rest": is_rest}))


def carbon_metrics(folder: Path) -> Iterator[Metric]:
    """The metrics of what `carbon_kept` wrote to `folder`, none if it did not. Unknown parts are null.

    All of them are null if the training was interrupted, since the energy of its first part is unknown.
    """
    file = folder / FILE
    if not file.is_file():
        return
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    why = _why_unknown(found)
    how = sources()
    for part, spec in (("gpu", TRAIN_GPU), ("cpu", TRAIN_CPU), ("ram", TRAIN_RAM)):
        joules = found["joules"][part] or None
        note = why or (f"{found['by']}, {how[part]}" if joules else f"{found['by']} has no value")
        yield spec.metric(None if why else joules, note=note)
    note = why or f"{found['by']}, electricity of {found['country']}, estimated"
    yield TRAIN_CO2E.metric(None if why else found["co2e_g"] or None, note=note)


def _why_unknown(found: dict[str, Any]) -> str | None:
    if found.get("is_rest"):
        return "the training resumed an interrupted one, whose energy is unknown"
    if found["seconds"] < SHORTEST_S:
        return f"trained for {found['seconds']:.1f} s; codecarbon needs {SHORTEST_S:.0f}"
    return None
