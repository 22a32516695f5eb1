"""The blocks that PyTorchVideo's models share, on inputs small enough to compute by hand."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.models.stages import (
    Channels,
    Head,
    NonLocal,
    ResidualBlock,
    Stage,
    WindowPool,
    conv3d,
    make_spatial_bottleneck,
    resnet_channels,
)

ODD = st.sampled_from([1, 3, 5, 7])


@given(size=st.integers(1, 40), kernel=ODD, stride=st.integers(1, 8))
def test_stride_alone_decides_the_size_after_a_convolution(size: int, kernel: int, stride: int) -> None:
    with torch.device("meta"):
        out = conv3d(1, 1, kernel=(kernel, 1, 1), stride=(stride, 1, 1))(torch.empty(1, 1, size, 1, 1))
    assert out.shape[2] == -(-size // stride)


def test_window_pool_averages_every_window() -> None:
    x = torch.arange(4.0).view(1, 1, 1, 1, 4)
    torch.testing.assert_close(WindowPool((1, 1, 3))(x).flatten(), torch.tensor([1.0, 2.0]))


def test_window_shrinks_to_a_smaller_map() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 1, 2)
    torch.testing.assert_close(WindowPool((8, 7, 7))(x).flatten(), torch.tensor([1.5]))


def test_window_of_none_spans_all_frames() -> None:
    x = torch.arange(10.0).view(1, 1, 5, 1, 2)
    torch.testing.assert_close(WindowPool((None, 1, 1))(x).flatten(), torch.tensor([4.0, 5.0]))


def test_head_gives_the_mean_of_the_logits_of_all_windows() -> None:
    head = Head(1, num_classes=1, pool=WindowPool((1, 1, 2)), dropout=0.5).eval()
    nn.init.constant_(head.proj.weight, 2.0)
    nn.init.constant_(head.proj.bias, 1.0)
    x = torch.tensor([0.0, 2.0, 10.0]).view(1, 1, 1, 1, 3)
    # windows: 1 and 6; logits 3 and 13
    torch.testing.assert_close(head(x), torch.tensor([[8.0]]))
    torch.testing.assert_close(head.pooled(x), torch.tensor([[3.5]]))


def test_resnet_channels_are_those_of_resnet_50() -> None:
    assert [(c.into, c.inner, c.out) for c in resnet_channels()] == [
        (64, 64, 256),
        (256, 128, 512),
        (512, 256, 1024),
        (1024, 512, 2048),
    ]
    assert [(c.into, c.inner, c.out) for c in resnet_channels(8)][:2] == [(8, 8, 32), (32, 16, 64)]


def test_temporal_kernels_repeat_over_the_blocks_of_a_stage() -> None:
    channels = Channels(into=4, inner=4, out=4)
    stage = Stage(
        5,
        channels,
        stride=(1, 1, 1),
        bottleneck=lambda index, channels, stride: make_spatial_bottleneck(index, channels, stride, frames=(1, 3)),
    )
    frames = [block.branch2.conv_a.kernel_size[0] for block in stage.res_blocks]
    assert frames == [1, 3, 1, 3, 1]


def test_a_stage_strides_and_widens_in_its_first_block_only() -> None:
    channels = Channels(into=2, inner=2, out=8)
    stage = Stage(
        3,
        channels,
        stride=(1, 2, 2),
        bottleneck=lambda index, channels, stride: make_spatial_bottleneck(index, channels, stride, frames=(1,)),
    )
    assert stage(torch.zeros(1, 2, 3, 9, 9)).shape == (1, 8, 3, 5, 5)
    assert [type(block.branch1_conv) for block in stage.res_blocks] == [nn.Conv3d, nn.Identity, nn.Identity]


@pytest.mark.parametrize(
    ("into", "stride", "norms_stride", "expected"),
    [
        (4, (1, 1, 1), True, (nn.Identity, nn.Identity)),
        (2, (1, 1, 1), True, (nn.Conv3d, nn.BatchNorm3d)),
        (4, (1, 2, 2), True, (nn.Conv3d, nn.BatchNorm3d)),
        (4, (1, 2, 2), False, (nn.Conv3d, nn.Identity)),
        (2, (1, 2, 2), False, (nn.Conv3d, nn.BatchNorm3d)),
    ],
)
def test_shortcut_convolves_only_where_width_or_size_change(into, stride, norms_stride, expected) -> None:
    channels = Channels(into=into, inner=2, out=4)
    bottleneck = make_spatial_bottleneck(0, channels, stride, frames=(1,))
    block = ResidualBlock(channels, bottleneck, stride=stride, norms_stride=norms_stride)
    assert (type(block.branch1_conv), type(block.branch1_norm)) == expected


def test_a_fresh_block_is_its_shortcut() -> None:
    channels = Channels(into=4, inner=2, out=4)
    bottleneck = make_spatial_bottleneck(0, channels, (1, 1, 1), frames=(3,))
    block = ResidualBlock(channels, bottleneck, stride=(1, 1, 1), norms_stride=True)
    x = torch.rand(2, 4, 2, 3, 3)
    torch.testing.assert_close(block(x), x)


def test_window_pool_works_in_bfloat16_on_the_cpu() -> None:
    x = torch.arange(4.0, dtype=torch.bfloat16).view(1, 1, 1, 1, 4)
    assert WindowPool((1, 1, 3))(x).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("form", ["pyslowfast", "mmaction2"])
@pytest.mark.parametrize("affinity", ["softmax", "unscaled_softmax", "gaussian", "dot_product"])
def test_non_local_adds_values_of_all_positions_weighted_by_affinity(affinity, form) -> None:
    torch.manual_seed(0)
    block = NonLocal(4, affinity=affinity, form=form).eval()
    nn.init.ones_(block.bn.weight)
    x = torch.randn(2, 4, 2, 4, 6)
    pool = partial(torch.nn.functional.max_pool3d, kernel_size=(1, 2, 2))
    if form == "pyslowfast":
        key, value = block.conv_phi(pool(x)), block.conv_g(pool(x))
    else:
        key, value = pool(block.conv_phi(x)), pool(block.conv_g(x))
    query = block.conv_theta(x)
    if affinity == "gaussian":
        assert torch.equal(query, x)
    gathered = torch.zeros(2, 2, 2, 4, 6)
    for batch, t, h, w in itertools.product(range(2), range(2), range(4), range(6)):
        affinities = (query[batch, :, t, h, w] * key[batch].flatten(1).T).sum(1)
        scale = 2**0.5 if affinity == "softmax" else 1.0
        is_product = affinity == "dot_product"
        weights = affinities / len(affinities) if is_product else torch.softmax(affinities / scale, 0)
        gathered[batch, :, t, h, w] = (value[batch].flatten(1) * weights).sum(1)
    torch.testing.assert_close(block(x), x + block.bn(block.conv_out(gathered)))


def test_a_non_local_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 4, 1, 2, 2)
    assert torch.equal(NonLocal(4, affinity="softmax").eval()(x), x)


def test_non_local_blocks_follow_the_named_residual_blocks() -> None:
    channels = Channels(into=8, inner=4, out=8)
    stage = Stage(
        3, channels, stride=(1, 1, 1), bottleneck=partial(make_spatial_bottleneck, frames=(1,)), non_local=(1,)
    )
    seen: list[str] = []
    for name in ("res_blocks.0", "res_blocks.1", "non_local.1", "res_blocks.2"):
        stage.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    stage(torch.randn(2, 8, 1, 2, 2))
    assert seen == ["res_blocks.0", "res_blocks.1", "non_local.1", "res_blocks.2"]
    assert list(stage.non_local) == ["1"]
