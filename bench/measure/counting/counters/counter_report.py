"""What one counter printed for one model, taken apart into parts that add up to it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class ReportPart:
    """One part of the printed number.

    `value` is what the part adds to it, and `products` the multiply-accumulates of products in that value; the rest is
    what this counter counts beyond products. `true_products` is the true number, and `cause` says why it differs.
    """

    module: str
    counted: str
    value: int
    products: int
    true_products: int
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class CounterReport:
    """The report of one counter.

    `blind` says by module why its products may be missed; `aliases` maps a path to the path that the counter uses.
    """

    tool: str
    version: str
    convention: str
    printed: int | float
    lines: tuple[ReportPart, ...]
    blind: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CounterReport":
        return cls(**{**values, "lines": tuple(ReportPart(**line) for line in values["lines"])})


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Return, for every module path of `model`, the first path of the same module."""
    first: dict[int, str] = {}
    return {path: first.setdefault(id(module), path) for path, module in model.named_modules(remove_duplicate=False)}


def exact(value: float) -> int | float:
    """Return a whole number as an integer."""
    return int(value) if float(value).is_integer() else float(value)
