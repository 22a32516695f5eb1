"""Learning rate schedules: their settings in a recipe, and the rate over time as a multiple of the recipe's."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, field_validator

from bench.core.schema import Frozen

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Schedule(Frozen):
    """Base of all schedules: a linear warm-up over `warmup_epochs`, starting at `warmup_start` times the rate."""

    warmup_epochs: float = Field(default=0.0, ge=0)
    warmup_start: float = Field(default=0.01, ge=0, le=1)


class Constant(Schedule):
    """A constant rate after the warm-up."""

    name: Literal["constant"] = "constant"


class Multistep(Schedule):
    """The rate is multiplied by `factor` at every milestone (in epochs)."""

    name: Literal["multistep"]
    milestones: tuple[Positive, ...] = Field(min_length=1)
    factor: Positive = 0.1

    @field_validator("milestones")
    @classmethod
    def _ascend(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"milestones must ascend, found {list(milestones)}")
        return milestones


class Cosine(Schedule):
    """Half a cosine from the end of the warm-up down to `final` times the rate. arXiv:1608.03983, without restarts."""

    name: Literal["cosine"]
    final: Share = 0.0


class Plateau(Schedule):
    """The rate is multiplied by `factor` if the validation loss has not fallen for `patience` epochs.

    A fall counts if it is more than `threshold` times the loss.
    """

    name: Literal["plateau"]
    patience: int = Field(default=10, ge=0)
    factor: Share = 0.1
    threshold: float = Field(default=1e-4, ge=0)


def rate_factor(schedule: Schedule, *, epoch: float, epochs: int) -> float:
    """The factor on the rate at `epoch` (fractional, from 0) of `epochs`; `PlateauState` has that of a plateau."""
    if epoch < schedule.warmup_epochs:
        return schedule.warmup_start + (1 - schedule.warmup_start) * epoch / schedule.warmup_epochs
    match schedule:
        case Multistep(milestones=milestones, factor=factor):
            passed = sum(epoch >= milestone for milestone in milestones)
            return float(factor**passed)
        case Cosine(final=final, warmup_epochs=warmup):
            done = (epoch - warmup) / (epochs - warmup)
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
        case Constant() | Plateau():
            return 1.0
    raise TypeError(f"no rule for {type(schedule).__name__}")


@dataclass(kw_only=True)
class PlateauState:
    """The state of a plateau schedule: the best loss, the number of epochs since then, and the factor on the rate."""

    best: float = math.inf
    waited: int = 0
    factor: float = field(default=1.0)

    def update(self, schedule: Plateau, *, loss: float) -> None:
        """Update with the validation `loss` of an epoch."""
        if loss < self.best * (1 - schedule.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > schedule.patience:
            self.factor, self.waited = self.factor * schedule.factor, 0
