"""Residual stages and the pooling head of PyTorchVideo's models, under the names its checkpoints carry (`blocks.N…`).

After PyTorchVideo 0.1.5 (Apache-2.0), whose builders follow Feichtenhofer et al., 2019, arXiv:1812.03982. Every
convolution is padded by half its kernel, so that stride alone decides the next size, `ceil(n / stride)`, and no clip
is too small for one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast

from torch import Tensor, nn

from bench.models.base import VideoModel

Size = tuple[int, int, int]
"""Kernel, stride or window as (T, H, W)."""

Window = tuple[int | None, int | None, int | None]
"""Pooling window (T, H, W) on the last feature map; None spans the whole axis."""

Pooling = Literal["window", "mean"]
"""What a head averages over: windows of the published size, or the whole map, as MMAction2 does."""

WHOLE_MAP: Window = (None, None, None)

Depth = Literal[50, 101, 152]

ONE: Size = (1, 1, 1)
BLOCKS_OF_DEPTH: dict[Depth, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = 4
NON_LOCAL_BLOCKS = ((), (1, 3), (1, 3, 5), ())
"""Residual blocks of each stage that a non-local block follows, in most of PySlowFast's models."""

NON_LOCAL_PIXELS = 17
"""Smallest height and width of a clip for non-local blocks: the map of the third stage, a sixteenth of the clip's size
rounded up, is pooled once more."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Channels into a residual block, of its middle convolution, and out of it."""

    into: int
    inner: int
    out: int


class MakeBottleneck(Protocol):
    """Makes the bottleneck of block `index` of a stage; `stride` is that of the whole block."""

    def __call__(self, index: int, channels: Channels, stride: Size) -> "Bottleneck": ...


class BlockModel(VideoModel):
    """A chain of blocks, the last of which is a `Head`.

    At a crop above the training crop, the head pools by windows and averages their logits, as PyTorchVideo does.
    Logits stay logits: the softmax that its hub puts before that average for some models is left out.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head_name = f"blocks.{len(self.blocks) - 1}.proj"
        _draw_weights(self)

    @property
    def head(self) -> "Head":
        return cast(Head, self.blocks[-1])

    def forward_maps(self, *clips: Tensor) -> Tensor:
        """Return the input of the head before pooling, `(B, C, T', H', W')`."""
        (x,) = clips
        *blocks, _head = self.blocks
        for block in blocks:
            x = block(x)
        return x

    def forward_features(self, *clips: Tensor) -> Tensor:
        return self.head.pooled(self.forward_maps(*clips))

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head.proj(self.head.dropout(features))
        return logits

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`; raises ClipError if a clip does not fit."""
        self.check(*clips)
        logits: Tensor = self.head(self.forward_maps(*clips))
        return logits


class Head(nn.Module):
    """Pool by windows, then dropout and a linear layer at each window, then their mean: logits `(B, classes)`."""

    def __init__(self, features: int, *, num_classes: int, pool: nn.Module, dropout: float) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(features, num_classes)

    def pooled(self, x_BCTHW: Tensor) -> Tensor:
        """Return the mean over all windows, `(B, features)`."""
        windows_BCTHW: Tensor = self.pool(x_BCTHW)
        return windows_BCTHW.mean((2, 3, 4))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        windows_BTHWC = self.pool(x_BCTHW).movedim(1, -1)
        logits_BTHWC: Tensor = self.proj(self.dropout(windows_BTHWC))
        return logits_BTHWC.mean((1, 2, 3))


class WindowPool(nn.Module):
    """Average over every window of a fixed size, stride 1; the window shrinks to a smaller map."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        # One axis after the other: avg_pool3d has no bfloat16 on the CPU.
        for axis, size in enumerate(self.window, start=2):
            here = x.shape[axis]
            x = x.unfold(axis, here if size is None else min(size, here), 1).mean(-1)
        return x

    def extra_repr(self) -> str:
        return f"window={self.window}"


class Stem(nn.Module):
    """The first convolution, norm and ReLU, then pooling if there is one."""

    def __init__(self, conv: nn.Module, channels: int, *, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm3d(channels)
        self.activation = nn.ReLU()
        self.pool = pool or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.activation(self.norm(self.conv(x))))
        return out


class Bottleneck(nn.Module):
    """Three convolutions: `a` narrows (and may span time), `b` carries the stride, `c` widens again.

    The last norm starts at zero, so that the block starts as its shortcut (Goyal et al., 2017, arXiv:1706.02677).
    """

    def __init__(
        self,
        channels: Channels,
        conv_b: nn.Module,
        *,
        kernel_a: Size = ONE,
        norm_b: nn.Module | None = None,
        act_b: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv_a = conv3d(channels.into, channels.inner, kernel=kernel_a)
        self.norm_a = nn.BatchNorm3d(channels.inner)
        self.act_a = nn.ReLU()
        self.conv_b = conv_b
        self.norm_b = norm_b or nn.BatchNorm3d(channels.inner)
        self.act_b = act_b or nn.ReLU()
        self.conv_c = conv3d(channels.inner, channels.out)
        self.norm_c = nn.BatchNorm3d(channels.out)
        nn.init.zeros_(self.norm_c.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_a(self.norm_a(self.conv_a(x)))
        x = self.act_b(self.norm_b(self.conv_b(x)))
        out: Tensor = self.norm_c(self.conv_c(x))
        return out


class ResidualBlock(nn.Module):
    """A bottleneck and its shortcut: the input itself, or a 1x1x1 convolution if width or size changes."""

    def __init__(self, channels: Channels, branch2: Bottleneck, *, stride: Size, norms_stride: bool) -> None:
        super().__init__()
        widens, strides = channels.into != channels.out, stride != ONE
        self.branch1_conv = conv3d(channels.into, channels.out, stride=stride) if widens or strides else nn.Identity()
        self.branch1_norm = nn.BatchNorm3d(channels.out) if widens or (strides and norms_stride) else nn.Identity()
        self.branch2 = branch2
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.branch1_norm(self.branch1_conv(x)) + self.branch2(x))
        return out


Affinity = Literal["softmax", "unscaled_softmax", "gaussian", "dot_product"]
NonLocalForm = Literal["pyslowfast", "mmaction2"]


class NonLocal(nn.Module):
    """Adds to every position a sum over all positions of the clip, weighted by their affinity (arXiv:1711.07971).

    Keys and values are max-pooled 2x2 in space. The affinities are normalised by softmax, after a scaling by the
    root of their width or without it, or divided by the number of keys (`dot_product`). `gaussian` compares the maps
    themselves, without projections. `form` is whose code it follows: PySlowFast pools before it projects, MMAction2
    pools the projections and has no bias in the last convolution.
    """

    def __init__(self, channels: int, *, affinity: Affinity, form: NonLocalForm = "pyslowfast") -> None:
        super().__init__()
        self.affinity, self.form = affinity, form
        inner = channels // 2
        is_projected = affinity != "gaussian"
        self.conv_theta = nn.Conv3d(channels, inner, 1) if is_projected else nn.Identity()
        self.conv_phi = nn.Conv3d(channels, inner, 1) if is_projected else nn.Identity()
        self.conv_g = nn.Conv3d(channels, inner, 1)
        self.conv_out = nn.Conv3d(inner, channels, 1, bias=form == "pyslowfast")
        self.bn = nn.BatchNorm3d(channels)
        self.pool = nn.MaxPool3d((1, 2, 2))
        nn.init.zeros_(self.bn.weight)  # the block starts as the identity

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        query_BCN = self.conv_theta(x_BCTHW).flatten(2)
        if self.form == "pyslowfast":
            pooled = self.pool(x_BCTHW)
            key, value = self.conv_phi(pooled), self.conv_g(pooled)
        else:
            key, value = self.pool(self.conv_phi(x_BCTHW)), self.pool(self.conv_g(x_BCTHW))
        key_BCM, value_BCM = key.flatten(2), value.flatten(2)
        affinity_BNM = query_BCN.transpose(1, 2) @ key_BCM
        if self.affinity == "softmax":
            affinity_BNM = affinity_BNM * query_BCN.shape[1] ** -0.5
        if self.affinity == "dot_product":
            weights_BNM = affinity_BNM / affinity_BNM.shape[2]
        else:
            weights_BNM = affinity_BNM.softmax(2)
        gathered_BCN = value_BCM @ weights_BNM.transpose(1, 2)
        gathered = gathered_BCN.reshape(gathered_BCN.shape[:2] + x_BCTHW.shape[2:])
        out: Tensor = x_BCTHW + self.bn(self.conv_out(gathered))
        return out


class Stage(nn.Module):
    """`depth` residual blocks, of which the first carries the stride and the change of width.

    `norms_stride` False leaves out the norm of a shortcut that strides without widening, as X3D does. A non-local
    block follows each residual block whose index is in `non_local`.
    """

    def __init__(
        self,
        depth: int,
        channels: Channels,
        *,
        stride: Size,
        bottleneck: MakeBottleneck,
        norms_stride: bool = True,
        non_local: Collection[int] = (),
        affinity: Affinity = "softmax",
        non_local_form: NonLocalForm = "pyslowfast",
    ) -> None:
        super().__init__()
        rest = replace(channels, into=channels.out)
        places = [(channels, stride), *[(rest, ONE)] * (depth - 1)]
        self.res_blocks = nn.Sequential(
            *(
                ResidualBlock(here, bottleneck(index, here, step), stride=step, norms_stride=norms_stride)
                for index, (here, step) in enumerate(places)
            )
        )
        self.non_local = nn.ModuleDict(
            {str(index): NonLocal(channels.out, affinity=affinity, form=non_local_form) for index in non_local}
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.res_blocks):
            x = block(x)
            if str(index) in self.non_local:
                x = self.non_local[str(index)](x)
        return x


def conv3d(into: int, out: int, *, kernel: Size = ONE, stride: Size = ONE, groups: int = 1) -> nn.Conv3d:
    """Return a convolution without bias, padded by half its kernel."""
    t, h, w = kernel
    return nn.Conv3d(into, out, kernel, stride=stride, padding=(t // 2, h // 2, w // 2), groups=groups, bias=False)


def resnet_stem(
    channels: int, *, frames: int, is_pooled: bool = True, stride_t: int = 1, pool_stride_t: int = 1
) -> Stem:
    """Return a `frames` x 7 x 7 convolution of RGB, then 1x3x3 max-pooling if `is_pooled`; each halves H and W."""
    conv = conv3d(3, channels, kernel=(frames, 7, 7), stride=(stride_t, 2, 2))
    return Stem(conv, channels, pool=nn.MaxPool3d((1, 3, 3), (pool_stride_t, 2, 2), (0, 1, 1)) if is_pooled else None)


def resnet_channels(stem: int = 64) -> tuple[Channels, ...]:
    """Return the channels of ResNet's four stages: 64-64-256, 256-128-512, … behind a stem of 64."""
    inner = [stem * 2**stage for stage in range(STAGES)]
    return tuple(Channels(into=stem if n == stem else 2 * n, inner=n, out=4 * n) for n in inner)


def make_spatial_bottleneck(index: int, channels: Channels, stride: Size, *, frames: Sequence[int]) -> Bottleneck:
    """Return a 1x3x3 bottleneck whose first convolution spans `frames`: one number per block, repeated over them."""
    conv_b = conv3d(channels.inner, channels.inner, kernel=(1, 3, 3), stride=stride)
    return Bottleneck(channels, conv_b, kernel_a=(frames[index % len(frames)], 1, 1))


def _draw_weights(model: nn.Module) -> None:
    """Initialise convolutions by fan out (He et al., 2015, arXiv:1502.01852), linear layers with deviation 0.01."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
