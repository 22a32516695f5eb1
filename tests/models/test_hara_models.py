"""The six families of 3D-ResNets-PyTorch: published logits and counts, and every option against a plain reference."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import ClipError, InputError
from bench.core.registry import MODELS
from bench.models.base import VideoModel
from bench.models.densenet3d import DenseLayer, densenet3d
from bench.models.preact_resnet3d import preact_resnet3d
from bench.models.r2plus1d import r2plus1d
from bench.models.resnet3d import resnet3d
from bench.models.resnext3d import resnext3d
from bench.models.wide_resnet3d import wide_resnet3d

Factory = Callable[..., VideoModel]

FAMILIES: list[Factory] = [resnet3d, r2plus1d, preact_resnet3d, wide_resnet3d, resnext3d, densenet3d]
NARROW: list[partial[VideoModel]] = [
    partial(family, 11, depth=depth, widen_factor=0.125)
    for family in (resnet3d, r2plus1d, preact_resnet3d)
    for depth in (18, 50)
]
ONE_OF_EACH: list[partial[VideoModel]] = [
    *(narrow for narrow in NARROW if narrow.keywords["depth"] == 18),
    partial(wide_resnet3d, 11, k=1),
    partial(resnext3d, 11, cardinality=2),
    partial(densenet3d, 11),
]

# Parameters in millions and GMACs at 16x112x112.
COUNTS = [
    (resnet3d, 10, 700, "14.76", "5.65"),
    (resnet3d, 18, 700, "33.56", "8.31"),
    (resnet3d, 34, 700, "63.87", "12.70"),
    (resnet3d, 50, 700, "47.63", "10.07"),
    (resnet3d, 101, 700, "86.68", "13.89"),
    (resnet3d, 152, 700, "118.84", "18.61"),
    (resnet3d, 200, 700, "128.04", "25.81"),
    (r2plus1d, 18, 700, "33.58", "8.48"),
    (r2plus1d, 34, 700, "63.90", "12.87"),
    (r2plus1d, 50, 700, "47.65", "10.52"),
    (r2plus1d, 101, 700, "86.72", "14.35"),
    (r2plus1d, 152, 700, "118.89", "19.07"),
    (resnext3d, 101, 400, "48.43", "13.03"),
    (wide_resnet3d, 50, 400, "158.34", "29.70"),
    (preact_resnet3d, 200, 400, "127.42", "25.80"),
    (densenet3d, 121, 400, "11.70", "10.40"),
]
QUICK_DEPTHS = {10, 18, 50}


@pytest.mark.parametrize(
    ("family", "depth", "classes", "millions", "gmacs"),
    [row if row[1] in QUICK_DEPTHS else pytest.param(*row, marks=pytest.mark.slow) for row in COUNTS],
)
def test_parameters_and_macs_are_those_of_the_published_model(
    family: Factory, depth: int, classes: int, millions: str, gmacs: str
) -> None:
    with torch.device("meta"):
        model = family(classes, depth=depth).eval()
        clip = torch.empty(1, 3, 16, 112, 112)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    macs = counter.get_total_flops() // 2

    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == millions
    assert f"{macs / 1e9:.2f}" == gmacs
    assert macs == _walk_of(model, family).macs_of(clip)


@pytest.mark.parametrize(
    ("shortcut", "options"),
    [("B", {}), ("A", {"stem_kernel_t": 3, "stem_stride_t": 2, "in_channels": 2}), ("A", {"no_max_pool": True})],
)
@pytest.mark.parametrize("narrow", NARROW, ids=lambda p: f"{p.func.__name__}-{p.keywords['depth']}")
def test_logits_and_gradients_match_a_plain_walk_over_the_weights(
    narrow: Factory, shortcut: str, options: dict[str, int]
) -> None:
    model = _randomised(narrow(shortcut=shortcut, **options)).double().eval()
    clip = torch.randn(2, options.get("in_channels", 3), 7, 18, 20, dtype=torch.float64)
    walk = _walk_of(
        model, narrow.func, stride_t=options.get("stem_stride_t", 1), has_max_pool="no_max_pool" not in options
    )

    logits, walked = model(clip), walk.logits(clip)

    torch.testing.assert_close(logits, walked)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(logits.square().sum(), parameters), torch.autograd.grad(walked.square().sum(), parameters)
    )


@pytest.mark.parametrize(
    "build",
    [
        partial(wide_resnet3d, k=1, shortcut="A"),
        partial(resnext3d, cardinality=2, shortcut="A"),
        partial(densenet3d, dropout=0.5),
    ],
)
def test_wide_grouped_and_dense_models_match_the_walk_too(build: Factory) -> None:
    model = _randomised(build(11, stem_kernel_t=3, stem_stride_t=2, in_channels=2)).eval()
    clip = torch.randn(1, 2, 40, 38, 35)

    with torch.inference_mode():
        walked = _walk_of(model, build.func, stride_t=2).logits(clip)
        torch.testing.assert_close(model(clip), walked, rtol=1e-3, atol=1e-4)


# By hand: 27 * 64 * 128 // (9 * 64 + 3 * 128) = 230, 49 * 7 * 3 * 64 // (49 * 3 + 7 * 64) = 110.
@pytest.mark.parametrize(
    ("build", "key", "shape"),
    [
        (partial(resnet3d, depth=34, widen_factor=0.5), "layer4.2.conv2", (256, 256, 3, 3, 3)),
        (partial(resnet3d, stem_kernel_t=3, in_channels=5), "conv1", (64, 5, 3, 7, 7)),
        (partial(r2plus1d, depth=18), "layer2.0.conv1_s", (230, 64, 1, 3, 3)),
        (partial(r2plus1d, depth=18), "layer2.0.conv1_t", (128, 230, 3, 1, 1)),
        (partial(r2plus1d, depth=50), "layer2.0.conv2_s", (288, 128, 1, 3, 3)),
        (partial(r2plus1d, in_channels=2), "conv1_s", (110, 2, 1, 7, 7)),
        (partial(r2plus1d, stem_kernel_t=1, widen_factor=1 / 64), "conv1_t", (1, 1, 1, 1, 1)),
        (partial(wide_resnet3d, k=3), "conv1", (192, 3, 7, 7, 7)),
        (partial(wide_resnet3d, k=3), "layer1.0.conv3", (384, 192, 1, 1, 1)),
        (partial(resnext3d, cardinality=8), "layer1.0.conv1", (32, 128, 1, 1, 1)),
        (partial(resnext3d, cardinality=8), "layer4.2.conv2", (256, 32, 3, 3, 3)),
        (partial(resnext3d, cardinality=8), "layer4.2.conv3", (2048, 256, 1, 1, 1)),
        (partial(densenet3d, depth=169), "features.transition3.conv", (640, 1280, 1, 1, 1)),
        (partial(densenet3d, depth=264), "classifier", (700, 2688)),
    ],
)
def test_arguments_set_the_widths(build: Factory, key: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert build().get_parameter(f"{key}.weight").shape == shape


def test_a_densenet_that_trains_drops_new_features() -> None:
    torch.manual_seed(0)
    layer = DenseLayer(64, dropout=0.5)

    new = layer.train()(torch.randn(1, 64, 4, 4, 4))[:, 64:]

    assert 0.4 < (new == 0).double().mean() < 0.6


@pytest.mark.parametrize("build", ONE_OF_EACH)
def test_clips_of_any_length_and_size_run(build: Factory) -> None:
    with torch.device("meta"):
        model = build().eval()
        clips = [torch.empty(1, 3, *size) for size in ((8, 112, 112), (64, 256, 256), (13, 29, 41))]

    assert {model(clip).shape for clip in clips} == {(1, 11)}
    assert model.forward_features(clips[0]).shape == (1, model.get_submodule(model.head_name).in_features)


@pytest.mark.parametrize("build", ONE_OF_EACH)
def test_the_smallest_clip_is_one_pixel_of_one_frame(build: Factory) -> None:
    model = build().eval()

    assert model.smallest_clip == (1, 1)
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 1, 1, 1)).isfinite().all()
        with pytest.raises(ClipError, match="smallest that works is 1x1x1"):
            model(torch.empty(1, 3, 0, 1, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_channels_are_optical_flow(family: Factory) -> None:
    with torch.device("meta"):
        model = family(5, in_channels=2)

    assert (model.inputs[0].channels, model.inputs[0].modality) == (2, "flow")
    assert model(torch.empty(2, 2, 16, 32, 32, device="meta")).shape == (2, 5)
    with pytest.raises(ClipError, match=r"takes \(B, 2, T, H, W\), found \(1, 3, 16, 32, 32\)"):
        model(torch.empty(1, 3, 16, 32, 32, device="meta"))


@pytest.mark.parametrize(
    ("family", "allowed"),
    [
        (resnet3d, "10, 18, 34, 50, 101, 152, 200"),
        (r2plus1d, "10, 18, 34, 50, 101, 152, 200"),
        (preact_resnet3d, "10, 18, 34, 50, 101, 152, 200"),
        (wide_resnet3d, "50, 101, 152, 200"),
        (resnext3d, "50, 101, 152, 200"),
        (densenet3d, "121, 169, 201, 264"),
    ],
)
def test_an_unknown_depth_names_those_allowed(family: Factory, allowed: str) -> None:
    with pytest.raises(InputError, match=rf"unknown depth of {family.__name__} 51; allowed: {allowed}$"):
        family(depth=51)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(resnet3d, shortcut="C"), "unknown shortcut 'C'; allowed: A, B"),
        (partial(resnet3d, stem_kernel_t=0), "stem_kernel_t must be above 0, found 0"),
        (partial(r2plus1d, widen_factor=0.01), "widen_factor 0.01 leaves no channels; the smallest is 1/64"),
        (partial(wide_resnet3d, k=0), "k must be above 0, found 0"),
        (partial(resnext3d, cardinality=-1), "cardinality must be above 0, found -1"),
        (partial(densenet3d, dropout=1.5), "dropout must be from 0 to 1, found 1.5"),
        (partial(densenet3d, in_channels=0), "in_channels must be above 0, found 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(build: Factory, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        build()


def test_a_model_with_shortcut_a_can_be_exported() -> None:
    model = _randomised(NARROW[0](shortcut="A")).eval()
    clip = torch.randn(1, 3, 4, 16, 16)

    exported = torch.export.export(model, (clip,)).module()

    torch.testing.assert_close(exported(clip), model(clip))


def test_a_state_dict_goes_into_a_model_built_alike() -> None:
    model, other = (NARROW[2](shortcut="A").eval() for _ in range(2))
    clip = torch.randn(1, 3, 4, 16, 16)

    other.load_state_dict(model.state_dict())

    assert torch.equal(model(clip), other(clip))


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_differ_from_their_family_in_depth_alone(family: Factory) -> None:
    entries = [entry for entry in MODELS if entry.family == family.__name__ and entry.name != entry.family]

    assert entries
    assert all(entry.name == f"{entry.family}_{entry.preset['depth']}" for entry in entries)
    assert all(list(entry.preset) == ["depth"] and entry.clip == "16x1x112" for entry in entries)
    assert MODELS.get(family.__name__).arguments["num_classes"] == 700


class Walk:
    """Runs a model from its state dict alone, in functional calls: kernels, groups and depth follow from the weights.

    It knows nothing of the modules under test, and counts the products of the convolutions as it goes.
    """

    def __init__(self, state: Mapping[str, Tensor], *, stride_t: int, has_max_pool: bool) -> None:
        self.state, self.stride_t, self.has_max_pool = state, stride_t, has_max_pool
        self.macs = 0

    def logits(self, clip: Tensor) -> Tensor:
        raise NotImplementedError

    def macs_of(self, clip: Tensor) -> int:
        self.macs = 0
        with torch.no_grad():
            self.logits(clip)
        return self.macs

    def conv(self, x: Tensor, key: str, *, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        weight = self.state[f"{key}.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        out = F.conv3d(x, weight, stride=stride, padding=padding, groups=x.shape[1] // weight.shape[1])
        self.macs += out.numel() * weight[0].numel()
        return out

    def norm(self, x: Tensor, key: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self.state[f"{key}.{name}"].view(1, -1, 1, 1, 1) for name in names)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def max_pool(self, x: Tensor) -> Tensor:
        return F.max_pool3d(x, 3, stride=2, padding=1) if self.has_max_pool else x

    def head(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        self.macs += weight.numel() * len(x)
        return F.linear(x.mean(dim=(2, 3, 4)), weight, self.state[f"{key}.bias"])

    def count(self, prefix: str) -> int:
        """How many children `prefix` has."""
        return len({key.removeprefix(prefix).split(".")[0] for key in self.state if key.startswith(prefix)})


class ResidualWalk(Walk):
    """Stem, four stages, head; each block's norm after its convolution."""

    def logits(self, clip: Tensor) -> Tensor:
        out = self.max_pool(self.unit(clip, "conv1", stride=(self.stride_t, 2, 2)).relu())
        for stage in (1, 2, 3, 4):
            for number in range(self.count(f"layer{stage}.")):
                out = self.block(out, f"layer{stage}.{number}.", stride=2 if stage > 1 and number == 0 else 1)
        return self.head(out, "fc")

    def unit(self, x: Tensor, conv: str, *, stride: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        """A convolution and its norm, or the two halves of a factored one."""
        norm = conv.replace("conv", "bn")
        if f"{conv}.weight" in self.state:
            return self.norm(self.conv(x, conv, stride=stride), norm)
        half = self.norm(self.conv(x, f"{conv}_s", stride=(1, *stride[1:])), f"{norm}_s").relu()
        return self.norm(self.conv(half, f"{conv}_t", stride=(stride[0], 1, 1)), f"{norm}_t")

    def block(self, x: Tensor, key: str, *, stride: int) -> Tensor:
        out = x
        for number, step in self.steps(key, stride):
            out = self.unit(out if number == 1 else out.relu(), f"{key}conv{number}", stride=step)
        return (out + self.shortcut(x, key, like=out, stride=stride)).relu()

    def steps(self, key: str, stride: int) -> list[tuple[int, tuple[int, int, int]]]:
        """Numbers of a block's convolutions, each with its stride: the first 3x3x3 one takes the block's."""
        count, strided = (3, 2) if f"{key}conv3.weight" in self.state else (2, 1)
        return [(number, (stride,) * 3 if number == strided else (1, 1, 1)) for number in range(1, count + 1)]

    def shortcut(self, x: Tensor, key: str, *, like: Tensor, stride: int) -> Tensor:
        if f"{key}downsample.0.weight" in self.state:
            return self.norm(self.conv(x, f"{key}downsample.0", stride=(stride,) * 3), f"{key}downsample.1")
        picked = F.avg_pool3d(x, kernel_size=1, stride=stride)
        return torch.cat([picked, torch.zeros_like(like)[:, picked.shape[1] :]], dim=1)


class PreActWalk(ResidualWalk):
    """Each block's norm and ReLU before its convolution."""

    def block(self, x: Tensor, key: str, *, stride: int) -> Tensor:
        out = x
        for number, step in self.steps(key, stride):
            out = self.conv(self.norm(out, f"{key}bn{number}").relu(), f"{key}conv{number}", stride=step)
        return out + self.shortcut(x, key, like=out, stride=stride)


class DenseWalk(Walk):
    """Stem, four dense blocks with transitions between, head."""

    def logits(self, clip: Tensor) -> Tensor:
        out = self.conv(clip, "features.conv1", stride=(self.stride_t, 2, 2))
        out = self.max_pool(self.norm(out, "features.norm1").relu())
        for block in (1, 2, 3, 4):
            for layer in range(1, self.count(f"features.denseblock{block}.") + 1):
                key = f"features.denseblock{block}.denselayer{layer}."
                new = self.conv(self.norm(out, f"{key}norm1").relu(), f"{key}conv1")
                new = self.conv(self.norm(new, f"{key}norm2").relu(), f"{key}conv2")
                out = torch.cat([out, new], dim=1)
            if block < 4:
                key = f"features.transition{block}."
                out = F.avg_pool3d(self.conv(self.norm(out, f"{key}norm").relu(), f"{key}conv"), 2)
        return self.head(self.norm(out, "features.norm5").relu(), "classifier")


def _walk_of(model: VideoModel, family: Factory, *, stride_t: int = 1, has_max_pool: bool = True) -> Walk:
    walk = {preact_resnet3d: PreActWalk, densenet3d: DenseWalk}.get(family, ResidualWalk)
    return walk(model.state_dict(keep_vars=True), stride_t=stride_t, has_max_pool=has_max_pool)


def _randomised(model: VideoModel) -> VideoModel:
    """`model` with norms that are not the identity, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model
