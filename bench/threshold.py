"""How much a metric may change: `3%`, `0.5pt`, `200MiB`. Suites and the gate read the same text."""

import math
import re
from dataclasses import dataclass

from bench.errors import InputError

# Unit → (what it measures, its size there). `%` is of the base value; `pt` is a percentage point.
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
ALLOWED = f"a share of the base (3%), an amount ({', '.join(UNITS)}; such as 0.5pt or 200MiB), or a bare number"
FORM = re.compile(r"(?P<amount>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>\D*)")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """An amount of change: a share of the base (`%`), an amount with a unit, or, without one, in the metric's own."""

    amount: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    def in_unit(self, unit: str, *, base: float) -> float:
        """The same amount in a metric's `unit`, for a base value; InputError where the two cannot be converted."""
        if self.unit == "%":
            return abs(base) * self.amount / 100
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
    """Read `3%`, `0.5pt`, `200MiB` or `1000`; InputError that says what is allowed."""
    match = FORM.fullmatch(text.strip())
    unit = match["unit"].strip() if match else ""
    if match is None or (unit and unit != "%" and unit not in UNITS):
        raise InputError(f"{text!r} is not a threshold; allowed: {ALLOWED}")
    amount = float(match["amount"])
    if not math.isfinite(amount):
        raise InputError(f"{text!r} is not a threshold: it is not finite; allowed: {ALLOWED}")
    return Threshold(amount=amount, unit=unit)


def _fitting(kind: str) -> str:
    units = [unit for unit, (of, _) in UNITS.items() if of == kind]
    return f"a share of the base (3%), {', '.join([*units, 'or a bare number'])}"
