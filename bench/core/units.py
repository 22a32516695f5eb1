"""Numbers as people read them: a value with its unit, one scale for a column, never a zero for what is not zero."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

DASH = "–"
MINUS = "\N{MINUS SIGN}"

# Unit as records write it → (factor to the base unit, base unit). A base unit in PREFIXES is scaled, others are not.
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
RATES = frozenset({"FLOP/s", "B/s"})  # scaled by thousands, as data sheets have them; other rates are not scaled
IN_COLUMNS, ALONE = 3, 4  # significant digits of the middle of a column, and of a figure in a sentence or for a gate


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the values of one column are written: divided by `divisor`, with `decimals`, in `prefix` times `base`."""

    divisor: float
    decimals: int
    prefix: str
    base: str

    @property
    def unit(self) -> str:
        """`GMACs`, `M parameters`, `MiB`, `ms`."""
        gap = " " if self.prefix and self.base.islower() and len(self.base) > 3 else ""
        return f"{self.prefix}{gap}{self.base}"

    def unit_after(self, name: str) -> str:
        """The unit where `name` stands beside it: a counted thing that the name says already is left out."""
        is_said = self.base == "elements" or self.base.lower() in name.lower().split()
        return self.prefix if is_said else self.unit

    def text(self, value: float | None) -> str:
        """`value` in this scale; a dash for None, nan and infinities, at least two digits for what is not zero."""
        if value is None or not math.isfinite(value):
            return DASH
        return format_number(value / self.divisor, self.decimals)

    def span(self, low: float, high: float) -> str:
        """`low–high`, with up to two decimals more than usual where the ends would look the same."""
        for decimals in range(self.decimals, self.decimals + 3):
            ends = [format_number(end / self.divisor, decimals) for end in (low, high)]
            if ends[0] != ends[1]:
                break
        return f"{ends[0]}{DASH}{ends[1]}"


def format_value(value: float | None, unit: str) -> str:
    """A value with its unit, four digits and a prefix where it has one: `38.55 GMACs`, `1.5 GiB`, `–` if unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    scale = choose_scale([value], unit, digits=ALONE)
    return f"{_shortest(scale.text(value))} {scale.unit_after('')}".rstrip()


def format_interval(low: float, high: float, *, beside: float, unit: str) -> str:
    """`20.1 to 20.4`: the ends of an interval as `format_value` writes the value `beside` it, without the unit."""
    scale = choose_scale([beside], unit, digits=ALONE)
    return f"{_shortest(scale.text(low))} to {_shortest(scale.text(high))}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 case`, `12 cases`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def choose_scale(values: Iterable[float | None], unit: str, *, digits: int = IN_COLUMNS) -> Scale:
    """The scale that suits the middle of `values`, given in `unit`: so many significant digits there."""
    known = sorted(abs(v) for v in values if v is not None and math.isfinite(v) and v != 0)
    to_base, base = BASE_UNITS.get(unit, (1.0, unit))
    middle = known[len(known) // 2] * to_base if known else 0.0
    rounds_up = 1 + 0.5 / 10**digits  # 999.5 is written with three digits as 1000, so it is scaled as 1000
    step, prefix, base = _step(middle * rounds_up, base)
    is_whole = step == 1 and all(float(v).is_integer() for v in known)
    decimals = 0 if is_whole else _decimals(middle * rounds_up / step, digits)
    return Scale(divisor=step / to_base, decimals=decimals, prefix=prefix, base=base)


def format_number(value: float, decimals: int) -> str:
    """`value` with a thin space between thousands; more decimals than asked where two digits would not be left."""
    if abs(value) < 10 ** (1 - decimals) and not float(value).is_integer():
        decimals = max(decimals, 1 - math.floor(math.log10(abs(value))))
    if decimals > 9:
        return f"{value:.1e}".replace("-", MINUS)
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def format_exact(value: float | None, unit: str) -> str:
    """`value` with all its digits and its unit as recorded: `38547423232 MACs` as `38,547,423,232 MACs`."""
    if value is None or not math.isfinite(value):
        return DASH
    digits = f"{int(value):,}" if float(value).is_integer() else f"{value:,.9g}"
    return f"{digits} {unit}".strip()


def _step(middle: float, base: str) -> tuple[float, str, str]:
    """The step to divide by, its prefix, and the unit that the prefix stands before."""
    if base in ("s", "B"):
        step, prefix = _largest_below(middle, SECONDS if base == "s" else BYTES)
        return step, prefix, base
    if base in PLAIN or ("/" in base and base not in RATES):
        return 1.0, "", "" if base == "1" else base
    step, prefix = _largest_below(middle, DECIMAL)
    return step, prefix, base


def _largest_below(middle: float, steps: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest step that leaves `middle` at 1 or more."""
    if middle == 0:
        return 1.0, ""
    return next((step for step in steps if middle >= step[0]), steps[-1])


def _decimals(middle: float, digits: int) -> int:
    """How many decimals leave `digits` significant ones, at most as many."""
    return min(digits, max(0, digits - 1 - math.floor(math.log10(middle)))) if middle else 0


def _shortest(text: str) -> str:
    """A number without zeros at the end of its decimals."""
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
