"""VideoMamba: bidirectional state-space layers over the tokens of all frames. Li et al., 2024, arXiv:2403.06977.

Written from the paper and from Gu and Dao, 2023, arXiv:2312.00752; names of weights as in the authors' code
(OpenGVLab/VideoMamba, Apache-2.0). The scan is plain torch: slower than the authors' CUDA kernel, the same values.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import init_vit, split_axis

STATES = 16
CONV_TOKENS = 4
PIECE = 8
"""Steps of the scan in one loop: fewer make more levels, more make longer loops; 8 needs fewest operators."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Mixer(nn.Module):
    """A state-space layer run over the tokens from both ends: `(B, N, D)` to `(B, N, D)`.

    Each direction has a convolution, projections and states of its own, those of the reversed one under names with
    `_b`; gate and output projection are shared.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = 2 * dim
        self.rank = math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for end in ("", "_b"):
            self.add_module(f"conv1d{end}", nn.Conv1d(inner, inner, CONV_TOKENS, padding=CONV_TOKENS - 1, groups=inner))
            self.add_module(f"x_proj{end}", nn.Linear(inner, self.rank + 2 * STATES, bias=False))
            self.add_module(f"dt_proj{end}", nn.Linear(self.rank, inner))
            # Not `log` of a range: on meta, it imports the compiler.
            states = torch.tensor([math.log(n) for n in range(1, STATES + 1)]).repeat(inner, 1)
            self.register_parameter("A_log" if not end else "A_b_log", nn.Parameter(states))
            self.register_parameter(f"D{end}", nn.Parameter(torch.ones(inner)))

    def forward(self, x: Tensor) -> Tensor:
        inputs_BDN, gate_BDN = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        # One scan over both directions: half as many small operators, of which a scan has hundreds.
        both = (self._prepared(inputs_BDN, "", "A_log"), self._prepared(inputs_BDN.flip(2), "_b", "A_b_log"))
        causal_BND, *rest = (torch.cat(parts) for parts in zip(*both, strict=True))
        skips = torch.stack([self.get_parameter(f"D{end}").float() for end in ("", "_b")])
        skipped = (split_axis(causal_BND, 0, 2, -1) * skips[:, None, None]).flatten(0, 1)
        forward, backward = (selective_scan(causal_BND, *rest) + skipped).transpose(1, 2).to(x.dtype).chunk(2)
        mixed: Tensor = self.out_proj(((forward + backward.flip(2)) * F.silu(gate_BDN)).transpose(1, 2))
        return mixed

    def _prepared(self, inputs_BDN: Tensor, end: str, decay: str) -> tuple[Tensor, ...]:
        """Return the arguments of `selective_scan` for one direction."""
        tokens = inputs_BDN.shape[2]
        causal = F.silu(self.get_submodule(f"conv1d{end}")(inputs_BDN)[..., :tokens])
        # Linear layers copy tokens that are not contiguous; copied here, they are counted without torch's compiler.
        causal_BND = causal.transpose(1, 2).contiguous()
        projected = self.get_submodule(f"x_proj{end}")(causal_BND)
        step, into, out_of = projected.split([self.rank, STATES, STATES], dim=2)
        step_BND = F.softplus(self.get_submodule(f"dt_proj{end}")(step.contiguous())).float()
        decay_BDS = -self.get_parameter(decay).float().exp().expand(len(inputs_BDN), -1, -1)
        return causal_BND.float(), step_BND, decay_BDS, into.float(), out_of.float()


def selective_scan(x_BND: Tensor, step_BND: Tensor, decay_BDS: Tensor, into_BNS: Tensor, out_of_BNS: Tensor) -> Tensor:
    """Return y of h_n = exp(step_n A) h_(n-1) + step_n B_n x_n and y_n = C_n h_n, `(B, N, D)`.

    A is `decay_BDS` (negative), B `into_BNS`, C `out_of_BNS`. Counters see the products with C; those that build and
    decay the states are elementwise, as in every counter of recurrent scans.
    """
    factors = (step_BND[..., None] * decay_BDS[:, None]).exp()
    terms = (step_BND * x_BND)[..., None] * into_BNS[:, :, None]
    states_BNDS = linear_recurrence(factors, terms)
    return (states_BNDS @ out_of_BNS[..., None])[..., 0]


def linear_recurrence(factors: Tensor, terms: Tensor) -> Tensor:
    """Return h of h_n = factors_n * h_(n-1) + terms_n along axis 1, with h_0 = 0 before the first.

    Runs over all pieces of PIECE steps at once, then over the last states of the pieces in the same way: a few short
    loops, not a long one. Factors lie in 0..1, so that their products over a piece cannot overflow.
    """
    length = factors.shape[1]
    pieces = max(1, math.ceil(length / PIECE))
    missing = pieces * PIECE - length
    if pieces > 1 and missing:
        factors, terms = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (factors, terms))
    # `unbind` instead of an index for each token: a gradient of an index is as large as all tokens.
    (first, *later), (first_term, *later_terms) = (split_axis(x, 1, pieces, -1).unbind(2) for x in (factors, terms))
    states = [first_term]  # of each piece, from a state of zero
    for factor, term in zip(later, later_terms, strict=True):
        states.append(factor * states[-1] + term)
    local = torch.stack(states, dim=2)
    if pieces == 1:
        return local.flatten(1, 2)
    remains = [first]  # the share of the state that enters a piece, after each step
    for factor in later:
        remains.append(factor * remains[-1])
    last = linear_recurrence(remains[-1], states[-1])
    entering = F.pad(last[:, :-1], (0, 0, 0, 0, 1, 0))
    joined = local + torch.stack(remains, dim=2) * entering[:, :, None]
    return joined.flatten(1, 2)[:, :length]


class Layer(nn.Module):
    """Norm and mixer; the sum with the input is carried on beside the output, as in Mamba."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer = Mixer(dim)
        self.norm = nn.RMSNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.mixer(self.norm(x))
        return output


class PatchEmbed(nn.Module):
    """Square patches of single frames as vectors: `(B, 3, T, H, W)` to `(B, T, H * W / patch**2, D)`."""

    def __init__(self, dim: int, *, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (1, patch, patch), stride=(1, patch, patch))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.proj(clip_BCTHW).flatten(3).permute(0, 2, 3, 1)
        return output


class VideoMamba(VideoModel):
    """A class token, then the patches of all frames in order; the class token is classified.

    Takes clips of exactly `frames` x `size` x `size`, for which its position tables are made.
    """

    head_name = "head"
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, num_classes: int, *, frames: int, size: int, patch: int, dim: int, depth: int) -> None:
        super().__init__()
        self.frames, self.size = frames, size
        self.smallest_clip = (frames, size)
        self.patch_embed = PatchEmbed(dim, patch=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, frames, dim))
        self.layers = nn.Sequential(*(Layer(dim) for _ in range(depth)))
        self.norm_f = nn.RMSNorm(dim, eps=1e-5)
        self.head = nn.Linear(dim, num_classes)
        init_vit(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised class token, `(B, D)`; raises ClipError for a clip of another size."""
        (clip_BCTHW,) = clips
        if clip_BCTHW.shape[2:] != (self.frames, self.size, self.size):
            found = "x".join(map(str, clip_BCTHW.shape[2:]))
            raise ClipError(
                f"this VideoMamba takes {self.frames}x{self.size}x{self.size} (frames x H x W), found {found}; "
                "its position tables have that size: build it with other `frames` and `size`"
            )
        patches = self.patch_embed(clip_BCTHW) + self.pos_embed[:, None, 1:] + self.temporal_pos_embedding[:, :, None]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        tokens = self.layers(torch.cat([class_token, patches.flatten(1, 2)], dim=1))
        features: Tensor = self.norm_f(tokens[:, 0])
        return features


SIZES = {"ti": {}, "s": {"dim": 384}, "m": {"dim": 576, "depth": 32}}
STRIDES = {8: 32, 16: 16, 32: 8, 64: 4}
"""Frames of a clip and the stride that spreads them over ten seconds."""


@register_model(
    "videomamba",
    clip="8x32x224",
    paper="Li et al., 2024, arXiv:2403.06977",
    variants={
        f"videomamba_{name}_f{frames}": {**sizes, "frames": frames, "clip": f"{frames}x{stride}x224"}
        for name, sizes in SIZES.items()
        for frames, stride in STRIDES.items()
    },
)
def videomamba(
    num_classes: int = 400,
    *,
    frames: int = 8,
    size: int = 224,
    patch: int = 16,
    dim: int = 192,
    depth: int = 24,
) -> VideoMamba:
    """VideoMamba; `frames` and `size` are those of its position tables, and so of its clips."""
    return VideoMamba(num_classes, frames=frames, size=size, patch=patch, dim=dim, depth=depth)
