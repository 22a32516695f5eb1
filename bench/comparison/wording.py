"""Changes, p values and counts in words, for the reasons beside verdicts."""

import math

NARROW_GAP = " "
COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
BYTES = ((2.0**30, "Gi"), (2.0**20, "Mi"), (2.0**10, "Ki"))


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
    """`+0.4 pt` for a difference of percentages, `+3.2 ms` else."""
    return f"{value:+.2f} pt" if unit == "%" else f"{value:+.4g} {unit}".rstrip()


def p_value(p: float) -> str:
    return f"p {p:.1g}" if p >= 1e-4 else "p < 0.0001"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def figure(value: float | None, unit: str) -> str:
    """A value with its unit, four digits and a prefix where it has one: `38.55 GMACs`, `812.5 MiB`, `–` if unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    steps = BYTES if unit in ("B", "bytes") else COUNTS if unit in ("MACs", "elements", "") else ((1.0, ""),)
    size, prefix = next((step for step in steps if abs(value) >= step[0]), (1.0, ""))
    named = "" if unit == "elements" else "B" if unit == "bytes" else unit
    return f"{value / size:.4g} {prefix}{named}".rstrip()
