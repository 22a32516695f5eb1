"""Changes and p values in words, for the reasons beside verdicts."""

import math

from bench.core.units import format_value

NARROW_GAP = " "


def one_line(text: str) -> str:
    """What a record says, without breaks and `::`: GitHub obeys a line of a log that begins so, as a folded one may."""
    return " ".join(text.split()).replace("::", ":\u200b:")


def percent(share: float, *, signed: bool = True) -> str:
    """`+3.1 %` of a share of 1: one decimal, two below 1 %."""
    value = 100 * share
    if not math.isfinite(value):
        return "more than can be said"
    sign = "+" if signed else ""
    text = f"{value:{sign}.2f}" if abs(value) < 1 else f"{value:{sign}.1f}"
    return f"{text}{NARROW_GAP}%"


def amount(value: float, unit: str) -> str:
    """`+0.40 pt` for a difference of percentages, `+3.2 ms` or `-12 MiB` else."""
    if unit in ("%", "fraction"):
        return f"{value * (100 if unit == 'fraction' else 1):+.2f} pt"
    return f"{'-' if value < 0 else '+'}{format_value(abs(value), unit)}"


def p_value(p: float) -> str:
    return f"p {p:.1g}" if p >= 1e-4 else "p < 0.0001"
