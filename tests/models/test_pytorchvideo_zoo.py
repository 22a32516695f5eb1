"""The models of PyTorchVideo's zoo against what it publishes: logits, parameters, costs, and the clips they take."""

import copy
import functools
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import ClipError, InputError
from bench.core.registry import MODELS
from bench.core.schema import Clip
from bench.models.base import VideoModel
from bench.models.factory import create_model
from bench.models.x3d import squeezed_width

FAMILIES = ("slow", "c2d", "i3d_resnet", "slowfast", "csn", "r2plus1d_r50", "x3d")
NAMES = [
    *("slow_r50", "slow_r50_4x16", "slow_r101", "slow_nln_r50", "slow_nln_r50_4x16"),
    *("c2d_r50", "c2d_nopool_r50", "c2d_nln_r50", "i3d_r50", "i3d_r101", "i3d_nln_r50", "i3d_nln_r101"),
    *("slowfast_r50", "slowfast_r50_4x16", "slowfast_r50_16x8", "slowfast_nln_r50", "slowfast_nln_r50_4x16"),
    *("slowfast_r101", "slowfast_r101_50_50", "slowfast_r101_50_101", "slowfast_r101_16x8", "slowfast_nln_r101_16x8"),
    *("csn_r101", "ir_csn_r152", "ip_csn_r152", "r2plus1d_r50"),
    *("x3d_xs", "x3d_s", "x3d_m", "x3d_l"),
]
# One shallow network of every structure: what a clip meets does not depend on depth, so the rest are slow tests.
SHALLOW: dict[str, dict[str, object]] = {
    "slow": {},
    "i3d_r50": {},
    "slowfast": {},
    "csn": {"depth": 50},
    "r2plus1d_r50": {},
    "x3d": {"depth_factor": 1.0},
}
EACH = [*SHALLOW, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in SHALLOW)]
DEEPEST = ("slowfast_r101_16x8", "ip_csn_r152", "r2plus1d_r50", "x3d_l")
QUICK = ("slow_r50_4x16", "c2d_r50", "i3d_r50", "slowfast_r50", "r2plus1d_r50", "x3d_xs")


class Published(NamedTuple):
    """A row of a model zoo: parameters and cost at the test crop, as printed."""

    name: str
    clip: str
    params_m: float
    gflops: float
    flops_per_norm_element: int


# fvcore counts a batch norm in training mode as 5 operations an element. All figures of PyTorchVideo's
# model_zoo.md are the MACs of the network plus these; slow_r50 and slowfast_r50 (8x8) were printed without.
# ir-CSN and ip-CSN are VMZ's (model_zoo.md, MACs) with MMAction2's parameters, which VMZ rounds otherwise.
PUBLISHED = [
    Published("c2d_r50", "8x8x256", 24.33, 25.89, 5),
    Published("i3d_r50", "8x8x256", 28.04, 37.53, 5),
    Published("slow_r50_4x16", "4x16x256", 32.45, 27.55, 5),
    Published("slow_r50", "8x8x256", 32.45, 54.52, 0),
    Published("slowfast_r50_4x16", "32x2x256", 34.48, 36.69, 5),
    Published("slowfast_r50", "32x2x256", 34.57, 65.71, 0),
    Published("slowfast_r101", "32x2x256", 62.83, 127.20, 5),
    Published("slowfast_r101_16x8", "64x2x256", 53.77, 215.61, 5),
    Published("csn_r101", "32x2x256", 22.21, 75.62, 5),
    Published("r2plus1d_r50", "16x4x256", 28.11, 76.45, 5),
    Published("x3d_xs", "4x12x182", 3.79, 0.91, 5),
    Published("x3d_s", "13x6x182", 3.79, 2.96, 5),
    Published("x3d_m", "16x5x256", 3.79, 6.72, 5),
    Published("x3d_l", "16x5x356", 6.15, 26.64, 5),
    Published("ir_csn_r152", "32x2x256", 29.70, 96.7, 0),
    Published("ip_csn_r152", "32x2x256", 33.02, 108.8, 0),
]


@functools.cache
def on_meta(name: str, num_classes: int = 400) -> VideoModel:
    """The model without weights; shared by the tests, which leave it as it is."""
    return built(name, num_classes=num_classes, device="meta").eval()


def shallow(name: str) -> VideoModel:
    return on_meta(name) if name not in SHALLOW else _shallow_on_meta(name)


@functools.cache
def _shallow_on_meta(name: str) -> VideoModel:
    return built(name, device="meta", **SHALLOW[name]).eval()


def built(name: str, **arguments: object) -> VideoModel:
    model = create_model(name, **arguments)
    assert isinstance(model, VideoModel)
    return model


def clips_for(model: VideoModel, clip: str, *, batch: int = 1, device: str = "meta") -> list[Tensor]:
    shapes = [spec.shape(Clip.model_validate(clip), batch=batch) for spec in model.inputs]
    return [torch.zeros(shape, device=device) for shape in shapes]


def taken(model: VideoModel, clip_BCTHW: Tensor) -> list[Tensor]:
    return [spec.take(clip_BCTHW) for spec in model.inputs]


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] * (row.name not in QUICK), id=row.name) for row in PUBLISHED],
)
def test_parameters_and_cost_are_the_published_ones(row: Published) -> None:
    model = on_meta(row.name)
    macs, norm_elements = counted(model, clips_for(model, row.clip))
    digits = 1 if row.name in ("ir_csn_r152", "ip_csn_r152") else 2
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == row.params_m
    assert round((macs + row.flops_per_norm_element * norm_elements) / 1e9, digits) == row.gflops


@pytest.mark.parametrize(
    ("name", "clip", "gmacs"),
    [
        ("x3d_s", "13x6x160", 1.96),
        pytest.param("x3d_m", "16x5x224", 4.73, marks=pytest.mark.slow),
        pytest.param("x3d_l", "16x5x312", 18.37, marks=pytest.mark.slow),
    ],
)
def test_x3d_costs_what_pyslowfast_prints_at_the_training_crop(name: str, clip: str, gmacs: float) -> None:
    model = on_meta(name)
    assert MODELS.get(name).clip == clip
    assert round(counted(model, clips_for(model, clip))[0] / 1e9, 2) == gmacs


@pytest.mark.parametrize(
    ("name", "classes", "params_m"),
    [("slow_r50", 157, 31.96), ("slowfast_r50", 174, 34.04), ("slowfast_r50", 157, 34.00)],
)
def test_other_numbers_of_classes_have_the_published_size(name: str, classes: int, params_m: float) -> None:
    # 34.0456 M and 34.0064 M were printed as 34.04 and 34.00: cut off here, not rounded.
    params = sum(p.numel() for p in on_meta(name, num_classes=classes).parameters())
    assert abs(params / 1e6 - params_m) < 0.01


@pytest.mark.parametrize("name", EACH)
def test_clips_from_8_to_64_frames_and_112_to_256_pixels_run(name: str) -> None:
    model = shallow(name)
    for clip in ("8x1x112", "16x1x160x213", "64x1x256"):
        assert model(*clips_for(model, clip, batch=2)).shape == (2, 400), clip


@pytest.mark.parametrize("name", ["i3d_r50", "csn", "x3d"])
def test_odd_numbers_of_frames_run_in_one_pathway(name: str) -> None:
    model = shallow(name)
    for frames in (3, 9, 13):
        assert model(*clips_for(model, f"{frames}x1x33")).shape == (1, 400), frames


@pytest.mark.parametrize("name", EACH)
def test_the_smallest_clip_runs_and_nothing_smaller(name: str) -> None:
    model = shallow(name)
    frames, pixels = model.smallest_clip
    assert model(*clips_for(model, f"{frames}x1x{pixels}")).shape == (1, 400)
    if frames > 1:
        whole = torch.zeros(1, 3, frames - 1, 32, 32, device="meta")
        with pytest.raises(ClipError, match=rf"smallest that works is {frames}x{pixels}x{pixels} "):
            model(*taken(model, whole))


@pytest.mark.parametrize("name", ["slow_nln_r50", "slowfast_nln_r50", "i3d_nln_r50", "tsm_nln_r50"])
def test_non_local_blocks_need_two_positions_to_pool(name: str) -> None:
    model = built(name, num_classes=400, device="meta").eval()
    frames, pixels = model.smallest_clip
    assert model(*clips_for(model, f"{frames}x1x{pixels}")).shape == (1, 400)
    with pytest.raises(ClipError, match=rf"smallest that works is \d+x{pixels}x{pixels} "):
        model(*clips_for(model, f"{frames}x1x{pixels - 1}"))
    model.smallest_clip = (1, 1)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        model(*clips_for(model, f"{frames}x1x{pixels - 1}"))


def test_every_model_of_the_zoo_is_registered_under_its_family() -> None:
    """Families may have models of other zoos too."""
    assert {entry.name for entry in MODELS if entry.family in FAMILIES} >= {*NAMES, *FAMILIES}


def test_the_pooling_of_c2d_and_i3d_needs_two_frames() -> None:
    assert on_meta("c2d_r50").smallest_clip == on_meta("i3d_r50").smallest_clip == (2, 1)
    assert on_meta("slow_r50").smallest_clip == (1, 1)


def test_the_slow_pathway_takes_every_alpha_th_frame() -> None:
    assert [spec.shape(Clip.model_validate("32x2x224"), batch=1)[2] for spec in on_meta("slowfast_r50").inputs] == [
        8,
        32,
    ]
    assert on_meta("slowfast_r50_4x16").inputs[0].shape(Clip.model_validate("32x2x224"), batch=1)[2] == 4
    assert on_meta("slowfast_r101_16x8").inputs[0].shape(Clip.model_validate("64x2x224"), batch=1)[2] == 16


@pytest.mark.parametrize(
    ("slow", "fast", "message"),
    [
        ((1, 3, 7, 32, 32), (1, 3, 30, 32, 32), "one slow frame for every 4 fast ones, found 7 and 30"),
        ((1, 3, 0, 32, 32), (1, 3, 2, 32, 32), "smallest that works is 4x1x1"),
        ((1, 3, 1, 32, 32), (1, 3, 2, 32, 32), "smallest that works is 4x1x1"),
        ((1, 3, 8, 32, 32), (1, 3, 32, 64, 64), "differ in batch or size"),
        ((2, 3, 8, 32, 32), (1, 3, 32, 32, 32), "differ in batch or size"),
        ((1, 2, 8, 32, 32), (1, 2, 32, 32, 32), r"takes \(B, 3, T, H, W\)"),
        ((3, 8, 32, 32), (3, 32, 32, 32), r"takes \(B, 3, T, H, W\)"),
    ],
)
def test_pathways_that_do_not_fit_are_refused(slow: tuple[int, ...], fast: tuple[int, ...], message: str) -> None:
    model = on_meta("slowfast_r50")
    with pytest.raises(ClipError, match=message):
        model(torch.zeros(slow, device="meta"), torch.zeros(fast, device="meta"))


def test_slowfast_wants_both_pathways() -> None:
    with pytest.raises(ClipError, match=r"2 input\(s\), found 1"):
        on_meta("slowfast_r50")(torch.zeros(1, 3, 32, 32, 32, device="meta"))


@pytest.mark.parametrize("name", EACH)
def test_the_head_is_the_layer_as_wide_as_the_classes(name: str) -> None:
    model = built(name, num_classes=7, device="meta", **SHALLOW.get(name, {})).eval()
    head = model.get_submodule(model.head_name)
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7
    has_extra_block = name.startswith(("c2d", "i3d", "slowfast")) and "nopool" not in name
    assert model.head_name == ("blocks.6.proj" if has_extra_block else "blocks.5.proj")
    assert list(model.state_dict())[-1] == f"{model.head_name}.bias"
    features = model.forward_features(*clips_for(model, "8x1x32", batch=2))
    assert features.shape == (2, head.in_features)


@pytest.mark.parametrize(
    "name", ["slowfast", "x3d", *(pytest.param(name, marks=pytest.mark.slow) for name in ("i3d_r50", *DEEPEST))]
)
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = built(name, num_classes=3, **SHALLOW.get(name, {})).train()
    wake_up(model)
    model(*taken(model, torch.randn(2, 3, 8, 48, 48))).logsumexp(1).sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert [key for key, p in model.named_parameters() if p.grad is not None and not p.grad.any()] == []


def test_slowfast_can_be_copied_and_its_inputs_pickled() -> None:
    clip = Clip.model_validate("32x2x224")
    model = on_meta("slowfast_r50_4x16")
    for inputs in (copy.deepcopy(model).inputs, pickle.loads(pickle.dumps(model.inputs))):
        assert [spec.shape(clip, batch=1)[2] for spec in inputs] == [4, 32]


def test_only_the_last_stages_of_slow_convolve_over_time() -> None:
    assert temporal_kernels(on_meta("slow_r50")) == [1, [1] * 3, [1] * 4, [3] * 6, [3] * 3]
    assert temporal_kernels(on_meta("c2d_r50")) == [1, [1] * 3, [1] * 4, [1] * 6, [1] * 3]


def test_every_second_bottleneck_of_i3d_convolves_over_time() -> None:
    assert temporal_kernels(on_meta("i3d_r50")) == [5, [3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]


def test_slowfast_16x8_convolves_over_time_in_six_blocks_of_its_third_stage() -> None:
    third = on_meta("slowfast_r101_16x8").get_submodule("blocks.3.multipathway_blocks")
    for pathway in third.children():
        frames = [block.branch2.conv_a.kernel_size[0] for block in pathway.res_blocks]
        assert frames == [3] * 6 + [1] * 17


def test_r2plus1d_goes_over_time_before_space() -> None:
    conv = on_meta("r2plus1d_r50").get_submodule("blocks.3.res_blocks.0.branch2.conv_b")
    assert [name for name, _ in conv.named_children()] == ["conv_t", "norm", "activation", "conv_xy"]
    assert (conv.conv_t.kernel_size, conv.conv_t.stride) == ((3, 1, 1), (2, 1, 1))
    assert (conv.conv_xy.kernel_size, conv.conv_xy.stride) == ((1, 3, 3), (1, 2, 2))


@pytest.mark.parametrize(("name", "blocks"), [("csn_r101", 33), ("ir_csn_r152", 50), ("ip_csn_r152", 50)])
def test_csn_separates_channels_in_every_spatial_convolution(name: str, blocks: int) -> None:
    spatial = [m for m in on_meta(name).modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
    assert [conv.groups for conv in spatial] == [conv.in_channels for conv in spatial]
    assert len(spatial) == blocks


def test_preserving_interaction_costs_one_more_pointwise_convolution_a_block() -> None:
    def params(name: str) -> int:
        return sum(p.numel() for p in on_meta(name).parameters())

    widths = [64] * 3 + [128] * 8 + [256] * 36 + [512] * 3
    assert params("ip_csn_r152") - params("ir_csn_r152") == sum(width * width + 2 * width for width in widths)


@pytest.mark.parametrize(("channels", "squeezed"), [(54, 8), (108, 8), (216, 16), (432, 32)])
def test_squeezed_width_is_that_of_the_published_weights(channels: int, squeezed: int) -> None:
    assert squeezed_width(channels) == squeezed


@pytest.mark.parametrize(("name", "blocks"), [("x3d_xs", [3, 5, 11, 7]), ("x3d_l", [5, 10, 25, 15])])
def test_x3d_is_as_deep_as_published(name: str, blocks: list[int]) -> None:
    model = on_meta(name)
    assert [len(model.get_submodule(f"blocks.{stage}.res_blocks")) for stage in range(1, 5)] == blocks


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("slow", {"depth": 34}),
        ("slowfast", {"alpha": 0}),
        ("slowfast", {"fusion_frames": 4}),
        ("csn", {"interaction": "none"}),
        ("x3d", {"window": [4, 5]}),
        ("x3d", {"depth_factor": 0}),
        ("slow", {"window_frames": 0}),
        ("slow_r50", {"dropout": 2}),
    ],
)
def test_arguments_that_cannot_be_are_refused(name: str, argument: dict[str, object]) -> None:
    with pytest.raises(InputError):
        create_model(name, device="meta", **argument)


def counted(model: VideoModel, clips: list[Tensor]) -> tuple[int, int]:
    """MACs of one forward pass, and the elements that batch norms give."""
    elements = []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    hooks = [norm.register_forward_hook(lambda _norm, _inputs, out: elements.append(out.numel())) for norm in norms]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*clips)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() // 2, sum(elements)


def wake_up(model: nn.Module) -> None:
    """Draw the norms that start at zero, so that every branch carries something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)


def temporal_kernels(model: VideoModel) -> list[object]:
    """Temporal kernel of the stem's convolution, then of the first convolutions of each stage's bottlenecks."""
    stages = [block for block in model.get_submodule("blocks").children() if hasattr(block, "res_blocks")]
    return [
        model.get_submodule("blocks.0.conv").kernel_size[0],
        *([block.branch2.conv_a.kernel_size[0] for block in stage.res_blocks] for stage in stages),
    ]
