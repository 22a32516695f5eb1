"""The moving average of a network's weights, which is evaluated in their place."""

from copy import deepcopy

import torch
from torch import nn


class Average:
    """An exponential average of the weights of `model`; buffers of floats are averaged, counters are copied.

    The decay grows as `(1 + n) / (10 + n)` over the first updates, up to `decay`, so that the start is forgotten.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights of `model` after one more step into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [(kept, new) for kept, new in pairs if kept.is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in floats], [new for _, new in floats], weight=1 - decay)
        for kept, new in pairs:
            if not kept.is_floating_point():
                kept.copy_(new)
