"""Heads on the features of a frozen model: linear and attentive classifiers, and weighted nearest neighbours.

linear     batch normalisation without parameters, then a linear layer, trained by SGD with momentum 0.9 and a cosine
           schedule: normalisation as in MAE (He et al., 2022, arXiv:2111.06377, appendix A.1), the rest as in DINO's
           eval_linear.py (Caron et al., 2021, arXiv:2104.14294)
attentive  V-JEPA 2's attentive classifier on tokens, 4 blocks and 16 attention heads, trained by AdamW with a cosine
           schedule (Assran et al., 2025, arXiv:2506.09985, section 4 and evals/video_classification_frozen)
knn        votes of the k nearest training videos by cosine similarity s, weighted by exp(s / temperature), as in
           DINO's eval_knn.py; nothing is trained
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import InputError, TrainingError
from bench.models.vjepa2 import AttentivePooler
from bench.train.feature_store import StoredFeatures
from bench.train.scoring import label_ranks

HeadKind = Literal["attentive", "linear", "knn", "zero_shot"]
SCORED_AT_ONCE = 256  # videos
REFERENCE_BATCH = 256  # of DINO's learning rates, which grow with the batch


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How a head is trained. `grid` holds the pairs of learning rate and weight decay to choose from."""

    kind: HeadKind
    grid: tuple[tuple[float, float], ...] = ()
    epochs: int = 0
    batch: int = 128
    blocks: int = 4
    attention_heads: int = 16
    neighbours: int = 20
    temperature: float = 0.07


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """The scores `(videos, classes)` of one head with one seed, and how it was chosen.

    `lr` and `weight_decay` are None for nearest neighbours, `held_out_top1` if there was nothing to choose.
    """

    scores: NDArray[np.float32]
    lr: float | None = None
    weight_decay: float | None = None
    held_out_top1: float | None = None
    seconds: float = 0.0


class FeatureSource:
    """Features in the form that one kind of head reads: `(rows, views, width)`, or `(rows, views, tokens, width)`.

    Tokens of the temporal views of one crop are joined, as V-JEPA 2 joins those of its segments.
    """

    def __init__(self, stored: StoredFeatures, *, has_tokens: bool, spatial_views: int) -> None:
        self.stored, self.has_tokens, self.labels = stored, has_tokens, stored.labels
        self.spatial = spatial_views
        # Vectors are small enough to keep; tokens are read batch by batch.
        self._vectors = None if has_tokens else stored.vectors(np.arange(len(stored)))

    @property
    def views(self) -> int:
        return self.spatial if self.has_tokens else self.stored.sizes.views

    @property
    def width(self) -> int:
        return self.stored.sizes.token_width if self.has_tokens else self.stored.sizes.width

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """The features of these rows, float32 on the CPU."""
        if self._vectors is not None:
            return torch.from_numpy(self._vectors[rows])
        tokens = self.stored.tokens(rows)  # views are temporal x spatial, the crops of one clip adjacent
        by_crop = tokens.reshape(len(rows), -1, self.spatial, *tokens.shape[2:]).swapaxes(1, 2)
        return torch.from_numpy(by_crop.reshape(len(rows), self.spatial, -1, tokens.shape[3]))


def choose_head(
    settings: HeadSettings,
    train: FeatureSource,
    test: FeatureSource,
    *,
    rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
    refit: NDArray[np.int64] | None,
    classes: int,
    seed: int,
    device: str | torch.device = "cpu",
    report: Callable[[str, float], None] = lambda text, fraction: None,
) -> FittedHead:
    """Fit a head to the training videos `rows` and score every test video.

    The learning rate and weight decay of `settings.grid` are those with the best top-1 on the videos `held_out`, of
    equal ones the lowest loss; all heads of the grid see each batch of features together. The chosen head is then
    trained once more on `refit`, if that is given. The test videos have no part in the choice.
    """
    started = time.monotonic()
    if settings.kind == "knn":
        scores = knn_scores(
            _mean_vectors(train, rows),
            train.labels[rows],
            _mean_vectors(test, np.arange(len(test.labels))),
            classes=classes,
            neighbours=settings.neighbours,
            temperature=settings.temperature,
        )
        return FittedHead(scores=scores, seconds=time.monotonic() - started)
    grid, best, top1 = settings.grid, 0, None
    heads = fit_heads(settings, train, rows=rows, grid=grid, classes=classes, seed=seed, device=device, report=report)
    if len(grid) > 1:
        judged = [_judged(head, train, held_out, device=device) for head in heads]
        best = min(range(len(grid)), key=lambda place: judged[place])
        top1 = 1 - judged[best][0]
    head = heads[best]
    if refit is not None and len(grid) > 1:
        (head,) = fit_heads(
            settings, train, rows=refit, grid=grid[best : best + 1], classes=classes, seed=seed, device=device,
            report=report,
        )  # fmt: skip
    scores = score(head, test, np.arange(len(test.labels)), device=device)
    return FittedHead(
        scores=scores,
        lr=grid[best][0],
        weight_decay=grid[best][1],
        held_out_top1=top1,
        seconds=time.monotonic() - started,
    )


def fit_heads(
    settings: HeadSettings,
    source: FeatureSource,
    *,
    rows: NDArray[np.int64],
    grid: Sequence[tuple[float, float]],
    classes: int,
    seed: int,
    device: str | torch.device = "cpu",
    report: Callable[[str, float], None] = lambda text, fraction: None,
) -> list[nn.Module]:
    """One trained head for each (learning rate, weight decay) of `grid`; each batch of features is read once for all.

    All begin with the same weights and see the same batches, which depend on `seed`. Every epoch takes one view of each
    video, drawn at random. Raises TrainingError if the loss of every head is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = build_head(settings, width=source.width, classes=classes).to(device)
    heads = [first, *(build_head(settings, width=source.width, classes=classes).to(device) for _ in grid[1:])]
    for other in heads[1:]:
        other.load_state_dict(first.state_dict())
    steps = list(_batches(len(rows), batch=settings.batch, epochs=settings.epochs, views=source.views, seed=seed))
    optimizers = [
        _optimizer(settings.kind, head, lr=lr, weight_decay=decay, batch=min(settings.batch, len(rows)))
        for head, (lr, decay) in zip(heads, grid, strict=True)
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(each, lambda step: 0.5 * (1 + math.cos(math.pi * step / len(steps))))
        for each in optimizers
    ]
    lost: set[int] = set()
    for number, (chosen, views) in enumerate(steps):
        own = rows[chosen]
        features = source.read(own)[np.arange(len(own)), views].to(device)
        labels = torch.from_numpy(source.labels[own]).to(device)
        for place, (head, optimizer, schedule) in enumerate(zip(heads, optimizers, schedules, strict=True)):
            if place in lost:
                continue
            head.train()
            loss = F.cross_entropy(head(features), labels)
            if not torch.isfinite(loss):  # too large a learning rate; the others go on
                lost.add(place)
                continue
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        report(f"{settings.kind} heads", (number + 1) / len(steps))
    if len(lost) == len(heads):
        raise TrainingError(f"the loss of every {settings.kind} head is not finite; give lower learning rates (`grid`)")
    return heads


def build_head(settings: HeadSettings, *, width: int, classes: int) -> nn.Module:
    """A head with fresh weights on the CPU, for vectors `(B, width)` or tokens `(B, N, width)`."""
    if settings.kind == "linear":
        linear = nn.Linear(width, classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear)
    # A narrow backbone may not divide among 16 attention heads.
    heads = math.gcd(width, settings.attention_heads)
    pooler = AttentivePooler(width, depth=settings.blocks, heads=heads)
    for module in pooler.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for depth, block in enumerate((*pooler.blocks, pooler.cross_attention_block), start=1):
        # Residual branches of deeper blocks begin smaller, as in the authors' code.
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear) and name in ("attn.proj", "mlp.fc2"):
                module.weight.data.div_(math.sqrt(2 * depth))
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(pooler, linear)


def score(
    head: nn.Module, source: FeatureSource, rows: NDArray[np.int64], *, device: str | torch.device = "cpu"
) -> NDArray[np.float32]:
    """The probabilities `(rows, classes)` of each video: the mean of the softmax over its views."""
    head.eval()
    found = []
    with torch.inference_mode():
        for part in np.array_split(rows, max(1, -(-len(rows) // SCORED_AT_ONCE))):
            features = source.read(part).to(device)
            logits = head(features.flatten(0, 1))
            found.append(logits.softmax(1).view(len(part), source.views, -1).mean(1).float().cpu().numpy())
    return np.concatenate(found)


def knn_scores(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    test: NDArray[np.float32],
    *,
    classes: int,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float32]:
    """Votes `(videos, classes)` of the nearest training vectors, as shares of 1; vectors are `(videos, width)`."""
    known = F.normalize(torch.from_numpy(train), dim=1)
    found = []
    for part in torch.split(torch.from_numpy(test), SCORED_AT_ONCE):
        similarity = F.normalize(part, dim=1) @ known.T
        nearest, places = similarity.topk(min(neighbours, len(known)), dim=1)
        # Less the largest, so that the exponential cannot overflow; shares do not change.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        votes = torch.zeros(len(part), classes)
        votes.scatter_add_(1, torch.from_numpy(labels)[places], weights)
        found.append((votes / votes.sum(1, keepdim=True)).numpy())
    return np.concatenate(found)


def few_shots(labels: NDArray[np.int64], rows: NDArray[np.int64], *, shots: int, seed: int) -> NDArray[np.int64]:
    """`shots` of the `rows` of each class, drawn by `seed`; all of them in a class that has no more.

    The draw of one class depends on the seed and on its own rows only. Raises InputError for fewer than one shot.
    """
    if shots < 1:
        raise InputError(f"shots is {shots}; allowed: 1 and more videos of each class, or `all`")
    chosen = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        chosen.append(np.random.default_rng((seed, int(label))).permutation(own)[:shots])
    return np.sort(np.concatenate(chosen))


def _mean_vectors(source: FeatureSource, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean over the views of each video, every view normalised first, so that none counts for more."""
    return np.asarray(F.normalize(source.read(rows), dim=2).mean(1).numpy(), dtype=np.float32)


def _judged(
    head: nn.Module, source: FeatureSource, rows: NDArray[np.int64], *, device: str | torch.device
) -> tuple[float, float]:
    """Share of wrong videos and loss; a head that has diverged is worst."""
    scores, labels = score(head, source, rows, device=device), source.labels[rows]
    if not np.isfinite(scores).all():
        return (math.inf, math.inf)
    own = scores[np.arange(len(labels)), labels]
    return float((label_ranks(scores, labels) > 0).mean()), float(-np.log(own.clip(1e-12)).mean())


def _batches(
    videos: int, *, batch: int, epochs: int, views: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of the videos of each batch and the view that each contributes; the last batch of an epoch is smaller.

    A last batch of a single video joins the one before: batch normalisation needs two.
    """
    random = np.random.default_rng((seed, 1))
    count = max(1, -(-videos // batch) - (videos % batch == 1 and videos > batch))
    for _ in range(epochs):
        order = random.permutation(videos)
        for number in range(count):
            part = order[number * batch :] if number == count - 1 else order[number * batch : (number + 1) * batch]
            yield part, random.integers(0, views, len(part))


def _optimizer(kind: HeadKind, head: nn.Module, *, lr: float, weight_decay: float, batch: int) -> torch.optim.Optimizer:
    if kind == "linear":
        scaled = lr * batch / REFERENCE_BATCH
        return torch.optim.SGD(head.parameters(), lr=scaled, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
