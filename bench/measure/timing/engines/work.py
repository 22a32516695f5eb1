"""What an engine is given: a network in its precision, and the clips that it is made ready for."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bench.core.schema import Precision


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network and clips of the shapes that it shall run at; both are on their device and in their dtype already."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    precision: Precision
    autocast: torch.dtype | None

    @property
    def device(self) -> torch.device:
        return self.inputs[0].device

    def in_precision(self) -> AbstractContextManager[object]:
        """Autocast where the precision wants it. It keeps no cast weights: a graph would go on reading freed ones."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast, cache_enabled=False)

    def export(self) -> ExportedProgram:
        """The network as one graph for exactly these shapes. What autocast would cast is not in it."""
        with torch.no_grad():
            return torch.export.export(self.model, self.inputs)
