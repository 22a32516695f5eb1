"""Other people's names for our models: every weight of theirs must land on the one of ours that does the same.

The names are built here from the modules of the other code bases, in the other direction than the translation's.
"""

import re
from collections.abc import Callable

import pytest

from bench.models.factory import create_model
from bench.models.weights.checkpoint import Shapes
from bench.models.weights.translations import names_for

DEPTHS = (3, 4, 6, 3)


def shapes_of(name: str, **arguments: object) -> Shapes:
    model = create_model(name, device="meta", **arguments)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def norm(name: str) -> list[str]:
    return [f"{name}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def pyslowfast_names(pathways: int) -> set[str]:
    """Names of PySlowFast's `ResNet` (one pathway) and `SlowFast` (two), from the attributes of its modules."""
    names = ["head.projection.weight", "head.projection.bias"]
    for pathway in range(pathways):
        stem = f"s1.pathway{pathway}_stem"
        names += [f"{stem}.conv.weight", *norm(f"{stem}.bn")]
        for stage, depth in enumerate(DEPTHS, start=2):
            blocks = [f"s{stage}.pathway{pathway}_res{block}" for block in range(depth)]
            names += [f"{blocks[0]}.branch1.weight", *norm(f"{blocks[0]}.branch1_bn")]
            for block in blocks:
                names += [k for n in "abc" for k in (f"{block}.branch2.{n}.weight", *norm(f"{block}.branch2.{n}_bn"))]
    if pathways > 1:
        names += [k for n in range(1, 5) for k in (f"s{n}_fuse.conv_f2s.weight", *norm(f"s{n}_fuse.bn"))]
    return set(names)


def to_pyslowfast(key: str, *, has_pool: bool) -> str:
    """Our name, which is PyTorchVideo's, as PySlowFast's."""
    words = key.split(".")
    stage = int(words[1]) + 1 - (has_pool and int(words[1]) > 1)
    if words[2] == "proj":
        return f"head.projection.{words[-1]}"
    if "multipathway_fusion" in words:
        return f"s{stage}_fuse.{'conv_f2s' if 'conv_fast_to_slow' in words else 'bn'}.{words[-1]}"
    pathway = words[words.index("multipathway_blocks") + 1] if "multipathway_blocks" in words else "0"
    if stage == 1:
        return f"s1.pathway{pathway}_stem.{'conv' if words[-2] == 'conv' else 'bn'}.{words[-1]}"
    block = f"s{stage}.pathway{pathway}_res{words[words.index('res_blocks') + 1]}"
    layer = {"branch1_conv": "branch1", "branch1_norm": "branch1_bn"}.get(words[-2])
    if layer is None:
        kind, letter = words[-2].split("_")
        layer = f"branch2.{letter}" + ("_bn" if kind == "norm" else "")
    return f"{block}.{layer}.{words[-1]}"


def to_mmaction_slow(key: str) -> str:
    """Our name, which is PyTorchVideo's, as MMAction2's SlowOnly."""
    words = key.split(".")
    if words[2] == "proj":
        return f"cls_head.fc_cls.{words[-1]}"
    kind = "conv" if "conv" in words[-2] else "bn"
    if words[1] == "0":
        return f"backbone.conv1.{kind}.{words[-1]}"
    block = f"backbone.layer{words[1]}.{words[3]}"
    layer = "downsample" if words[-2].startswith("branch1") else f"conv{'abc'.index(words[-2][-1]) + 1}"
    return f"{block}.{layer}.{kind}.{words[-1]}"


def to_mmaction_2d(key: str) -> str:
    """Our name, which is torchvision's within a prefix, as MMAction2's TSN or TSM."""
    key = re.sub(r"^(base_model|backbone)\.", "backbone.", key)
    key = re.sub(r"^(new_fc|fc)\.", "cls_head.fc_cls.", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.bn.", key)
    key = re.sub(r"\.conv(\d)\.(net\.)?(weight)$", r".conv\1.conv.\2\3", key)
    key = key.replace(".downsample.0.", ".downsample.conv.")
    return key.replace(".downsample.1.", ".downsample.bn.")


def to_mmaction_tin(key: str) -> str:
    """Our name, which is the authors', as MMAction2's TIN."""
    words = {"biasnet.net.conv": "offset_net.conv", "biasnet.net.fc": "offset_net.fc1"}
    words |= {"biasnet.net.lastlayer": "offset_net.fc2", "weightnet.net.lastlayer": "weight_net.conv"}
    for ours, theirs in words.items():
        key = key.replace(f".conv1.net1.{ours}.", f".conv1.conv.net1.{theirs}.")
    return to_mmaction_2d(key.replace(".conv1.net2.weight", ".conv1.conv.net2.weight"))


MOBILENET_BLOCKS = [(stage, block) for stage, depth in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for block in range(depth)]


def to_mmaction_mobilenet(key: str) -> str:
    """Our name, which is torchvision's within a prefix, as MMAction2's MobileNetV2 with shifts."""
    if key.startswith("new_fc."):
        return key.replace("new_fc.", "cls_head.fc_cls.")
    _, _, number, *words = key.split(".")
    kind = "conv" if words[-2] == "0" else "bn"
    if words[0] != "conv":
        return f"backbone.{'conv1' if number == '0' else 'conv2'}.{kind}.{words[-1]}"
    stage, block = MOBILENET_BLOCKS[int(number) - 1]
    narrowing, layer = 1 if stage == 1 else 2, int(words[1])
    place = f"backbone.layer{stage}.{block}.conv.{min(layer, narrowing)}"
    if layer >= narrowing:
        return f"{place}.{'conv' if layer == narrowing else 'bn'}.{words[-1]}"
    return f"{place}.{'net.' if 'net' in words else ''}{kind}.{words[-1]}"


def to_tsm_mobilenet(key: str) -> str:
    """Our name as that of TSM's authors: a block is one list, every third entry an activation."""
    words = key.split(".")
    if "conv" not in words:
        return key
    narrowing, layer = 1 if words[2] == "1" else 2, int(words[4])
    if layer >= narrowing:
        return ".".join([*words[:4], str(3 * narrowing + layer - narrowing), words[-1]])
    is_norm = words[-2] == "1"
    shift = ["net"] if "net" in words and not is_norm else []
    return ".".join([*words[:4], str(3 * layer + is_norm), *shift, words[-1]])


CASES: dict[str, Callable[[str], str]] = {
    "slow_r50": lambda key: to_pyslowfast(key, has_pool=False),
    "slowfast_r50": lambda key: to_pyslowfast(key, has_pool=False),
    "c2d_r50": lambda key: to_pyslowfast(key, has_pool=True),
    "i3d_r50": lambda key: to_pyslowfast(key, has_pool=True),
    "slow_r50_4x16": to_mmaction_slow,
    "tsm_r50": to_mmaction_2d,
    "tsm_mobilenetv2": to_mmaction_mobilenet,
    "tin_r50": to_mmaction_tin,
    "cnn_pool": to_mmaction_2d,
}


@pytest.mark.parametrize(("model", "rename"), [*CASES.items(), ("tsm_mobilenetv2", to_tsm_mobilenet)])
def test_every_weight_lands_where_it_belongs(model: str, rename: Callable[[str], str]) -> None:
    target = shapes_of(model, num_classes=11)
    expected = {rename(key): key for key in target}
    assert len(expected) == len(target)
    given = {theirs: target[ours] for theirs, ours in expected.items()}
    assert names_for(given, target) == expected


@pytest.mark.parametrize(("model", "pathways"), [("slow_r50", 1), ("c2d_r50", 1), ("slowfast_r50", 2)])
def test_the_names_translated_are_those_of_pyslowfast(model: str, pathways: int) -> None:
    assert {CASES[model](key) for key in shapes_of(model)} == pyslowfast_names(pathways)


def test_the_names_translated_are_those_of_mmaction() -> None:
    slow = {CASES["slow_r50_4x16"](key) for key in shapes_of("slow_r50")}
    assert {"backbone.conv1.conv.weight", "backbone.conv1.bn.bias", "cls_head.fc_cls.weight"} <= slow
    assert {"backbone.layer1.0.downsample.conv.weight", "backbone.layer4.2.conv3.bn.running_var"} <= slow
    shifted = {CASES["tsm_r50"](key) for key in shapes_of("tsm_r50")}
    assert {"backbone.layer1.0.conv1.conv.net.weight", "backbone.layer2.3.conv2.conv.weight"} <= shifted


def test_the_names_translated_are_those_of_both_mobilenets_of_tsm() -> None:
    there = {to_mmaction_mobilenet(key) for key in shapes_of("tsm_mobilenetv2")}
    assert {"backbone.conv2.bn.weight", "backbone.layer1.0.conv.1.conv.weight"} <= there
    assert {"backbone.layer2.1.conv.0.net.conv.weight", "backbone.layer7.0.conv.2.bn.bias"} <= there
    authors = {to_tsm_mobilenet(key) for key in shapes_of("tsm_mobilenetv2")}
    assert {"base_model.features.3.conv.0.net.weight", "base_model.features.3.conv.1.weight"} <= authors
    assert {"base_model.features.1.conv.4.bias", "base_model.features.17.conv.7.running_mean"} <= authors


def test_our_own_names_stay() -> None:
    for model in ("c3d", "resnet3d_18", "x3d_xs", "i3d_rgb"):
        target = shapes_of(model)
        assert names_for(target, target) == {key: key for key in target}


def test_hassony2_s_i3d_is_ours() -> None:
    target = shapes_of("i3d_rgb", num_classes=5)

    def theirs(key: str) -> str:
        words = key.split(".")
        if words[0] == "logits":
            return key.replace("logits", "conv3d_0c_1x1")
        unit = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0"}
        unit |= {"b2b": "branch_2.1", "b3b": "branch_3.1"}
        names = [unit.get(word, {"bn": "batch3d"}.get(word, word)) for word in words[1:]]
        return ".".join([words[0].lower(), *names])

    expected = {theirs(key): key for key in target}
    assert names_for({old: target[new] for old, new in expected.items()}, target) == expected


def to_caffe2(key: str) -> str:
    """PySlowFast's name as the blob of its caffe2 files (its `c2_model_loading.py`, read backwards)."""
    kinds = {"weight": "w", "bias": "b"}
    norms = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    words = key.split(".")
    if words[0] == "head":
        return f"pred_{kinds[words[-1]]}"
    if words[0].endswith("_fuse"):
        stage = int(words[0][1])
        last = {2: 2, 3: 3, 4: 5}.get(stage)
        layer = "t_pool1_subsample" if stage == 1 else f"t_res{stage}_{last}_branch2c_bn_subsample"
        return f"{layer}_bn_{norms[words[-1]]}" if words[1] == "bn" else f"{layer}_{kinds[words[-1]]}"
    pathway, _, block = words[1].partition("_")
    fast = "t_" if pathway == "pathway1" else ""
    if block == "stem":
        return f"{fast}conv1_w" if words[2] == "conv" else f"{fast}res_conv1_bn_{norms[words[-1]]}"
    place = f"{fast}res{words[0][1]}_{block.removeprefix('res')}_" + "".join(words[2:-1])
    return f"{place}_{norms[words[-1]] if place.endswith('_bn') else kinds[words[-1]]}"


@pytest.mark.parametrize("model", ["slow_r50", "slowfast_r50", "c2d_r50", "i3d_r50"])
def test_caffe2_blobs_of_pyslowfast_land_where_they_belong(model: str) -> None:
    target = {key: shape for key, shape in shapes_of(model, num_classes=11).items() if "num_batches" not in key}
    expected = {to_caffe2(CASES[model](key)): key for key in target}
    assert len(expected) == len(target)
    assert {"conv1_w", "res_conv1_bn_riv", "res2_0_branch1_bn_s", "res5_2_branch2c_w", "pred_b"} <= expected.keys()
    assert names_for({old: target[new] for old, new in expected.items()}, target) == expected


def to_vmz(key: str) -> str:
    """torchvision's name of R(2+1)D-18 as the blob of VMZ's caffe2 files."""
    kinds = {"weight": "w", "bias": "b"}
    norms = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    words = key.split(".")
    kind = words[-1]
    if words[0] == "fc":
        return f"last_out_L400_{kinds[kind]}"
    if words[0] == "stem":
        layers = {"0": "conv1_middle", "1": "conv1_middle_spatbn_relu", "3": "conv1", "4": "conv1_spatbn_relu"}
        return f"{layers[words[1]]}_{(norms if words[1] in '14' else kinds)[kind]}"
    comp = 2 * (int(words[0][-1]) - 1) + int(words[1])
    if words[2] == "downsample":
        return f"shortcut_projection_{comp}" + (f"_spatbn_{norms[kind]}" if words[3] == "1" else f"_{kinds[kind]}")
    number = words[2][-1]
    if words[3] == "1":
        return f"comp_{comp}_spatbn_{number}_{norms[kind]}"
    if words[4] == "1":
        return f"comp_{comp}_spatbn_{number}_middle_{norms[kind]}"
    return f"comp_{comp}_conv_{number}{'_middle' if words[4] == '0' else ''}_{kinds[kind]}"


def test_caffe2_blobs_of_vmz_land_in_torchvision_s_model() -> None:
    target = shapes_of("torchvision:r2plus1d_18", num_classes=400)
    target = {key: shape for key, shape in target.items() if "num_batches" not in key}
    expected = {to_vmz(key): key for key in target}
    assert len(expected) == len(target)
    assert names_for({old: target[new] for old, new in expected.items()}, target) == expected
