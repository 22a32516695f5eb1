"""The cost of a training, in total and until it reached an accuracy: seconds, joules, CO2e."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.schema import Metric
from bench.measure.carbon import SHORTEST_S, sources, tracked

if TYPE_CHECKING:
    from bench.train.curves import EpochRow

FILE = "carbon.json"


def cost_to_reach(rows: Sequence["EpochRow"], levels: Sequence[float]) -> Iterator[Metric]:
    """Seconds and joules of a training, validations included, to the first epoch whose top-1 reaches each level, in %.

    Null with the reason if it was never reached or validated, or if no energy counter could be read.
    """
    for level in levels:
        row = next((row for row in rows if (row.get("val_top1") or 0) >= level), None)
        why = None if row else _why_never(rows)
        seconds, joules = (None, None) if row is None else (row["seconds"], row.get("energy_j"))
        labels = {"top1": f"{level:g}"}
        yield Metric(name="accuracy.time_to_top1_s", value=seconds, unit="s", better="lower", labels=labels, note=why)
        if why is None and joules is None:
            why = "no energy counter could be read"
        yield Metric(name="accuracy.energy_to_top1_j", value=joules, unit="J", better="lower", labels=labels, note=why)


def _why_never(rows: Sequence["EpochRow"]) -> str:
    seen = [value for row in rows if (value := row.get("val_top1")) is not None]
    if not seen:
        return "the recipe validates no epoch"
    return f"not reached: the best of {len(rows)} epochs had {max(seen):.1f} %"


@contextmanager
def carbon_kept(folder: Path, *, country: str | None) -> Iterator[None]:
    """Write the energy and CO2e of the block by codecarbon to `folder`, for the electricity of `country` (such as FRA).

    Without a country nothing happens. codecarbon's offline tracker is used: nothing leaves the machine. If the block
    resumes a training, the energy it used before is not known, and the file says so.
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
    """The metrics of what `carbon_kept` wrote to `folder`, if it did. Unknown parts are null.

    After an interruption all of them are null, since the energy used before it is not known.
    """
    file = folder / FILE
    if not file.is_file():
        return
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    why = _why_unknown(found)
    for part, how in sources().items():
        joules = found["joules"][part] or None
        note = why or (f"{found['by']}, {how}" if joules else f"{found['by']} reads none")
        yield Metric(
            name=f"accuracy.train_{part}_j", value=None if why else joules, unit="J", better="lower", note=note
        )
    note = why or f"{found['by']}, electricity of {found['country']}, estimated"
    grams = None if why else found["co2e_g"] or None
    yield Metric(name="accuracy.train_co2e_g", value=grams, unit="g", better="lower", note=note)


def _why_unknown(found: dict[str, Any]) -> str | None:
    if found.get("is_rest"):
        return "the training resumed an interrupted one, whose energy is not known"
    if found["seconds"] < SHORTEST_S:
        return f"trained for {found['seconds']:.1f} s; codecarbon needs {SHORTEST_S:.0f}"
    return None
