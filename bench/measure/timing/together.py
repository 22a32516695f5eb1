"""Steps that several ranks take at a time: the first decides by the protocol, the slowest rank's time counts."""

from collections.abc import Callable

import torch

from bench.measure.timing.protocol import Protocol, Sample, Timing, take_samples
from bench.train.ranks import Ranks


def take_together(
    ranks: Ranks,
    step: Callable[[], Sample],
    protocol: Protocol,
    *,
    device: torch.device,
    clock_s: Callable[[], float],
) -> Timing | None:
    """Samples of `step`, which every rank takes as often as the first one does; None on the others.

    What the ranks say to each other lies between the steps and is in no sample.
    """

    def together() -> Sample:
        samples: list[Sample] = ranks.gather(step())
        return max(samples, key=lambda sample: sample.wall_s)

    def goes_on(*, wanted: bool) -> bool:
        word = torch.tensor([float(wanted)], device=device)
        ranks.spread(word)
        return bool(word.item())

    def led() -> Sample:
        goes_on(wanted=True)
        return together()

    if ranks.is_first:
        timing = take_samples(led, protocol, clock_s=clock_s)
        goes_on(wanted=False)
        return timing
    while goes_on(wanted=True):
        together()
    return None
