"""Formats numbers for people: a value with its unit, one scale for a column, and no zero for a small value."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

DASH = "–"
MINUS = "\N{MINUS SIGN}"

# Unit in records → (factor to the base unit, base unit).
BASE_UNITS: dict[str, tuple[float, str]] = {
    "ns": (1e-9, "s"),
    "us": (1e-6, "s"),
    "ms": (1e-3, "s"),
    "s": (1.0, "s"),
    "bytes": (1.0, "B"),
    "fraction": (100.0, "%"),
}
DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
BYTES = ((2.0**40, "Ti"), (2.0**30, "Gi"), (2.0**20, "Mi"), (2.0**10, "Ki"), (1.0, ""))
SECONDS = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
PLAIN = frozenset({"%", "pt", "J", "Wh", "W", "°C", "x", "1", ""})
RATES = frozenset({"FLOP/s", "B/s"})  # scaled by thousands, as in data sheets; other rates are not scaled
COLUMN_DIGITS, TEXT_DIGITS = 3, 4  # significant digits of the median of a column, and of a value in a sentence
ROUNDING_NOISE = 1e-11  # of differences in percent or points; that of floats is about 1e-14


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Format of the values of a column: divided by `divisor`, with `decimals`, in the unit `prefix` + `base`."""

    divisor: float
    decimals: int
    prefix: str
    base: str

    @cached_property
    def unit(self) -> str:
        """`GMACs`, `M parameters`, `MiB`, `ms`."""
        gap = " " if self.prefix and self.base.islower() and len(self.base) > 3 else ""
        return f"{self.prefix}{gap}{self.base}"

    @cached_property
    def suffix(self) -> str:
        """The unit as it follows a single value: ` GMACs`; empty for a bare number."""
        return f" {self.unit_after('')}".rstrip()

    def unit_after(self, name: str) -> str:
        """The unit after a metric `name`: a counted thing that the name contains already is left out."""
        is_in_name = self.base == "elements" or self.base.lower() in name.lower().split()
        return self.prefix if is_in_name else self.unit

    def text(self, value: float | None) -> str:
        """`value` in this scale with at least two digits; a dash for None, nan and infinities."""
        if value is None or not math.isfinite(value):
            return DASH
        return format_number(value / self.divisor, self.decimals)

    def span(self, low: float, high: float) -> str:
        """`low–high`, with more decimals if the ends would look the same; one number if they are equal to nine."""
        for decimals in range(self.decimals, 10):
            ends = [format_number(end / self.divisor, decimals) for end in (low, high)]
            if ends[0] != ends[1]:
                return f"{ends[0]}{DASH}{ends[1]}"
        return self.text(low)


def format_value(value: float | None, unit: str) -> str:
    """A value with four digits, prefix and unit: `38.55 GMACs`, `1.5 GiB`; `–` if unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    scale = _scale(abs(value), unit, digits=TEXT_DIGITS, is_whole=float(value).is_integer())
    return _shortest(format_number(value / scale.divisor, scale.decimals)) + scale.suffix


def format_doubtful(value: float, unit: str, *, half_width: float | None) -> str:
    """`~500 ms`: a value with the digits that an interval of `half_width` on either side supports, at most three.

    One digit if the interval is unknown, because then there are too few samples for more.
    """
    if not value or not math.isfinite(value):
        return format_value(value, unit)
    digits = 1 if not half_width else 1 + math.floor(math.log10(abs(value) / half_width))
    return f"~{format_value(float(f'{value:.{min(3, max(1, digits)) - 1}e}'), unit)}"


def format_interval(low: float, high: float, *, value: float, unit: str) -> str:
    """`20.1 to 20.4`: the ends of an interval in the scale of its `value`, without the unit."""
    scale = choose_scale([value], unit, digits=TEXT_DIGITS)
    return f"{_shortest(scale.text(low))} to {_shortest(scale.text(high))}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 case`, `12 cases`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def first_of(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c`; of more than `most` names the first ones and how many there are: `a, b, c and 97 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def choose_scale(values: Iterable[float | None], unit: str, *, digits: int = COLUMN_DIGITS) -> Scale:
    """The scale that shows the median of `values`, given in `unit`, with that many significant digits."""
    known = sorted(abs(v) for v in values if v is not None and math.isfinite(v) and v != 0)
    median = known[len(known) // 2] if known else 0.0
    return _scale(median, unit, digits=digits, is_whole=all(float(v).is_integer() for v in known))


def _scale(median: float, unit: str, *, digits: int, is_whole: bool) -> Scale:
    rounded = min(median * _rounding_factor(unit, digits), sys.float_info.max)
    if not rounded or _steps_of(unit)[2] is BYTES:
        return _scale_of(rounded, unit, digits, is_whole=is_whole)
    return _scale_of_decade(math.floor(math.log10(rounded)), unit, digits, is_whole=is_whole)


@cache
def _rounding_factor(unit: str, digits: int) -> float:
    """To the base unit and up by half a digit: with three digits 999.5 becomes 1000, so it is scaled like it."""
    return _steps_of(unit)[0] * (1 + 0.5 * 10.0**-digits)


@lru_cache(maxsize=1024)  # a list formats hundreds of thousands of values, in a few decades
def _scale_of_decade(exponent: int, unit: str, digits: int, *, is_whole: bool) -> Scale:
    return _scale_of(float(f"1e{exponent}"), unit, digits, is_whole=is_whole)


def _scale_of(rounded: float, unit: str, digits: int, *, is_whole: bool) -> Scale:
    """The scale of a value that was rounded up, in its base unit."""
    to_base, base, steps = _steps_of(unit)
    divisor, prefix = _largest_below(rounded, steps)
    if (divisor == 1 and is_whole) or not rounded:
        decimals = 0
    else:  # at most `digits`
        decimals = min(digits, max(0, digits - 1 - math.floor(math.log10(rounded / divisor))))
    return Scale(divisor=divisor / to_base, decimals=decimals, prefix=prefix, base=base)


def format_number(value: float, decimals: int) -> str:
    """`value` with a thin space between thousands; with more decimals if fewer than two digits would be left."""
    if 0 < decimals < 10 and 1 <= value < 999:  # most values of a list; what follows takes twice as long
        return f"{value:.{decimals}f}"
    if abs(value) < 10 ** (1 - decimals) and not float(value).is_integer():
        decimals = max(decimals, 1 - math.floor(math.log10(abs(value))))
    if decimals > 9 or abs(value) >= 1e15:
        return f"{value:.1e}".replace("-", MINUS)
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def format_signed(value: float, decimals: int) -> str:
    """`+3.1` or `−0.020`: a difference as `format_number` writes it, with its sign; `0.0` if it is rounding noise."""
    if abs(value) < ROUNDING_NOISE:
        value = 0.0
    return f"{'+' if value > 0 else ''}{format_number(value, decimals)}"


def format_exact(value: float | None, unit: str) -> str:
    """`value` with all its digits and the unit of the record: `38,547,423,232 MACs`."""
    if value is None or not math.isfinite(value):
        return DASH
    digits = f"{int(value):,}" if float(value).is_integer() else f"{value:,.9g}"
    return f"{digits} {unit}".strip()


@cache
def _steps_of(unit: str) -> tuple[float, str, tuple[tuple[float, str], ...]]:
    """The factor of a unit of records to its base unit, that unit, and the divisors and prefixes of its values."""
    to_base, base = BASE_UNITS.get(unit, (1.0, unit))
    if base in ("s", "B"):
        return to_base, base, SECONDS if base == "s" else BYTES
    if base in PLAIN or ("/" in base and base not in RATES):
        return to_base, "" if base == "1" else base, ((1.0, ""),)
    return to_base, base, DECIMAL


def _largest_below(middle: float, steps: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest step that leaves `middle` at 1 or more."""
    if middle == 0:
        return 1.0, ""
    for step in steps:
        if middle >= step[0]:
            return step
    return steps[-1]


def _shortest(text: str) -> str:
    """A number without trailing zeros after the decimal point."""
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
