"""What one counter says of one model: its figure, taken apart into lines that add up to it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Line:
    """One part of a counter's figure.

    `figure` is what it adds to the printed number and `products` the multiply-accumulates of products in that; the rest
    is what this counter counts beyond them. `true_products` is what these products are, `cause` why that differs.
    """

    module: str
    counted: str
    figure: int
    products: int
    true_products: int
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class Testimony:
    """`blind` says, by module, why products there may be unseen; `aliases` where the counter has a module."""

    tool: str
    version: str
    convention: str
    printed: int | float
    lines: tuple[Line, ...]
    blind: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Testimony":
        return cls(**{**values, "lines": tuple(Line(**line) for line in values["lines"])})


def aliases_of(model: nn.Module) -> dict[str, str]:
    """The first path of the same module, for every path of `model`."""
    first: dict[int, str] = {}
    return {path: first.setdefault(id(module), path) for path, module in model.named_modules(remove_duplicate=False)}


def exact(value: float) -> int | float:
    """A whole number as an integer, as the counter meant it."""
    return int(value) if float(value).is_integer() else float(value)
