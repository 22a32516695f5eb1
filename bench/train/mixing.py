"""MixUp and CutMix on batches of clips: pairs of clips are blended, or a box of one is pasted into another.

MixUp: Zhang et al., 2018, arXiv:1710.09412. CutMix: Yun et al., 2019, arXiv:1905.04899, with one box for all frames.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A mixed batch: clip i keeps `share` of its own label and takes the rest from its partner, clip `-1 - i`.

    A loss that is linear in its target, as cross-entropy is, may be taken with either label and averaged so.
    """

    clips: tuple[Tensor, ...]
    share: float


def mix(clips: tuple[Tensor, ...], *, mixup: float, cutmix: float, rng: np.random.Generator) -> Mixed:
    """Mix every clip `(B, C, T, H, W)` of a batch with its partner; with both strengths set, one is drawn by lot.

    `mixup` and `cutmix` are the parameters of Beta(a, a); 0 leaves that one out.
    """
    takes_box = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    strength = cutmix if takes_box else mixup
    share = float(rng.beta(strength, strength))
    if not takes_box:
        return Mixed(clips=tuple(torch.lerp(clip.flip(0), clip, share) for clip in clips), share=share)
    centre = (float(rng.random()), float(rng.random()))
    return _paste(clips, side=math.sqrt(1 - share), centre=centre)


def _paste(clips: tuple[Tensor, ...], *, side: float, centre: tuple[float, float]) -> Mixed:
    """Paste a box, of `side` times the picture's sides around `centre`, of the partner into each clip."""
    pasted, share = [], 1.0
    for clip in clips:
        height, width = clip.shape[-2:]
        rows, columns = _span(height, side=side, centre=centre[0]), _span(width, side=side, centre=centre[1])
        box = (..., slice(*rows), slice(*columns))
        result = clip.clone()
        result[box] = clip.flip(0)[box]
        pasted.append(result)
        share = 1 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / (height * width)
    return Mixed(clips=tuple(pasted), share=share)


def _span(length: int, *, side: float, centre: float) -> tuple[int, int]:
    middle, half = int(centre * length), int(side * length) // 2
    return max(0, middle - half), min(length, middle + half)
