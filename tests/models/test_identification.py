"""What a checkpoint is and which model fits it, from names and shapes alone."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli.app import run_command
from bench.core.errors import WeightsError
from bench.core.registry import MODELS, register_model
from bench.models.factory import create_model
from bench.models.weights.checkpoint import Checkpoint
from bench.models.weights.identification import Fit, describe, fits_of, identify
from bench.train.exporting import export_weights


def checkpoint_of(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    return Checkpoint(path=Path("w.pth"), sha256="", n_bytes=0, container="unknown", state=state)


def fits(name: str, **arguments: object) -> list[str]:
    model = create_model(name, device="meta", **arguments)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return [describe(fit) for fit in fits_of(checkpoint_of(shapes))]


def test_a_registered_model_without_shapes_of_its_own_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._all()))

    @register_model
    def lazy_net(num_classes: int = 4) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    assert fits("c3d_search") == ["c3d_search (num_classes=101)"]
    assert not fits_of(checkpoint_of({"1.weight": (4, 8), "1.bias": (4,)}))


@pytest.mark.parametrize(
    ("name", "arguments", "found"),
    [
        pytest.param("resnet3d_50", {"num_classes": 1139}, "resnet3d_50 (num_classes=1139)", marks=pytest.mark.slow),
        pytest.param(
            "resnet3d_18", {"shortcut": "A"}, "resnet3d_18 (num_classes=700, shortcut='A')", marks=pytest.mark.slow
        ),
        pytest.param(
            "resnet3d_34",
            {"stem_kernel_t": 3, "in_channels": 2},
            "resnet3d_34 (num_classes=700, stem_kernel_t=3, in_channels=2)",
            marks=pytest.mark.slow,
        ),
        ("r2plus1d_18", {"num_classes": 8}, "r2plus1d_18 (num_classes=8)"),
        pytest.param(
            "r2plus1d_50", {"in_channels": 2}, "r2plus1d_50 (num_classes=700, in_channels=2)", marks=pytest.mark.slow
        ),
        pytest.param("preact_resnet3d_50", {}, "preact_resnet3d_50 (num_classes=700)", marks=pytest.mark.slow),
        pytest.param("wide_resnet3d_50", {"k": 3}, "wide_resnet3d_50 (num_classes=700, k=3)", marks=pytest.mark.slow),
        pytest.param(
            "resnext3d_50",
            {"cardinality": 16},
            "resnext3d_50 (num_classes=700, cardinality=16)",
            marks=pytest.mark.slow,
        ),
        pytest.param("densenet3d_121", {}, "densenet3d_121 (num_classes=700)", marks=pytest.mark.slow),
        ("resnet3d_18", {"widen_factor": 0.5}, "resnet3d_18 (num_classes=700, widen_factor=0.5)"),
        ("c3d", {"kernel_depth": 5, "num_classes": 487}, "c3d (num_classes=487, kernel_depth=5)"),
        ("c3d", {"kernel_depth": "increasing"}, "c3d (num_classes=101, kernel_depth=[3, 3, 5, 5, 5, 5, 7, 7])"),
        ("c3d_search", {"width": 0.25}, "c3d_search (num_classes=101, width=0.25)"),
        pytest.param("i3d_flow", {}, "i3d_flow (num_classes=400)", marks=pytest.mark.slow),
        pytest.param(
            "slowfast_r50_4x16", {"num_classes": 5}, "slowfast_r50_4x16 (num_classes=5)", marks=pytest.mark.slow
        ),
        ("torchvision:r3d_18", {"num_classes": 3}, "torchvision:r3d_18 (num_classes=3)"),
        pytest.param("torchvision:swin3d_t", {}, "torchvision:swin3d_t (num_classes=400)", marks=pytest.mark.slow),
    ],
)
def test_what_a_model_was_built_with_is_read_off_its_weights(name: str, arguments: dict[str, Any], found: str) -> None:
    assert found in fits(name, **arguments)


def test_every_fit_is_named_where_weights_do_not_decide() -> None:
    assert {fit.split(" ")[0] for fit in fits("x3d_s")} == {"x3d_xs", "x3d_s", "x3d_m"}
    assert {fit.split(" ")[0] for fit in fits("slow_r50")} == {"slow_r50", "slow_r50_4x16"}


def test_a_depth_is_found_under_the_name_of_its_variant() -> None:
    assert fits("wide_resnet3d", depth=101) == ["wide_resnet3d_101 (num_classes=700)"]


@pytest.mark.parametrize(("name", "norm"), [("uniformer_s_8x8", "backbone.norm."), ("video_swin_t", "backbone.norm3.")])
def test_mmaction2_holds_backbones_and_a_head_of_its_own(name: str, norm: str) -> None:
    """MMAction2 1.x numbers the last norm of Video Swin by its stage."""
    shapes = {key: tuple(value.shape) for key, value in create_model(name, device="meta").state_dict().items()}
    named = {f"backbone.{key}".replace("backbone.head.", "cls_head.fc_cls."): shape for key, shape in shapes.items()}
    theirs = {key.replace("backbone.norm.", norm): shape for key, shape in named.items()}
    assert name in {fit.model for fit in fits_of(checkpoint_of(theirs))}


def test_what_it_finds_loads(tmp_path: Path) -> None:
    """The arguments that are read off a file build a model that takes the file."""
    model = create_model("resnet3d_18", num_classes=9, shortcut="A", in_channels=2, widen_factor=0.125)
    torch.save({"epoch": 3, "arch": "resnet-18", "state_dict": model.state_dict()}, tmp_path / "w.pth")
    found = identify(tmp_path / "w.pth")
    (fit,) = found.fits
    loaded = create_model(fit.model, weights=tmp_path / "w.pth", **fit.arguments)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert found.num_classes == 9
    assert found.facts == {"epoch": 3, "arch": "resnet-18"}
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.dtypes == ("float32", "int64")
    assert found.container == "3D-ResNets-PyTorch"


def test_weights_without_a_head_are_reported() -> None:
    model = create_model("resnet3d_18", device="meta")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith("fc.")}
    (fit,) = fits_of(checkpoint_of(shapes))
    assert not fit.has_head
    assert describe(fit) == "resnet3d_18 (without its classifier)"


def test_one_weight_more_or_less_is_no_fit() -> None:
    model = create_model("resnet3d_18", device="meta")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert fits_of(checkpoint_of({**shapes, "layer4.1.conv3.weight": (1,)})) == ()
    assert fits_of(checkpoint_of({k: v for k, v in shapes.items() if k != "layer3.0.bn1.bias"})) == ()


def test_what_no_model_has_is_not_guessed(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(2, 3)}, tmp_path / "w.pth")
    found = identify(tmp_path / "w.pth")
    assert (found.container, found.fits, found.num_classes, found.parameters) == ("unknown", (), None, 6)
    with pytest.raises(WeightsError, match="no checkpoint file"):
        identify(tmp_path / "no.pth")


WITHOUT_CLASSES = {"vjepa2_vitl_encoder"}
"""References that are encoders: their output is tokens."""


def references() -> list[Path]:
    return sorted(Path(os.environ.get("VBENCH_TEST_ASSETS", "/nowhere")).glob("reference/peers/*.json"))


def fits_of_reference(path: Path) -> tuple[dict[str, Any], tuple[Fit, ...]]:
    reference = json.loads(path.read_text())
    return reference, fits_of(checkpoint_of({key: tuple(shape) for key, shape in reference["state_dict"]}))


@pytest.mark.parametrize("path", references(), ids=lambda path: path.stem)
def test_every_published_implementation_is_recognised(path: Path) -> None:
    reference, found = fits_of_reference(path)
    assert found
    classes = None if path.stem in WITHOUT_CLASSES else reference["classes"]
    assert {fit.arguments.get("num_classes") for fit in found} == {classes}
    depth = reference["model"].split("-")[-1]
    assert any(fit.model.endswith(depth) or not depth.isdigit() for fit in found)


@pytest.mark.parametrize(
    ("around", "container"),
    [
        ({"input_protocol": {"clip": "4x1"}}, "vbench"),
        ({"notes": {"input_protocol": {"clip": "4x1"}}}, "vbench"),
        ({"notes": "mine"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_checkpoint_of_vbench_is_known_by_the_input_protocol_in_it(tmp_path, around, container):
    torch.save({**around, "state_dict": {"own.weight": torch.ones(3, 3)}}, tmp_path / "w.pt")
    assert identify(tmp_path / "w.pt").container == container


def test_heads_of_an_unusual_depth_are_those_of_the_variant_with_its_width_and_patches() -> None:
    """A ViT-g/14 has 16 heads in VideoMAE V2, not one for each 64 channels, also among the fits of VideoMAE."""
    found = fits("videomaev2", patch=14, dim=1408, depth=2, heads=16, mlp_ratio=48 / 11)
    assert found
    assert all("heads=16" in fit for fit in found)


def test_pyslowfast_s_config_in_a_file_names_the_affinity_of_its_non_local_blocks(assets: Path) -> None:
    """Without a config, it is that of PySlowFast's own configs for this model."""
    reference = json.loads((assets / "reference" / "peers" / "pyslowfast_c2d_nln_8x8_r50.json").read_text())
    plain = checkpoint_of({key: tuple(shape) for key, shape in reference["state_dict"]})
    for config, found in (
        (None, "c2d_nln_r50 (num_classes=400)"),
        ("NONLOCAL:\n  INSTANTIATION: softmax\n  POOL: []\n", "c2d_nln_r50 (num_classes=400)"),
        ("NONLOCAL:\n  INSTANTIATION: dot_product\n", "c2d_nln_r50 (num_classes=400, non_local='dot_product')"),
    ):
        stored = {} if config is None else {"cfg": config}
        checkpoint = replace(plain, container="PySlowFast", metadata={"epoch": 1, **stored})
        assert found in map(describe, fits_of(checkpoint)), config


def test_inspect_says_how_to_choose_between_models_with_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {key: value.half() for key, value in create_model("tsm_nln_r50", num_classes=3).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    assert run_command(["weights", "inspect", str(tmp_path / "w.pth"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["undecided"] == {
        "non_local": {"tsm_nln_r50": "unscaled_softmax", "tsm_nln_dot_product_r50": "dot_product"}
    }
    assert run_command(["weights", "inspect", str(tmp_path / "w.pth")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "weights do not show non_local, which is" in shown
    assert "dot_product in tsm_nln_dot_product_r50" in shown
    assert "the config of the training names it" in shown
    found = export_weights(tmp_path / "w.pth", to="safetensors", out=tmp_path / "w.safetensors")
    assert "which differ in non_local" in " ".join(found.notes)


STATED = [
    ("slow_r50", "DATA:\n  CROP: 1\n  NUM_FRAMES: 4\n", {"slow_r50_4x16"}),
    ("slow_r50", "DATA:\n  NUM_FRAMES: 8\n", {"slow_r50"}),
    ("x3d_m", "DATA:\n  NUM_FRAMES: 13\n  TRAIN_CROP_SIZE: 160\n", {"x3d_s"}),
    ("x3d_m", "DATA:\n  NUM_FRAMES: 16\n  TRAIN_CROP_SIZE: 224\n", {"x3d_m"}),
    ("x3d_m", "TEST:\n  NUM_FRAMES: 13\n", {"x3d_xs", "x3d_s", "x3d_m"}),
]


@pytest.mark.parametrize(("name", "config", "models"), STATED)
def test_the_config_in_a_file_of_pyslowfast_decides_between_models(name: str, config: str, models: set[str]) -> None:
    shapes = {key: tuple(value.shape) for key, value in create_model(name, device="meta").state_dict().items()}
    checkpoint = replace(checkpoint_of(shapes), container="PySlowFast", metadata={"cfg": config})
    found = fits_of(checkpoint)
    assert {fit.model for fit in found} == models
    assert not {"window", "window_frames"} & set(found[0].assumed) or config.startswith("TEST")


def test_the_config_of_slowfast_states_its_ratio_of_frames_and_that_of_mvit_its_pooling() -> None:
    for name, config, found in (
        ("slowfast_r50", "SLOWFAST:\n  ALPHA: 8\n", {"num_classes": 400, "alpha": 8}),
        ("i3d_r50", "DATA:\n  NUM_FRAMES: 16\n", {"num_classes": 400, "window_frames": 8}),
        ("i3d_r50", "DATA:\n  NUM_FRAMES: 8\n", {"num_classes": 400}),
        ("mvitv1_b_16x4", "MVIT:\n  USE_MEAN_POOLING: true\n", {"num_classes": 400, "pooling": "mean"}),
        ("mvitv1_b_16x4", "", {"num_classes": 400}),
    ):
        shapes = {key: tuple(value.shape) for key, value in create_model(name, device="meta").state_dict().items()}
        fits = fits_of(replace(checkpoint_of(shapes), container="PySlowFast", metadata={"cfg": config}))
        (fit,) = (fit for fit in fits if fit.model == name)
        assert dict(fit.arguments) == found
        assert not {"alpha", "pooling"} & set(fit.assumed)


def test_inspect_lists_strides_that_no_weight_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = create_model("resnet3d_18", num_classes=3, widen_factor=0.25, no_max_pool=True).state_dict()
    torch.save({"arch": "resnet-18", "state_dict": state}, tmp_path / "w.pth")
    assert run_command(["weights", "inspect", str(tmp_path / "w.pth"), "--json"]) == 0
    (fit,) = json.loads(capsys.readouterr().out)["fits"]
    assert fit["assumed"] == ["stem_stride_t", "no_max_pool"]
    assert run_command(["weights", "inspect", str(tmp_path / "w.pth")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "weights do not show no_max_pool of resnet3d_18: False is usual, give another by --arg no_max_pool=" in shown


def test_slowfast_with_non_local_blocks_has_the_weights_of_pyslowfast_at_both_ratios_of_frames() -> None:
    """Both fuse over 5 frames there; 41,838,680 are the parameters of the authors' SLOWFAST_NLN_8x8_R50."""
    models = [create_model(name, device="meta") for name in ("slowfast_nln_r50", "slowfast_nln_r50_4x16")]
    assert [sum(p.numel() for p in model.parameters()) for model in models] == [41_838_680] * 2
    assert [MODELS.get(name).arguments["alpha"] for name in ("slowfast_nln_r50", "slowfast_nln_r50_4x16")] == [4, 8]


def test_the_more_usual_of_two_models_with_the_same_weights_is_named_first_unless_the_config_decides() -> None:
    state = create_model("c2d_r50", device="meta").state_dict()
    plain = checkpoint_of({_pyslowfast_name(key): tuple(value.shape) for key, value in state.items()})
    for config, models in (
        ("", ["c2d_r50", "c2d_nopool_r50"]),
        ("DATA:\n  NUM_FRAMES: 8\nMODEL:\n  ARCH: c2d\n  MODEL_NAME: ResNet\n", ["c2d_r50"]),
        ("DATA:\n  NUM_FRAMES: 8\nMODEL:\n  ARCH: c2d\n  MODEL_NAME: ResNet_nopool\n", ["c2d_nopool_r50"]),
    ):
        checkpoint = replace(plain, container="PySlowFast", metadata={"cfg": config})
        assert [fit.model for fit in fits_of(checkpoint)] == models


def _pyslowfast_name(key: str) -> str:
    """The name of a weight of C2D, whose third block is a pooling, in PySlowFast."""
    key = re.sub(r"^blocks\.6\.proj\.", "head.projection.", key)
    key = re.sub(r"^blocks\.0\.norm\.", "s1.pathway0_stem.bn.", key)
    key = re.sub(r"^blocks\.0\.", "s1.pathway0_stem.", key)
    stages = {"1": 2, "3": 3, "4": 4, "5": 5}
    key = re.sub(r"^blocks\.(\d)\.res_blocks\.(\d+)\.", lambda m: f"s{stages[m[1]]}.pathway0_res{m[2]}.", key)
    key = re.sub(r"branch1_(conv|norm)", lambda m: {"conv": "branch1", "norm": "branch1_bn"}[m[1]], key)
    return re.sub(r"branch2\.(conv|norm)_([abc])", lambda m: f"branch2.{m[2]}{'_bn' if m[1] == 'norm' else ''}", key)
