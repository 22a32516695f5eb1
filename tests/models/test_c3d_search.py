"""The temporal-depth search: the paper's model at its clip, any clip elsewhere, who sees the order of frames."""

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.models.factory import create_model


def narrow(kernel_depth: object, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("c3d_search", kernel_depth=kernel_depth, width=0.125, num_classes=7, **arguments).eval()


def clip_of(frames: int, size: int = 48) -> Tensor:
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(frames))


def plain(model: nn.Module, clip: Tensor) -> Tensor:
    """The paper's model on 16 x 112 x 112, written out with Caffe's ceiling pooling and no adaptive pooling."""
    parameters = dict(model.named_parameters())
    for layer, pool in enumerate(((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)), start=1):
        weight, bias = parameters[f"conv{layer}.weight"], parameters[f"conv{layer}.bias"]
        clip = nn.functional.conv3d(clip, weight, bias, padding=(weight.shape[2] // 2, 1, 1)).relu()
        clip = nn.functional.max_pool3d(clip, pool, pool, ceil_mode=True)
    for layer in ("fc6", "fc7", "fc8"):
        clip = nn.functional.linear(clip.flatten(1), parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
        clip = clip.relu() if layer != "fc8" else clip
    return clip


def test_it_has_the_paper_s_size() -> None:
    """Some 17.5 million parameters, which differ little between depths (Tran et al., section 3.2)."""
    counts = {
        depth: sum(p.numel() for p in create_model("c3d_search", kernel_depth=depth, device="meta").parameters())
        for depth in (1, 3, 5, 7, "increasing", "decreasing")
    }
    convs = sum(9 * a * b for a, b in ((3, 64), (64, 128), (128, 256), (256, 256), (256, 256)))
    fixed = 64 + 128 + 3 * 256 + (4096 + 1) * 2048 + (2048 + 1) * 2048 + (2048 + 1) * 101
    assert {depth: counts[depth] for depth in (1, 3, 5, 7)} == {d: fixed + d * convs for d in (1, 3, 5, 7)}
    assert round(counts[3] / 1e6, 1) == 17.4
    assert counts["increasing"] != counts["decreasing"]


@pytest.mark.parametrize("kernel_depth", [1, 3, "increasing", "decreasing"])
def test_at_the_paper_s_clip_it_is_the_paper_s_model(kernel_depth: object) -> None:
    model = narrow(kernel_depth)
    clip = clip_of(16, 112)[:1]
    torch.testing.assert_close(model(clip), plain(model, clip))


@pytest.mark.parametrize("frames", [1, 2, 4, 8, 16, 32, 48])
def test_depth_one_cannot_tell_a_clip_from_its_reversal(frames: int) -> None:
    model = narrow(1)
    clip = clip_of(frames)
    assert torch.equal(model(clip), model(clip.flip(2)))


@pytest.mark.parametrize("kernel_depth", [3, 5, 7, "increasing", "decreasing"])
@pytest.mark.parametrize("frames", [4, 16, 32])
def test_deeper_kernels_can(kernel_depth: object, frames: int) -> None:
    model = narrow(kernel_depth)
    clip = clip_of(frames)
    assert not torch.allclose(model(clip), model(clip.flip(2)), rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 3, 8, 12, 17, 33, 64])
def test_no_length_leaves_several_times_to_the_fully_connected_layers(frames: int) -> None:
    model = narrow(3)
    seen: list[torch.Size] = []
    model.get_submodule("fc6").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert model(clip_of(frames, 32)).shape == (2, 7)
    assert seen == [(2, 32 * 4 * 4)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 32, 32), (16, 64, 64), (5, 33, 71), (16, 128, 171)])
def test_any_clip_fits(shape: tuple[int, int, int]) -> None:
    assert narrow(3)(torch.randn(1, 3, *shape)).isfinite().all()


@pytest.mark.parametrize("width", [0, -1.0, 17])
def test_a_width_that_leaves_nothing_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="width"):
        create_model("c3d_search", width=width)
