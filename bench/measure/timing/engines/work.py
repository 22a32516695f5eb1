"""What an engine gets: a model in its precision, and the clips that it is built for."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bench.core.schema import Precision


@dataclass(frozen=True, kw_only=True)
class Work:
    """A model, and clips of the shapes that it will run at; both are on their device and in their dtype."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    precision: Precision
    autocast: torch.dtype | None

    @property
    def device(self) -> torch.device:
        return self.inputs[0].device

    def in_precision(self) -> AbstractContextManager[object]:
        """Autocast, if the precision is mixed, without its cache: a graph would read cast weights that were freed."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast, cache_enabled=False)

    def export(self) -> ExportedProgram:
        """The model as one graph for exactly these shapes, without the casts of autocast."""
        with torch.no_grad():
            return torch.export.export(self.model, self.inputs)
