"""How much a metric may change: `3%`, `0.5pt`, `200MiB`, `noise`, as written in suites and on the command line."""

import math
import re
from dataclasses import dataclass

from bench.core.errors import InputError

# Unit → (base unit, its size in base units). `%` is relative to the base value; `pt` is a percentage point.
UNITS: dict[str, tuple[str, float]] = {
    "B": ("B", 1.0),
    "kB": ("B", 1e3),
    "MB": ("B", 1e6),
    "GB": ("B", 1e9),
    "KiB": ("B", 2.0**10),
    "MiB": ("B", 2.0**20),
    "GiB": ("B", 2.0**30),
    "ns": ("s", 1e-9),
    "us": ("s", 1e-6),
    "ms": ("s", 1e-3),
    "s": ("s", 1.0),
    "mJ": ("J", 1e-3),
    "J": ("J", 1.0),
    "kJ": ("J", 1e3),
    "pt": ("pt", 1.0),
}
METRIC_UNITS = {**UNITS, "bytes": ("B", 1.0), "%": ("pt", 1.0), "fraction": ("pt", 100.0)}
NOISE = "noise"
ALLOWED = (
    f"a share of the base (3%), an amount ({', '.join(UNITS)}; such as 0.5pt or 200MiB), a bare number, or "
    "multiples of the run-to-run variation of base (noise, 2noise)"
)
FORM = re.compile(r"(?P<amount>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>\D*)")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """An amount of change: a share of the base (`%`), an amount with a unit, or an amount in the unit of the metric.

    With the unit `noise` it is a multiple of the relative variation between runs of base.
    """

    amount: float
    unit: str = ""

    def __str__(self) -> str:
        return self.unit if self.is_noise and self.amount == 1 else f"{self.amount:.15g}{self.unit}"

    @property
    def is_noise(self) -> bool:
        """Whether the amount depends on the variation between runs of base."""
        return self.unit == NOISE

    def in_unit(self, unit: str, *, base: float, noise: float | None = None) -> float:
        """The same amount in the `unit` of a metric, for a base value; raises InputError if it cannot be converted.

        `noise` is the relative variation between runs of base, if it is known.
        """
        if self.is_noise:
            if noise is None:
                raise InputError(f"the noise of base is not known; give an amount, such as 3%, instead of {self}")
            return abs(base) * self.amount * noise
        if self.unit == "%":
            return abs(base) * (self.amount / 100)
        if not self.unit or self.unit == unit:
            return self.amount
        kind, size = UNITS[self.unit]
        metric_kind, metric_size = METRIC_UNITS.get(unit, ("", 1.0))
        if kind != metric_kind:
            raise InputError(
                f"a threshold of {self} does not fit a metric in {unit or 'plain numbers'}; "
                f"allowed: {_fitting(metric_kind)}"
            )
        return self.amount * size / metric_size


def parse_threshold(text: str) -> Threshold:
    """Parse `3%`, `0.5pt`, `200MiB`, `1000` or `noise`; raises InputError that says what is allowed."""
    match = FORM.fullmatch(f"1{NOISE}" if text.strip() == NOISE else text.strip())
    unit = match["unit"].strip() if match else ""
    if match is None or (unit and unit not in ("%", NOISE) and unit not in UNITS):
        raise InputError(f"{text!r} is not a threshold; allowed: {ALLOWED}")
    amount = float(match["amount"])
    if not math.isfinite(amount):
        raise InputError(f"{text!r} is not a threshold: it is not finite; allowed: {ALLOWED}")
    return Threshold(amount=amount, unit=unit)


def _fitting(kind: str) -> str:
    units = [unit for unit, (of, _) in UNITS.items() if of == kind]
    return f"a share of the base (3%), {', '.join([*units, 'or a bare number'])}"
