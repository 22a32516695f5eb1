"""What every registered model must do, found through the registry: a new file is covered on arrival.

Each family is tested whole at its lightest; its variants are built, run and trained a step on the meta device.
"""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, ClipError
from bench.core.registry import MODELS, ModelEntry
from bench.core.schema import Clip
from bench.models.base import VideoModel, belongs_to, head_name_of
from bench.models.factory import create_model

CLASSES = 5

LIGHT: dict[str, tuple[Any, ...]] = {
    "depth": (2, 10, 18, 50),
    "heads": (2,),
    "probe_depth": (2,),
    "stage_heads": ([1, 2, 4, 8],),
    "dim": (96,),
    "probe_heads": (4,),
    "stages": ([1, 1, 1, 1],),
    "blocks": ([1, 1, 1, 1],),
    "widens_at": ([1],),
    "queries": (1,),
    "backbone": ("torchvision:resnet18",),
    "widen_factor": (0.25,),
    "width": (0.125,),
    "kernel_depth": (1,),
    "depth_factor": (1.0,),
    "cardinality": (8,),
    "k": (1,),
}
"""Values that make a model lighter, for arguments that several families have; the first that can be is taken."""

FAMILIES = [entry.name for entry in MODELS if entry.name == entry.family]
HEAVY = ("c3d", "wide_resnet3d", "densenet3d", "fused_3d", "two_stream_i3d")  # seconds for every test of one
VARIANTS = [entry.name for entry in MODELS if entry.name != entry.family]

# A published pooling window that the smallest clip does not fill says so.
pytestmark = pytest.mark.filterwarnings("ignore:.* in place of the published")


def light_arguments(entry: ModelEntry) -> dict[str, Any]:
    chosen: dict[str, Any] = {"num_classes": CLASSES}
    for name, values in LIGHT.items():
        for value in values if name in entry.arguments else ():
            try:
                create_model(entry.name, device="meta", **{**chosen, name: value})
            except BenchError:
                continue
            chosen[name] = value
            break
    return chosen


def clips_for(model: VideoModel, *, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """The smallest clips that `model` takes."""
    frames, pixels = model.smallest_clip
    clip = Clip(frames=frames, height=pixels, width=pixels)
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(spec.shape(clip, batch=batch), generator=generator) for spec in model.inputs)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in FAMILIES], scope="module"
)
def family(request: pytest.FixtureRequest) -> str:
    """Every family; the tests of one run after one another, so that its model is built once."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(family: str) -> VideoModel:
    """The family's model at its lightest, in eval mode."""
    return built(family, seed=0)


def built(name: str, *, seed: int) -> VideoModel:
    torch.manual_seed(seed)
    model = create_model(name, **light_arguments(MODELS.get(name))).eval()
    assert isinstance(model, VideoModel)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_what_it_is(name: str) -> None:
    entry = MODELS.get(name)
    assert entry.paper
    assert inspect.getdoc(entry.function)
    assert Clip.model_validate(entry.clip)
    assert isinstance(entry.arguments["num_classes"], int)
    for argument, default in entry.arguments.items():
        assert default is not inspect.Parameter.empty, f"{argument} has no default"


def test_logits_are_the_head_of_the_pooled_vector(model: VideoModel) -> None:
    clips = clips_for(model, batch=1)
    with torch.no_grad():
        logits, features = model(*clips), model.forward_features(*clips)
        torch.testing.assert_close(model.forward_head(features), logits)
    assert logits.shape == (1, CLASSES)
    assert features.ndim == 2
    assert len(features) == 1
    assert logits.isfinite().all()
    assert head_name_of(model) == model.head_name


def test_a_clip_gives_the_same_logits_again_and_in_any_batch(model: VideoModel) -> None:
    one, two = clips_for(model, batch=1, seed=1), clips_for(model, batch=1, seed=2)
    both = tuple(torch.cat(pair) for pair in zip(one, two, strict=True))
    with torch.no_grad():
        first, second, batch = model(*one), model(*two), model(*both)
        assert torch.equal(model(*one), first)
    assert not torch.allclose(first, second)
    scale = first.abs().max()
    torch.testing.assert_close(batch / scale, torch.cat((first, second)) / scale, rtol=1e-4, atol=1e-4)


def test_every_weight_gets_a_gradient(model: VideoModel) -> None:
    trained = copy.deepcopy(model).train()
    for module in trained.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.nn.functional.cross_entropy(trained(*clips_for(trained, batch=2)), torch.tensor([0, 1])).backward()
    for name, parameter in trained.named_parameters():
        if any(belongs_to(name, module) for module in trained.auxiliary_modules):
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_state_dict_carries_everything(family: str, model: VideoModel) -> None:
    other = built(family, seed=1)
    other.load_state_dict(model.state_dict())
    clips = clips_for(model, batch=1)
    with torch.no_grad():
        assert torch.equal(other(*clips), model(*clips))


def test_channels_last_3d_gives_the_same_logits(model: VideoModel) -> None:
    clips = clips_for(model, batch=2)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        expected = model(*clips)
        found = last(*(clip.to(memory_format=torch.channels_last_3d) for clip in clips))
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-3, atol=1e-4)


def test_autocast_to_bf16_runs_and_stays_near(model: VideoModel) -> None:
    clips = clips_for(model, batch=1)
    with torch.no_grad():
        expected = model(*clips)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(*clips).float()
    assert found.isfinite().all()
    assert (found - expected).norm() <= 0.25 * expected.norm()


def assert_exports(model: VideoModel) -> None:
    clips = clips_for(model, batch=1)
    exported = torch.export.export(model, clips).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(*clips), model(*clips))


@pytest.mark.parametrize("name", ["resnet3d", "c3d_search"])
def test_a_light_model_exports(name: str) -> None:
    assert_exports(built(name, seed=0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights")  # torch's own LSTM
def test_it_exports(model: VideoModel) -> None:
    assert_exports(model)


def test_a_smaller_clip_is_refused_with_the_smallest(model: VideoModel) -> None:
    frames, pixels = model.smallest_clip
    for less in ((frames - 1, pixels), (frames, pixels - 1)):
        if min(less) < 1:
            continue
        clip = Clip(frames=less[0], height=less[1], width=less[1])
        with pytest.raises(ClipError, match=rf"\D{frames}\D.*\D{pixels}\D"):
            model(*(torch.zeros(spec.shape(clip, batch=1)) for spec in model.inputs))


def assert_runs_on_meta(name: str) -> None:
    model = create_model(name, num_classes=CLASSES, device="meta").eval()
    assert isinstance(model, VideoModel)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    clip = Clip.model_validate(MODELS.get(name).clip)
    inputs = [torch.empty(spec.shape(clip, batch=2), device="meta") for spec in model.inputs]
    assert model(*inputs).shape == (2, CLASSES)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_built_and_run_at_its_clip_on_the_meta_device(name: str) -> None:
    assert_runs_on_meta(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_runs_and_trains_a_step_on_the_meta_device(name: str) -> None:
    assert_runs_on_meta(name)
    shallow = {"depth": 2, "size": 32, "frames": 4} if MODELS.get(name).family == "videomamba" else {}  # many tokens
    model = create_model(name, num_classes=CLASSES, device="meta", **shallow).train()
    assert isinstance(model, VideoModel)
    clips = tuple(clip.to("meta") for clip in clips_for(model, batch=2))
    torch.nn.functional.cross_entropy(model(*clips), torch.zeros(2, dtype=torch.int64, device="meta")).backward()
    for parameter_name, parameter in model.named_parameters():
        if not any(belongs_to(parameter_name, module) for module in model.auxiliary_modules):
            assert parameter.grad is not None, parameter_name
