"""What a classifier reads of any video model: the pooled vector, and the tokens it is pooled from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.schema import Clip
from bench.models.base import VideoModel, head_name_of, inputs_of

TRIAL_CLIPS = 3  # clips of the trial pass: few sizes of a model are multiples of 3, so that its batch axis is known


class FeatureReader(nn.Module):
    """Returns the pooled vector `(B, features)` of any model: the input of its last layer, the classifier.

    Raises InputError for a model without a classifier that is no `VideoModel` either.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head_name_of(model)
        if not self.head and not isinstance(model, VideoModel):
            raise InputError(
                f"{type(model).__name__} has no linear layer or convolution whose input could serve as features"
            )

    def forward(self, *clips: Tensor) -> Tensor:
        if isinstance(self.model, VideoModel):
            return self.model.forward_features(*clips)
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model(*clips)
        finally:
            hook.remove()
        return seen[-1] if seen[-1].ndim == 2 else seen[-1].flatten(2).mean(2)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """The output of one module as tokens: `count` of `width` channels per clip; `order` moves channels to the end."""

    module: str
    count: int
    width: int
    order: tuple[int, ...] = ()

    def tokens(self, output: Tensor, *, clips: int) -> Tensor:
        """`(B, N, D)`; the frames of one clip, if the model treats them as a batch, are joined."""
        moved = output.permute(self.order) if self.order else output
        return moved.reshape(clips, self.count, self.width)


class TokenReader(nn.Module):
    """Returns the pooled vector `(B, features)` and the tokens `(B, N, D)` of any model with one input.

    Tokens are the positions of the last output before the classifier that has several positions, of a module with
    weights: the tokens of a transformer (normalised, if its blocks are followed by a LayerNorm), the feature map of a
    convolutional model before its pooling, the vectors of single frames in a 2D model. With a number of `layers`, the
    outputs of as many last blocks are joined channel by channel, each normalised by that LayerNorm, as in DINO (Caron
    et al., 2021, arXiv:2104.14294).

    One pass over zeros finds these modules. Raises InputError for a model of several inputs, one without tokens, or
    one with fewer blocks of equal size.
    """

    def __init__(self, model: nn.Module, *, clip: Clip, layers: int | None = None) -> None:
        super().__init__()
        self.reader = FeatureReader(model)
        self.model = model
        name = type(model).__name__
        inputs = inputs_of(model)
        if len(inputs) != 1:
            raise InputError(
                f"{name} has {len(inputs)} inputs, whose tokens are of different sizes; use its pooled features: "
                "`head: [linear, knn]` with `pooling: head`"
            )
        where = next(model.parameters())
        zeros = torch.zeros(inputs[0].shape(clip, batch=TRIAL_CLIPS), device=where.device, dtype=where.dtype)
        grids = self._trial(zeros)
        if not grids:
            raise InputError(f"{name} gives no tokens: no module before its classifier returns several positions")
        last = grids[-1]
        module = model.get_submodule(last.module)
        self.norm = module if isinstance(module, nn.LayerNorm) and layers is not None else None
        self.grids = (last,) if layers is None else self._blocks(grids, layers)
        self.count, self.width = last.count, sum(grid.width for grid in self.grids)

    def forward(self, *clips: Tensor) -> tuple[Tensor, Tensor]:
        seen: dict[str, Tensor] = {}
        with self._observed({grid.module for grid in self.grids}, lambda name, output: seen.update({name: output})):
            vectors = self.reader(*clips)
        tokens = [grid.tokens(seen[grid.module], clips=len(clips[0])) for grid in self.grids]
        if self.norm is not None:
            tokens = [self.norm(each) for each in tokens]
        return vectors, torch.cat(tokens, dim=2)

    def _trial(self, zeros: Tensor) -> list[_Grid]:
        """The token grids of one pass in the order in which modules end; those of the classifier are left out."""
        head, width = self.reader.head, self._head_width()
        names = {name for name, _ in self.model.named_modules() if name and not f"{name}.".startswith(f"{head}.")}
        found: dict[str, _Grid] = {}

        def note(name: str, output: Tensor) -> None:
            module = self.model.get_submodule(name)
            grid = _grid_of(name, module, output, width=width)
            found.pop(name, None)  # a module that runs several times counts where it ran last
            if grid is not None and any(True for _ in module.parameters()):
                found[name] = grid

        # V-JEPA 2's classifier has tokens of its own, behind those of its encoder.
        run: Callable[..., Any] = getattr(self.model, "forward_tokens", self.reader)
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), self._observed(names, note):
                run(zeros)
        finally:
            self.model.train(training)
        return list(found.values())

    def _head_width(self) -> int | None:
        """The number of channels that the classifier reads."""
        if not self.reader.head:
            return None
        head = self.model.get_submodule(self.reader.head)
        return getattr(head, "in_features", getattr(head, "in_channels", None))

    def _blocks(self, grids: list[_Grid], layers: int) -> tuple[_Grid, ...]:
        """The last `layers` grids of the list of blocks that ends last."""
        size = (grids[-1].count, grids[-1].width)
        for last in reversed(grids):
            parent = last.module.rpartition(".")[0]
            if (last.count, last.width) == size and isinstance(
                self.model.get_submodule(parent), nn.ModuleList | nn.Sequential
            ):
                blocks = [
                    grid
                    for grid in grids
                    if grid.module.rpartition(".")[0] == parent and (grid.count, grid.width) == size
                ]
                if len(blocks) < layers:
                    raise InputError(
                        f"layers is {layers}; {type(self.model).__name__} has {len(blocks)} last blocks of "
                        f"{size[0]} x {size[1]} tokens, so it is at most that"
                    )
                return tuple(blocks[-layers:])
        raise InputError(f"layers is {layers}; {type(self.model).__name__} has no list of blocks, so only `last` works")

    @contextmanager
    def _observed(self, names: set[str], note: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Hand the output of each named module to `note` during the block."""
        hooks = []
        for name in sorted(names):

            def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                outputs = output if isinstance(output, tuple) else (output,)
                tensors = [each for each in outputs if isinstance(each, Tensor)]
                if tensors:  # of several, the largest: a block may return its class token apart from the others
                    note(name, max(tensors, key=Tensor.numel))

            hooks.append(self.model.get_submodule(name).register_forward_hook(hook))
        try:
            yield
        finally:
            for each in hooks:
                each.remove()


def _grid_of(name: str, module: nn.Module, output: Tensor, *, width: int | None) -> _Grid | None:
    """The output as tokens; None if it has a single position per clip, or no axis of clips."""
    shape = tuple(output.shape)
    if not shape or shape[0] % TRIAL_CLIPS:
        return None
    if output.ndim == 2:
        channels, order = shape[1], ()
    elif output.ndim == 3:
        channels, order = shape[2], ()
    elif output.ndim in (4, 5):
        is_last = shape[1] != width and (shape[-1] == width or isinstance(module, nn.LayerNorm))
        channels = shape[-1] if is_last else shape[1]
        order = () if is_last else (0, *range(2, output.ndim), 1)
    else:
        return None
    count = output.numel() // (TRIAL_CLIPS * channels) if channels else 0
    return _Grid(module=name, count=count, width=channels, order=order) if count > 1 else None
