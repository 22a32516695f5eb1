"""The declaration of a metric: its measure states once what every value of it means."""

from dataclasses import dataclass
from typing import Any

from bench.core.errors import InputError
from bench.core.schema import Better, Metric

NAME_EXAMPLE = "sparsity.zeros_percent"


@dataclass(frozen=True)
class MetricSpec:
    """One metric of a measure, given to `register_measure` and read by plans, reports and tables.

    `name` is `measure.quantity_unit`, without the labels of a value such as `latency.p50_ms{variant=best}`. `better` is
    `lower`, `higher`, or None if neither direction is better. `title` heads a column, `meaning` explains it in a few
    words. A `headline` is shown in leaderboards; one that `stands_in_for` another metric only if nothing has that one.
    """

    name: str
    unit: str
    better: Better | None
    title: str
    meaning: str
    headline: bool = False
    stands_in_for: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a name, direction or text that a report cannot show."""
        try:
            Metric(name=self.name, value=None, unit=self.unit, better=self.better)
        except ValueError:
            raise InputError(
                f"metric {self.name!r} cannot be declared with unit {self.unit!r} and better {self.better!r}: "
                f"names are measure.quantity_unit, such as {NAME_EXAMPLE!r}, and better 'lower', 'higher' or None"
            ) from None
        for field in ("title", "meaning"):
            if not str(getattr(self, field)).strip():
                raise InputError(f"metric {self.name!r} is declared without a {field}")

    def metric(self, value: float | None, **rest: Any) -> Metric:
        """A value of this metric; `rest` are further fields of `Metric`, such as `note` and `labels`."""
        return Metric(name=self.name, value=value, unit=self.unit, better=self.better, **rest)
