"""Files of MMAction2: its recognizers are found under their names and give the logits of its own code.

MMAction2's code was run once on weights and clips made by the rule below; only its numbers are kept. The names of its
weights are derived here from ours, independently of the renaming that is tested.
"""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.core.errors import ClipError, WeightsError
from bench.core.registry import MODELS
from bench.models.factory import create_model
from bench.models.weights.checkpoint import Checkpoint
from bench.models.weights.identification import describe, fits_of, identify, undecided
from bench.models.weights.mmaction_export import FAMILIES, to_mmaction2
from bench.models.weights.translations import names_for

Rename = Callable[[str], str]


def values_for(key: str, shape: tuple[int, ...]) -> Tensor:
    """Values of a weight from its name and shape alone: normal, scaled by what kind of weight it is."""
    noise: Any = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape or 1).astype(np.float32)
    if not shape or key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif key.endswith(("running_mean", "bias")):
        noise = 0.1 * noise
    elif len(shape) == 1:
        noise = 1 + 0.1 * noise
    else:
        noise = noise * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def conv_modules(key: str) -> str:
    """The layers of a residual block of PyTorchVideo as MMAction2 names them."""
    key = key.replace(".branch1_conv.", ".downsample.conv.").replace(".branch1_norm.", ".downsample.bn.")
    return re.sub(
        r"\.branch2\.(conv|norm)_([abc])\.",
        lambda m: f".conv{'abc'.index(m[2]) + 1}.{'conv' if m[1] == 'conv' else 'bn'}.",
        key,
    )


def non_local(key: str) -> str:
    key = key.replace(".conv_out.", ".conv_out.conv.").replace(".bn.", ".conv_out.bn.")
    key = key.replace(".conv_theta.", ".theta.conv.")
    return re.sub(r"\.conv_(phi|g)\.", r".\1.0.conv.", key)


def of_i3d(key: str) -> str:
    """I3D pools pairs of frames behind its first stage, as a block without weights."""
    place, _, rest = key.removeprefix("blocks.").partition(".")
    stage = {"1": 1, "3": 2, "4": 3, "5": 4}.get(place, 0)
    if place == "6":
        return key.replace("blocks.6.proj.", "cls_head.fc_cls.")
    if place == "0":
        return "backbone.conv1." + rest.replace("norm.", "bn.")
    if rest.startswith("non_local."):
        block, _, layer = rest.removeprefix("non_local.").partition(".")
        return f"backbone.layer{stage}.{block}.non_local_block{non_local('.' + layer)}"
    return conv_modules(f"backbone.layer{stage}.{rest.removeprefix('res_blocks.')}")


def of_csn(key: str) -> str:
    place, _, rest = key.removeprefix("blocks.").partition(".")
    if place == "0":
        return "backbone.conv1." + rest.replace("norm.", "bn.")
    if place == "5":
        return key.replace("blocks.5.proj.", "cls_head.fc_cls.")
    for ours, theirs in (("conv_b.pointwise", "0.conv"), ("conv_b.norm", "0.bn"), ("conv_b.depthwise", "1.conv")):
        rest = rest.replace(f".branch2.{ours}.", f".conv2.{theirs}.")
    rest = rest.replace(".branch2.norm_b.", ".conv2.1.bn.")
    return conv_modules(f"backbone.layer{place}.{rest.removeprefix('res_blocks.')}")


def of_slowfast(key: str) -> str:
    key = key.replace("blocks.6.proj.", "cls_head.fc_cls.")
    key = re.sub(
        r"^blocks\.(\d)\.multipathway_fusion\.conv_fast_to_slow\.",
        lambda m: f"backbone.slow_path.{'layer' + m[1] if m[1] != '0' else 'conv1'}_lateral.conv.",
        key,
    )
    pathway = re.match(r"blocks\.(\d)\.multipathway_blocks\.([01])\.", key)
    if pathway is None:
        return key
    place = f"backbone.{('slow', 'fast')[int(pathway[2])]}_path."
    rest = key.removeprefix(pathway[0])
    if pathway[1] == "0":
        return f"{place}conv1.{rest.replace('norm.', 'bn.')}"
    return conv_modules(f"{place}layer{pathway[1]}.{rest.removeprefix('res_blocks.')}")


def of_x3d(key: str) -> str:
    for ours, theirs in (
        ("blocks.0.conv.conv_t.", "backbone.conv1_s.conv."),
        ("blocks.0.conv.conv_xy.", "backbone.conv1_t.conv."),
        ("blocks.0.norm.", "backbone.conv1_t.bn."),
        ("blocks.5.pool.pre_conv.", "backbone.conv5.conv."),
        ("blocks.5.pool.pre_norm.", "backbone.conv5.bn."),
        ("blocks.5.pool.post_conv.", "cls_head.fc1."),
        ("blocks.5.proj.", "cls_head.fc2."),
    ):
        key = key.replace(ours, theirs)
    key = re.sub(r"^blocks\.(\d)\.res_blocks\.", r"backbone.layer\1.", key)
    key = re.sub(r"\.branch2\.norm_b\.1\.block\.([02])\.", lambda m: f".se_module.fc{int(m[1]) // 2 + 1}.", key)
    return conv_modules(key.replace(".branch2.norm_b.0.", ".branch2.norm_b."))


def of_r2plus1d(key: str) -> str:
    return key.replace("fc_cls.", "cls_head.fc_cls.") if key.startswith("fc_cls.") else f"backbone.{key}"


def of_timesformer(key: str) -> str:
    if key.startswith("head."):
        return key.replace("head.", "cls_head.fc_cls.")
    key = re.sub(r"^blocks\.", "transformer_layers.layers.", key)
    for ours, theirs in (
        ("temporal_norm1", "attentions.0.norm"),
        ("temporal_fc", "attentions.0.temporal_fc"),
        ("temporal_attn.qkv.", "attentions.0.attn.in_proj_"),
        ("temporal_attn.proj", "attentions.0.attn.out_proj"),
        (".norm1", ".attentions.1.norm"),
        (".attn.qkv.", ".attentions.1.attn.in_proj_"),
        (".attn.proj", ".attentions.1.attn.out_proj"),
        ("mlp.fc1", "ffns.0.layers.0.0"),
        ("mlp.fc2", "ffns.0.layers.1"),
        (".norm2", ".ffns.0.norm"),
        ("patch_embed.proj", "patch_embed.projection"),
    ):
        key = key.replace(ours, theirs)
    return f"backbone.{key}"


def of_joint_timesformer(key: str) -> str:
    """Its only attention is the first of its layer, as that in time is if the two are divided."""
    if ".mlp." not in key and ".norm2." not in key:
        key = key.replace(".norm1.", ".norms.0.").replace(".attn.qkv.", ".attentions.0.attn.in_proj_")
        key = key.replace(".attn.proj.", ".attentions.0.attn.out_proj.")
    return of_timesformer(key.replace(".norm2.", ".norms.1."))


def of_mvit(key: str, stage: int = 3) -> str:
    """The last norm has the number of its stage."""
    key = key.replace("head.projection.", "cls_head.fc_cls.").replace("patch_embed.proj.", "patch_embed.projection.")
    key = re.sub(r"^norm\.", f"norm{stage}.", key)
    return key if key.startswith("cls_head.") else f"backbone.{key}"


def of_videomae(key: str) -> str:
    key = re.sub(r"^head\.", "cls_head.fc_cls.", key).replace("patch_embed.proj.", "patch_embed.projection.")
    key = key.replace(".mlp.fc1.", ".mlp.layers.0.0.").replace(".mlp.fc2.", ".mlp.layers.1.")
    return key if key.startswith("cls_head.") else f"backbone.{key}"


def of_tsm(key: str) -> str:
    key = key.replace("new_fc.", "cls_head.fc_cls.").replace("base_model.", "backbone.")
    if ".non_local_block." in key:
        block, _, layer = key.partition(".non_local_block.")
        return f"{block}.non_local_block{non_local('.' + layer)}"
    key = key.replace(".downsample.0.", ".downsample.conv.").replace(".downsample.1.", ".downsample.bn.")
    key = re.sub(r"\.conv(\d)\.", r".conv\1.conv.", key)
    return re.sub(r"\.bn(\d)\.", r".conv\1.bn.", key)


RENAMES: dict[str, tuple[dict[str, Any], Rename]] = {
    "i3d_r50_32x2": ({}, of_i3d),
    "i3d_nln_gaussian_r50_32x2": ({}, of_i3d),
    "ip_csn_r152": ({}, of_csn),
    "slowfast_r50": ({"fusion_norm": False}, of_slowfast),
    "x3d_s": ({"shortcut_norm": True}, of_x3d),
    "r2plus1d_r18": ({}, of_r2plus1d),
    "timesformer_b_8x32": ({}, of_timesformer),
    "mvitv2_s_16x4": ({}, of_mvit),
    "videomae_s": ({"stored_positions": True}, of_videomae),
    "tsm_nln_r50": ({}, of_tsm),
}


def shapes_of(name: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
    model = create_model(name, device="meta", **arguments)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", RENAMES)
def test_every_weight_of_mmaction2_lands_where_it_belongs(name: str) -> None:
    arguments, rename = RENAMES[name]
    target = shapes_of(name, **arguments)
    expected = {rename(key): key for key in target}
    assert len(expected) == len(target)
    assert names_for({theirs: target[ours] for theirs, ours in expected.items()}, target) == expected


@pytest.mark.parametrize("name", RENAMES)
def test_an_exported_weight_has_the_name_that_mmaction2_gives_it(name: str) -> None:
    arguments, rename = RENAMES[name]
    target, entry = shapes_of(name, **arguments), MODELS.get(name)
    names = to_mmaction2(entry.family, target, {**entry.arguments, **arguments})
    assert names == {key: rename(key) for key in target}


OF_EACH_FAMILY: list[tuple[str, dict[str, Any]]] = [
    ("c3d", {}),
    ("slow_r50", {}),
    ("slow_nln_r50", {"non_local_form": "mmaction2"}),
    ("i3d_nln_dot_product_r50_32x2", {}),
    ("ir_csn_r50", {}),
    ("slowfast_clip_r50", {}),
    ("slowfast_r50", {}),
    ("x3d_xs", {"shortcut_norm": True}),
    ("r2plus1d_r34", {}),
    ("c2d_frames_r50", {}),
    ("cnn_pool", {}),
    ("tsm_r101", {}),
    ("tsm_nln_gaussian_r50", {}),
    ("tsm_mobilenetv2", {}),
    ("tanet_r50", {}),
    ("tin_r50_16", {}),
    ("tpn_slow_r50", {}),
    ("tpn_tsm_r50", {}),
    ("timesformer_b_8x32", {}),
    ("timesformer_joint_8x32", {}),
    ("timesformer_space_8x32", {}),
    ("mvitv2_b_32x3", {}),
    ("videomae_s", {"stored_positions": True}),
    ("videomaev2_s", {"stored_positions": True}),
    ("video_swin_t", {}),
    ("uniformer_s_16x4", {}),
    ("uniformerv2_b16_8", {}),
]


@pytest.mark.parametrize(("name", "arguments"), OF_EACH_FAMILY)
def test_exported_names_are_mmaction2_s_and_come_back(name: str, arguments: dict[str, Any]) -> None:
    target, entry = shapes_of(name, **arguments), MODELS.get(name)
    names = to_mmaction2(entry.family, target, {**entry.arguments, **arguments})
    assert {key.partition(".")[0] for key in names.values()} <= {"backbone", "neck", "cls_head"}
    back = names_for({names[key]: shape for key, shape in target.items()}, target)
    assert back == {theirs: ours for ours, theirs in names.items()}


def test_every_family_of_mmaction2_is_tried() -> None:
    assert {MODELS.get(name).family for name, _ in OF_EACH_FAMILY} == set(FAMILIES)


@pytest.mark.parametrize("peer", ["mmaction2_tanet_r50_1x1x8", "mmaction2_tpn_slowonly_r50_8x8x1"])
def test_exported_names_are_those_of_mmaction2_s_own_models(peer: str, assets: Path) -> None:
    published = json.loads((assets / "reference" / "peers" / f"{peer}.json").read_text())
    name = {"mmaction2_tanet_r50_1x1x8": "tanet_r50"}.get(peer, "tpn_slow_r50")
    target, entry = shapes_of(name, num_classes=published["classes"]), MODELS.get(name)
    names = to_mmaction2(entry.family, target, entry.arguments)
    assert {names[key]: list(shape) for key, shape in target.items()} == dict(published["state_dict"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slow_nln_r50", "non-local blocks of PySlowFast"),
        ("x3d_s", "whose first shortcut has no norm"),
        ("hiera_tiny_16x224", "hiera has no counterpart in MMAction2"),
    ],
)
def test_a_form_that_mmaction2_does_not_have_is_not_exported_to_it(name: str, reason: str) -> None:
    entry = MODELS.get(name)
    with pytest.raises(WeightsError, match=reason):
        to_mmaction2(entry.family, shapes_of(name), entry.arguments)


def file_of(path: Path, name: str, rename: Rename, **arguments: Any) -> Path:
    """The file that MMAction2 writes of such a model."""
    state = {rename(key): shape for key, shape in shapes_of(name, **arguments).items()}
    torch.save({"meta": {}, "state_dict": {key: values_for(key, shape) for key, shape in state.items()}}, path)
    return path


KEPT: list[tuple[str, dict[str, Any], Rename, tuple[int, ...], list[float]]] = [
    ("x3d_s", {"shortcut_norm": True}, of_x3d, (1, 3, 4, 96, 96), [-239.79955, 129.80278, 382.86081, 339.77908]),
    ("r2plus1d_r18", {}, of_r2plus1d, (1, 3, 4, 48, 48), [-4.58759, 0.53617, -6.00736, 4.97641]),
    (
        "ir_csn_r50",
        {"interaction": "preserved"},
        of_csn,
        (1, 3, 4, 48, 48),
        [-5.51596, -183.09258, -8.38091, 210.8389],
    ),
    ("slowfast_clip_r50", {}, of_slowfast, (1, 3, 8, 48, 48), [-83.08759, 19.50648, 53.3431, 54.05979]),
    (
        "timesformer",
        {"dim": 192, "depth": 2, "heads": 3, "frames": 3, "size": 64},
        of_timesformer,
        (1, 3, 3, 64, 64),
        [0.81979, 0.74998, -0.69931, -2.88808],
    ),
    (
        "timesformer",
        {"attention": "joint", "dim": 192, "depth": 2, "heads": 3, "frames": 3, "size": 64},
        of_joint_timesformer,
        (1, 3, 3, 64, 64),
        [0.79408, -0.39413, 0.49568, -1.2542],
    ),
    (
        "mvitv2",
        {"dim": 32, "depth": 5, "widens_at": [1, 3], "frames": 8, "size": 64},
        lambda key: of_mvit(key, stage=2),
        (1, 3, 8, 64, 64),
        [-0.03833, 0.06725, -3.06668, 1.39144],
    ),
    (
        "videomae",
        {"dim": 192, "depth": 2, "heads": 3, "frames": 4, "size": 64},
        of_videomae,
        (1, 3, 4, 64, 64),
        [-0.08129, -0.29888, -1.06669, 0.62951],
    ),
    (
        "i3d_nln_gaussian_r50_32x2",
        {},
        of_i3d,
        (1, 3, 9, 48, 48),
        [-1810.92004, -3522.09692, -2064.93555, 7674.25049],
    ),
    ("tsm_nln_r50", {}, of_tsm, (1, 3, 8, 48, 48), [1529.69678, -4194.19629, 677.56323, 6389.20312]),
]


@pytest.mark.parametrize(("name", "arguments", "rename", "shape", "logits"), KEPT)
def test_a_file_of_mmaction2_gives_its_logits(
    name: str, arguments: dict[str, Any], rename: Rename, shape: tuple[int, ...], logits: list[float], tmp_path: Path
) -> None:
    """Its strides, pooling and epsilon follow from the names in the file: they are not among the arguments."""
    stored = {"stored_positions": True} if name == "videomae" else {}
    file = file_of(tmp_path / "weights.pth", name, rename, num_classes=11, **arguments, **stored)
    model = create_model(name, weights=file, **arguments).eval()
    clip = torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        output = model(clip).flatten()
    assert output[:4].tolist() == pytest.approx(logits, abs=1e-4 * output.norm().item())


def test_a_file_gives_a_model_what_its_code_base_fixes_unless_the_caller_does(tmp_path: Path) -> None:
    """MMAction2's X3D averages the whole map; the names of its weights say that it is MMAction2's."""
    file = file_of(tmp_path / "x3d.pth", "x3d_s", of_x3d, shortcut_norm=True)
    assert "x3d_s (num_classes=400, shortcut_norm=True, pooling='mean')" in map(describe, identify(file).fits)
    model = create_model("x3d_s", weights=file, shortcut_norm=True)
    assert model.get_submodule("blocks.5.pool.pool").window == (None, None, None)
    kept = create_model("x3d_s", weights=file, shortcut_norm=True, pooling="window")
    assert kept.get_submodule("blocks.5.pool.pool").window == (13, 5, 5)


@pytest.mark.parametrize(
    ("name", "rename", "found"),
    [
        ("i3d_r50", of_i3d, ["i3d_r50_32x2 (num_classes=400)"]),
        ("i3d_heavy_r50_32x2", of_i3d, ["i3d_heavy_r50_32x2 (num_classes=400)"]),
        (
            "i3d_nln_r50_32x2",
            of_i3d,
            ["i3d_nln_dot_product_r50_32x2 (num_classes=400)", "i3d_nln_r50_32x2 (num_classes=400)"],
        ),
        ("tsm_nln_gaussian_r50", of_tsm, ["tsm_nln_gaussian_r50 (num_classes=400)"]),
        ("tsm_nln_r50", of_tsm, ["tsm_nln_dot_product_r50 (num_classes=400)", "tsm_nln_r50 (num_classes=400)"]),
    ],
)
def test_a_file_names_what_its_code_base_fixes_and_every_model_if_that_leaves_several(
    name: str, rename: Rename, found: list[str]
) -> None:
    """MMAction2's I3D has the shapes of PyTorchVideo's and strides more; only the `gaussian` affinity is in weights."""
    assert [describe(fit) for fit in fits_of(without_values(name, rename))] == found


def without_values(name: str, rename: Rename, **about: Any) -> Checkpoint:
    """The checkpoint that MMAction2 writes of such a model, on the meta device."""
    state = {rename(key): torch.empty(shape, device="meta") for key, shape in shapes_of(name).items()}
    about = {"sha256": "", "metadata": {}, **about}
    return Checkpoint(path=Path("w.pth"), n_bytes=0, container="MMAction2", state=state, **about)


def test_what_no_weight_shows_is_named_with_the_value_of_each_model() -> None:
    affinities = {"tsm_nln_dot_product_r50": "dot_product", "tsm_nln_r50": "unscaled_softmax"}
    assert undecided(fits_of(without_values("tsm_nln_r50", of_tsm))) == {"non_local": affinities}
    assert undecided(fits_of(without_values("tsm_nln_gaussian_r50", of_tsm))) == {}


CONFIG = """
model = dict(
    backbone=dict(
        depth=50,
        non_local=((0, 0, 0), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 0, 0)),
        non_local_cfg=dict({}norm_cfg=dict(requires_grad=True, type='BN3d'), sub_sample=True{}),
        type='ResNetTSM'),
    cls_head=dict(mode='fixed', num_classes=400))
"""


@pytest.mark.parametrize(
    ("mode", "rest", "found"),
    [
        ("mode='dot_product', ", ", use_scale=False", ["tsm_nln_dot_product_r50 (num_classes=400)"]),
        ("mode='embedded_gaussian', ", ", use_scale=False", ["tsm_nln_r50 (num_classes=400)"]),
        ("", ", use_scale=False", ["tsm_nln_r50 (num_classes=400)"]),
    ],
)
def test_the_config_in_a_file_decides_what_no_weight_shows(mode: str, rest: str, found: list[str]) -> None:
    metadata = {"meta": {"cfg": CONFIG.format(mode, rest), "epoch": 50}}
    checkpoint = without_values("tsm_nln_r50", of_tsm, metadata=metadata)
    assert [describe(fit) for fit in fits_of(checkpoint)] == found


def test_an_embedded_gaussian_is_scaled_unless_the_config_says_not() -> None:
    """No variant here is of that kind, so that the argument is named."""
    checkpoint = without_values("tsm_nln_r50", of_tsm, metadata={"meta": {"cfg": CONFIG.format("", "")}})
    assert {fit.arguments["non_local"] for fit in fits_of(checkpoint)} == {"softmax"}


def test_a_published_file_is_the_model_that_its_publisher_names() -> None:
    """The file names of MMAction2 hold the first digits of the hash, here those of TSM with dot products."""
    checkpoint = without_values("tsm_nln_r50", of_tsm, sha256="108bfde5" + 56 * "0")
    assert [fit.model for fit in fits_of(checkpoint)] == ["tsm_nln_dot_product_r50"]


def test_sizes_that_weights_leave_open_are_listed_as_assumed(tmp_path: Path) -> None:
    """MMAction2 keeps VideoMAE's positions: a table of 32 tokens is 16 frames of 32 pixels or 4 frames of 64."""
    arguments = {"dim": 192, "depth": 2, "heads": 3, "stored_positions": True}
    file = file_of(tmp_path / "vit.pth", "videomae", of_videomae, frames=4, size=64, num_classes=11, **arguments)
    (found,) = (fit for fit in identify(file).fits if fit.model == "videomae")
    assert (dict(found.arguments), set(found.assumed)) == (
        {**arguments, "num_classes": 11, "size": 32},
        {"heads", "frames", "size"},
    )


def test_slowfast_of_one_clip_takes_every_alpha_th_frame() -> None:
    torch.manual_seed(0)
    model = create_model("slowfast_r50", num_classes=3, takes="clip", fusion_norm=False, alpha=4).eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    slow, fast = model.get_submodule("blocks.0")(clip[:, :, ::4], clip)
    seen = []
    model.get_submodule("blocks.0").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(clip)
    torch.testing.assert_close(seen[0], (slow, fast))
    with pytest.raises(ClipError):
        model(clip[:, :, ::4], clip)
