"""The state of a training: model, optimizer, rates, scaler and weight average, which steps and can be saved."""

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.core.errors import InputError, has_too_few_clips
from bench.data.clip_batches import Batch
from bench.models.groups import parameter_groups
from bench.train.evaluating import autocast
from bench.train.ranks import Ranks
from bench.train.recipe import SGD, AdamW, Recipe
from bench.train.schedule import Plateau, PlateauState, rate_factor


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """A mixed batch: clip i keeps `share` of its own label and takes the rest from its partner, clip `-1 - i`.

    A loss that is linear in its target, such as cross-entropy, is the mean of the losses for both labels, so weighted.
    """

    clips: tuple[Tensor, ...]
    share: float


def mix(clips: tuple[Tensor, ...], *, mixup: float, cutmix: float, rng: np.random.Generator) -> MixedBatch:
    """Mix every clip `(B, C, T, H, W)` of a batch with its partner by MixUp or CutMix; if both are set, one is drawn.

    MixUp (Zhang et al., 2018, arXiv:1710.09412) blends two clips; CutMix (Yun et al., 2019, arXiv:1905.04899) pastes a
    box of one into the other, the same box for all frames. `mixup` and `cutmix` are the parameters of Beta(a, a); 0
    turns that one off.
    """
    takes_box = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    strength = cutmix if takes_box else mixup
    share = float(rng.beta(strength, strength))
    if not takes_box:
        return MixedBatch(clips=tuple(torch.lerp(clip.flip(0), clip, share) for clip in clips), share=share)
    centre = (float(rng.random()), float(rng.random()))
    return _paste(clips, side=math.sqrt(1 - share), centre=centre)


def _paste(clips: tuple[Tensor, ...], *, side: float, centre: tuple[float, float]) -> MixedBatch:
    """Paste a box of the partner into each clip: `side` times the sides of a frame, around `centre`."""
    pasted, share = [], 1.0
    for clip in clips:
        height, width = clip.shape[-2:]
        rows, columns = _span(height, side=side, centre=centre[0]), _span(width, side=side, centre=centre[1])
        box = (..., slice(*rows), slice(*columns))
        result = clip.clone()
        result[box] = clip.flip(0)[box]
        pasted.append(result)
        share = 1 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / (height * width)
    return MixedBatch(clips=tuple(pasted), share=share)


def _span(length: int, *, side: float, centre: float) -> tuple[int, int]:
    middle, half = int(centre * length), int(side * length) // 2
    return max(0, middle - half), min(length, middle + half)


class WeightAverage:
    """An exponential moving average of the weights of `model`; float buffers are averaged, integer ones are copied.

    The decay grows as `(1 + n) / (10 + n)` over the first updates, up to `decay`, so that the initial weights fade.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of `model` after one more step to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [(kept, new) for kept, new in pairs if kept.is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in floats], [new for _, new in floats], weight=1 - decay)
        for kept, new in pairs:
            if not kept.is_floating_point():
                kept.copy_(new)


class TrainingState:
    """A model that is trained by a recipe. Every step draws its randomness from (seed, step, rank) alone.

    A training that resumes from a checkpoint therefore takes the same steps, and a checkpoint holds no generator state.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        seed: int,
        device: str | torch.device,
        steps_per_epoch: int,
        ranks: Ranks,
    ) -> None:
        self.recipe, self.seed, self.ranks = recipe, seed, ranks
        self.device = torch.device(device)
        self.steps_per_epoch = steps_per_epoch
        self.step_count = 0
        self.layout = torch.channels_last_3d if recipe.memory_format == "channels_last_3d" else torch.contiguous_format
        self.model = _in_memory_format(model.to(self.device), self.layout)
        set_dropout(model, recipe.dropout)
        self.optimizer = _optimizer(model, recipe)
        self.average = None if recipe.ema is None else WeightAverage(model, decay=recipe.ema)
        self.step_model = _step_model(model, recipe, device=self.device, ranks=ranks)
        self.step_model.train()  # models are often built in evaluation mode
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "fp16")
        self.plateau = PlateauState()
        self.statistics = EpochStatistics(self.device)
        self.lr = recipe.optimizer.lr  # of the last step, before a group scales it for itself

    @property
    def evaluated(self) -> nn.Module:
        """The model whose accuracy counts: the weight average if the recipe keeps one."""
        return self.model if self.average is None else self.average.module

    @property
    def batch_norm(self) -> str | None:
        """The clips over which batch norm takes its statistics, in words; None for a model without batch norm.

        It sees one pass of a step. Each of several processes sees its own share only, unless SyncBatchNorm joins them.
        """
        modules = list(self.step_model.modules())
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
            return None
        clips = -(-self.recipe.batch // self.ranks.world // self.recipe.accumulate)
        if self.ranks.world == 1:
            return f"over {clips} clips"
        if any(isinstance(module, nn.SyncBatchNorm) for module in modules):
            return f"over {clips * self.ranks.world} clips of all {self.ranks.world} processes"
        return f"over {clips} clips, in each of {self.ranks.world} processes apart"

    @property
    def rate_factor(self) -> float:
        """The factor on the learning rate of every parameter group at this step."""
        epoch = self.step_count / self.steps_per_epoch
        return self.plateau.factor * rate_factor(self.recipe.schedule, epoch=epoch, epochs=self.recipe.epochs)

    def step(self, batch: Batch) -> None:
        """Take one optimizer step on this rank's share of a batch."""
        rng = self._seed_step()
        self._set_rates()
        clips = tuple(clip.to(self.device, non_blocking=True, memory_format=self.layout) for clip in batch.clips)
        labels = batch.labels.to(self.device, non_blocking=True)
        mixed = self._mixed(clips, rng)
        self.optimizer.zero_grad(set_to_none=True)
        pieces = list(_pieces(mixed.clips, labels, labels.flip(0), count=self.recipe.accumulate))
        for index, (piece, own, partners) in enumerate(pieces):
            with self._gradient_sync(is_last=index == len(pieces) - 1), autocast(self.device, self.recipe.amp):
                logits = self._forward(piece)
                loss = self._loss(logits, own, partners, share=mixed.share)
                torch.autograd.backward(self.scaler.scale(loss * (len(own) / len(labels))))
            self.statistics.add(loss.detach(), logits.detach(), own)
        self._update()
        self.step_count += 1

    def _forward(self, piece: tuple[Tensor, ...]) -> Tensor:
        try:
            logits: Tensor = self.step_model(*piece)
        except ValueError as error:
            if not has_too_few_clips(error):
                raise
            raise InputError(
                f"{type(self.model).__name__} normalises over its batch and cannot train on passes of one clip; a batch"
                f" of {self.recipe.batch} is split over {self.ranks.world} processes in {self.recipe.accumulate} passes"
                " each: give the recipe a larger batch"
            ) from None
        return logits

    def spread_buffers(self) -> None:
        """Give every rank the running statistics of the first, which its checkpoints hold."""
        kept = [self.model] if self.average is None else [self.model, self.average.module]
        for module in kept:  # broadcasts must come in the same order on every rank
            for buffer in module.buffers():
                self.ranks.spread(buffer)

    def note_epoch(self, *, validation_loss: float | None) -> None:
        """Update a plateau schedule with the epoch's validation loss."""
        if isinstance(self.recipe.schedule, Plateau) and validation_loss is not None:
            self.plateau.update(self.recipe.schedule, loss=validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        average = None
        if self.average is not None:
            average = {"weights": self.average.module.state_dict(), "updates": self.average.updates}
        return {
            "step": self.step_count,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": asdict(self.plateau),
            "average": average,
            "tally": self.statistics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict()` returned."""
        self.step_count = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.plateau = PlateauState(**state["plateau"])
        self.statistics.load_state_dict(state["tally"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"]["weights"])
            self.average.updates = state["average"]["updates"]

    def _seed_step(self) -> np.random.Generator:
        """Seed the generators that layers draw from (dropout, drop path); returns the generator for mixing."""
        words = np.random.SeedSequence([self.seed, self.step_count, self.ranks.rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        random.seed(int(words[0]))
        return np.random.default_rng(words)

    def _set_rates(self) -> None:
        factor = self.rate_factor
        self.lr = self.recipe.optimizer.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _mixed(self, clips: tuple[Tensor, ...], rng: np.random.Generator) -> MixedBatch:
        if not (self.recipe.mixup or self.recipe.cutmix):
            return MixedBatch(clips=clips, share=1.0)
        return mix(clips, mixup=self.recipe.mixup, cutmix=self.recipe.cutmix, rng=rng)

    def _loss(self, logits: Tensor, own: Tensor, partners: Tensor, *, share: float) -> Tensor:
        """The loss against the clips' own labels and, if clips were mixed, their partners' labels."""
        loss = self._loss_of(logits, own)
        return loss if share == 1.0 else share * loss + (1 - share) * self._loss_of(logits, partners)

    def _loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy; binary cross-entropy per class if a clip may have several labels."""
        if labels.ndim == 2:
            return F.binary_cross_entropy_with_logits(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Let ranks exchange gradients in the last pass of a step only: earlier ones would be sums of too few clips."""
        if is_last or not isinstance(self.step_model, DistributedDataParallel):
            return nullcontext()
        return self.step_model.no_sync()

    def _update(self) -> None:
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)


@dataclass(frozen=True, kw_only=True)
class LossAndTop1:
    """Mean loss, and top-1 as a fraction of 1."""

    loss: float
    top1: float


class EpochStatistics:
    """Loss and hits since the last reset, summed on the device so that no step waits for the result."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        best = logits.argmax(1)
        hits = (best == labels if labels.ndim == 1 else labels.gather(1, best[:, None])).sum()
        self._sums += torch.stack([loss.double() * len(labels), hits.double(), torch.full_like(hits, len(labels))])

    def read(self, ranks: Ranks | None = None) -> LossAndTop1:
        """The mean loss and top-1 of this rank, or of all `ranks` together."""
        sums = self._sums if ranks is None else ranks.total(self._sums.clone())
        loss, hits, clips = sums.tolist()
        clips = max(clips, 1)
        return LossAndTop1(loss=loss / clips, top1=hits / clips)

    def reset(self) -> None:
        self._sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict()` returned; every rank takes the sums of the first instead of its own."""
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))


def set_dropout(model: nn.Module, probability: float | None) -> None:
    """Set the probability of every dropout layer; None changes nothing. Raises InputError if there is no such layer."""
    if probability is None:
        return
    layers = [module for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    if probability and not layers:
        raise InputError(f"the recipe sets dropout {probability}, but {type(model).__name__} has no dropout layer")
    for layer in layers:
        layer.p = probability


def _in_memory_format(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """`model` with its 3D kernels in `layout`; `Module.to` raises for a model that has 2D kernels too."""
    for parameter in model.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameter groups; each group keeps its own rate in `initial_lr`."""
    chosen = recipe.optimizer
    groups = parameter_groups(
        model,
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        ft_begin_module=recipe.ft_begin_module,
        head_lr_scale=recipe.head_lr_scale,
        layer_decay=recipe.layer_decay,
    )
    optimizer: torch.optim.Optimizer
    match chosen:
        case SGD():
            optimizer = torch.optim.SGD(
                groups,
                lr=chosen.lr,
                momentum=chosen.momentum,
                dampening=chosen.dampening,
                nesterov=chosen.nesterov,
            )
        case AdamW():
            optimizer = torch.optim.AdamW(groups, lr=chosen.lr, betas=chosen.betas)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _step_model(model: nn.Module, recipe: Recipe, *, device: torch.device, ranks: Ranks) -> nn.Module:
    """The module that a step calls: the model, compiled if the recipe says so, with gradients shared between ranks."""
    is_shared = ranks.world > 1
    stepped = model
    if is_shared and recipe.sync_bn and device.type == "cuda":
        stepped = nn.SyncBatchNorm.convert_sync_batchnorm(stepped)  # type: ignore[no-untyped-call]  # torch's
    if recipe.compile != "off":
        stepped = cast(nn.Module, torch.compile(stepped, mode=recipe.compile))
    if not is_shared:
        return stepped
    return DistributedDataParallel(stepped, device_ids=[device.index] if device.type == "cuda" else None)


def _pieces(
    clips: tuple[Tensor, ...], labels: Tensor, partners: Tensor, *, count: int
) -> Iterator[tuple[tuple[Tensor, ...], Tensor, Tensor]]:
    """A step's batch in `count` pieces, or in as many as it has clips."""
    split = zip(*(clip.tensor_split(count) for clip in clips), strict=True)
    for piece, own, others in zip(split, labels.tensor_split(count), partners.tensor_split(count), strict=True):
        if len(own):
            yield piece, own, others
