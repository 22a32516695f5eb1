"""What planning a suite must know of models, measures and data sets; it is passed in."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.core.registry import DatasetEntry, MeasureEntry
from bench.core.schema import ModelCheck, ModelInfo, Point


class PlanningCatalog(Protocol):
    """What a plan must know of models, measures and data sets; nothing here imports torch."""

    @property
    def measures(self) -> Mapping[str, MeasureEntry]:
        """Every measure by name."""

    @property
    def datasets(self) -> Mapping[str, DatasetEntry]:
        """Every data set by name."""

    def model(self, name: str) -> ModelInfo:
        """Facts of a model, by variant or family; UnknownNameError with the nearest spelling."""

    def look_up(self, names: Sequence[str]) -> None:
        """Be told all models that `model` will be asked for, so that they can be looked at in one go."""

    def probe(self, points: Sequence[Point]) -> list[ModelCheck]:
        """For each model, arguments and clip: what it costs, or why it cannot be."""
