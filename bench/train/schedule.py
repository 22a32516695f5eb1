"""Learning rates over time, as multiples of the recipe's: a pure function of the epoch, and what a plateau keeps."""

import math
from dataclasses import dataclass, field

from bench.train.recipe import Constant, Cosine, Multistep, Plateau, Schedule


def rate_factor(schedule: Schedule, *, epoch: float, epochs: int) -> float:
    """What the rate is multiplied by at `epoch` (fractional, from 0) of `epochs`; a plateau's own factor is apart."""
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
    """What a plateau schedule remembers between epochs: the best loss, the epochs without a better one, its factor."""

    best: float = math.inf
    waited: int = 0
    factor: float = field(default=1.0)

    def update(self, schedule: Plateau, *, loss: float) -> None:
        """Take note of an epoch's validation `loss`."""
        if loss < self.best * (1 - schedule.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > schedule.patience:
            self.factor, self.waited = self.factor * schedule.factor, 0
