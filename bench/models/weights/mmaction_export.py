"""Renames the weights of models here to those of MMAction2's recognizers, the way back of `mmaction_names.py`."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from bench.core.errors import WeightsError
from bench.models.weights.mmaction_names import C3D_LAYERS, TIN_LAYERS, Names, Rules, renamed

PREFIXED: Rules = ((r"^(?!cls_head\.|backbone\.|neck\.)", "backbone."),)
"""What every other weight gets once the classifier has its name."""

NON_LOCAL: Rules = (
    (r"(\.non_local_block\.)bn\.", r"\1conv_out.bn."),
    (r"(\.non_local_block\.)conv_out\.(?!bn\.)", r"\1conv_out.conv."),
    (r"(\.non_local_block\.)conv_theta\.", r"\1theta.conv."),
    (r"(\.non_local_block\.)conv_(phi|g)\.", r"\1\2.0.conv."),
)

RESNET_2D: Rules = (
    (r"^(new_fc|fc)\.", "cls_head.fc_cls."),
    (r"^base_model\.", "backbone."),
    (r"\.downsample\.0\.", ".downsample.conv."),
    (r"\.downsample\.1\.", ".downsample.bn."),
    (r"\.conv(\d)\.(?!conv|bn)", r".conv\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.bn."),
    *((re.escape(ours), theirs) for theirs, ours in TIN_LAYERS.items()),
    *NON_LOCAL,
)

BOTTLENECK: Rules = (
    (r"\.branch1_conv\.", ".downsample.conv."),
    (r"\.branch1_norm\.", ".downsample.bn."),
    (r"\.branch2\.conv_a\.", ".conv1.conv."),
    (r"\.branch2\.norm_a\.", ".conv1.bn."),
    (r"\.branch2\.conv_c\.", ".conv3.conv."),
    (r"\.branch2\.norm_c\.", ".conv3.bn."),
)
PLAIN: Rules = ((r"\.branch2\.conv_b\.", ".conv2.conv."), (r"\.branch2\.norm_b\.", ".conv2.bn."))
DEPTHWISE: Rules = ((r"\.branch2\.conv_b\.", ".conv2.0.conv."), (r"\.branch2\.norm_b\.", ".conv2.0.bn."))
POINTWISE_DEPTHWISE: Rules = (
    (r"\.branch2\.conv_b\.pointwise\.", ".conv2.0.conv."),
    (r"\.branch2\.conv_b\.norm\.", ".conv2.0.bn."),
    (r"\.branch2\.conv_b\.depthwise\.", ".conv2.1.conv."),
    (r"\.branch2\.norm_b\.", ".conv2.1.bn."),
)
STAGES: Rules = (
    (r"^blocks\.0\.conv\.", "backbone.conv1.conv."),
    (r"^blocks\.0\.norm\.", "backbone.conv1.bn."),
    (r"^blocks\.(\d)\.res_blocks\.", r"backbone.layer\1."),
    (r"^blocks\.(\d)\.non_local\.(\d+)\.", r"backbone.layer\1.\2.non_local_block."),
    (r"^blocks\.5\.proj\.", "cls_head.fc_cls."),
    *BOTTLENECK,
    *NON_LOCAL,
)
SLOW: Rules = (*STAGES, *PLAIN)
I3D: Rules = (*((rf"^blocks\.{n}\.", f"blocks.{n - 1}.") for n in range(3, 7)), *SLOW)
"""Its third block is a pooling without weights."""

SLOWFAST: Rules = (
    (r"^blocks\.6\.proj\.", "cls_head.fc_cls."),
    (r"^blocks\.0\.multipathway_fusion\.", "backbone.slow_path.conv1_lateral."),
    (r"^blocks\.(\d)\.multipathway_fusion\.", r"backbone.slow_path.layer\1_lateral."),
    (r"_lateral\.conv_fast_to_slow\.", "_lateral.conv."),
    (r"_lateral\.norm\.", "_lateral.bn."),
    (r"\.multipathway_blocks\.0\.", ".slow_path."),
    (r"\.multipathway_blocks\.1\.", ".fast_path."),
    (r"^blocks\.0\.(slow|fast)_path\.conv\.", r"backbone.\1_path.conv1.conv."),
    (r"^blocks\.0\.(slow|fast)_path\.norm\.", r"backbone.\1_path.conv1.bn."),
    (r"^blocks\.(\d)\.(slow|fast)_path\.res_blocks\.", r"backbone.\2_path.layer\1."),
    *BOTTLENECK,
    *PLAIN,
)

X3D: Rules = (
    (r"^blocks\.0\.conv\.conv_t\.", "backbone.conv1_s.conv."),  # PyTorchVideo swapped the names of the two
    (r"^blocks\.0\.conv\.conv_xy\.", "backbone.conv1_t.conv."),
    (r"^blocks\.0\.norm\.", "backbone.conv1_t.bn."),
    (r"^blocks\.5\.pool\.pre_conv\.", "backbone.conv5.conv."),
    (r"^blocks\.5\.pool\.pre_norm\.", "backbone.conv5.bn."),
    (r"^blocks\.5\.pool\.post_conv\.", "cls_head.fc1."),
    (r"^blocks\.5\.proj\.", "cls_head.fc2."),
    (r"^blocks\.(\d)\.res_blocks\.", r"backbone.layer\1."),
    (r"\.branch2\.norm_b\.1\.block\.0\.", ".se_module.fc1."),
    (r"\.branch2\.norm_b\.1\.block\.2\.", ".se_module.fc2."),
    (r"\.branch2\.norm_b\.0\.", ".branch2.norm_b."),
    *BOTTLENECK,
    *PLAIN,
)

TIMESFORMER: Rules = (
    (r"^head\.", "cls_head.fc_cls."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "transformer_layers.layers."),
    (r"\.mlp\.fc1\.", ".ffns.0.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffns.0.layers.1."),
)
DIVIDED: Rules = (
    *TIMESFORMER,
    (r"\.temporal_norm1\.", ".attentions.0.norm."),
    (r"\.temporal_fc\.", ".attentions.0.temporal_fc."),
    (r"\.temporal_attn\.", ".attentions.0.attn."),
    (r"\.norm1\.", ".attentions.1.norm."),
    (r"(layers\.\d+)\.attn\.", r"\1.attentions.1.attn."),
    (r"\.norm2\.", ".ffns.0.norm."),
)
UNDIVIDED: Rules = (
    *TIMESFORMER,
    (r"\.norm1\.", ".norms.0."),
    (r"\.norm2\.", ".norms.1."),
    (r"(layers\.\d+)\.attn\.", r"\1.attentions.0.attn."),
)
IN_PROJECTION: Rules = ((r"\.attn\.qkv\.", ".attn.in_proj_"), (r"\.attn\.proj\.", ".attn.out_proj."), *PREFIXED)

VIT: Rules = (
    (r"^head\.", "cls_head.fc_cls."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.mlp\.fc1\.", ".mlp.layers.0.0."),
    (r"\.mlp\.fc2\.", ".mlp.layers.1."),
    *PREFIXED,
)
UNIFORMERV2: Rules = (
    (r"^backbone\.transformer\.proj\.0\.", "backbone.transformer.norm."),
    (r"^backbone\.transformer\.proj\.2\.", "cls_head.fc_cls."),
)
PLAIN_HEAD: Rules = ((r"^(head|fc_cls)\.", "cls_head.fc_cls."), *PREFIXED)

RULES: Mapping[str, Rules] = {
    "slow": SLOW,
    "i3d_resnet": I3D,
    "slowfast": SLOWFAST,
    "x3d": X3D,
    "r2plus1d_basic": PLAIN_HEAD,
    "c2d_frames": RESNET_2D,
    "cnn_pool": RESNET_2D,
    "tanet": RESNET_2D,
    "tin": RESNET_2D,
    "videomae": VIT,
    "videomaev2": VIT,
    "uniformer": PLAIN_HEAD,
    "uniformerv2": UNIFORMERV2,
}
"""By family; the families whose names depend on more than rules are in `_names`."""

FAMILIES = ("c3d", *RULES, "csn", "mvitv2", "timesformer", "tpn", "tsm", "video_swin")
"""The families that MMAction2 has too."""


def to_mmaction2(family: str, keys: Collection[str], arguments: Mapping[str, Any]) -> Names:
    """Return the names in MMAction2 of the weights `keys` of a model of `family`, built with these `arguments`.

    Raises WeightsError for a family or a form of it that MMAction2 does not have.
    """
    if family not in FAMILIES:
        raise WeightsError(
            f"{family} has no counterpart in MMAction2 known here; these have one: {', '.join(FAMILIES)}"
        )
    if any("non_local" in key and key.endswith("conv_out.bias") for key in keys):
        raise WeightsError("MMAction2 does not have the non-local blocks of PySlowFast, which pool before they project")
    if family == "x3d" and not arguments.get("shortcut_norm"):
        raise WeightsError(
            "MMAction2 does not have the X3D of PyTorchVideo, whose first shortcut has no norm; "
            "train x3d with shortcut_norm=True to go on there"
        )
    return _names(family, keys, arguments)


def _names(family: str, keys: Collection[str], arguments: Mapping[str, Any]) -> Names:
    match family:
        case "c3d":
            layers = {ours: theirs for theirs, ours in C3D_LAYERS.items()}
            split = {key: key.rpartition(".") for key in keys}
            return {key: f"{layers.get(layer, layer)}.{kind}" for key, (layer, _, kind) in split.items()}
        case "csn":
            is_split = any(".conv_b.pointwise." in key for key in keys)
            return renamed(keys, (*STAGES, *(POINTWISE_DEPTHWISE if is_split else DEPTHWISE)))
        case "tpn":
            pyramid = {key: key for key in keys if key.startswith("neck.")}
            rest = [key for key in keys if key not in pyramid]
            is_3d = any(key.startswith("backbone.blocks.") for key in rest)
            slow = ((r"^backbone\.blocks\.", "blocks."), (r"^fc\.", "cls_head.fc_cls."), *SLOW)
            return pyramid | renamed(rest, slow if is_3d else RESNET_2D)
        case "tsm" if any(".features." in key for key in keys):
            return {key: _of_mobilenet(key) for key in keys}
        case "tsm":
            return renamed(keys, RESNET_2D)
        case "timesformer":
            divided = any(".temporal_attn." in key for key in keys)
            return renamed(keys, (*(DIVIDED if divided else UNDIVIDED), *IN_PROJECTION))
        case "mvitv2":
            last = len(arguments["widens_at"])  # MMAction2 numbers the last norm by its stage
            head = ((r"^head\.projection\.", "cls_head.fc_cls."), (r"^patch_embed\.proj\.", "patch_embed.projection."))
            return renamed(keys, (*head, (r"^norm\.", f"norm{last}."), *PREFIXED))
        case "video_swin":
            last = max(int(found[1]) for key in keys if (found := re.match(r"layers\.(\d)\.", key)))
            return renamed(keys, ((r"^norm\.", f"norm{last}."), *PLAIN_HEAD))
        case _:
            return renamed(keys, RULES[family])


MOBILENET_BLOCKS = tuple((stage, block) for stage, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for block in range(n))


def _of_mobilenet(key: str) -> str:
    """Return a name of torchvision's MobileNetV2 within TSM as MMAction2 has it, by stages and with named layers."""
    found = re.match(r"base_model\.features\.(\d+)\.(?:conv\.(\d)\.)?(net\.)?(?:(\d)\.)?(\w+)$", key)
    if found is None:
        return key.replace("new_fc.", "cls_head.fc_cls.")
    number, layer, shift, kind, weight = found.groups()
    if layer is None:
        return f"backbone.conv{1 if number == '0' else 2}.{'bn' if kind == '1' else 'conv'}.{weight}"
    stage, block = MOBILENET_BLOCKS[int(number) - 1]
    if kind is None:  # the last convolution of a block and its norm stand alone in torchvision
        last = 1 if stage == 1 else 2
        layer, kind = str(last), str(int(layer) - last)
    return f"backbone.layer{stage}.{block}.conv.{layer}.{shift or ''}{'bn' if kind == '1' else 'conv'}.{weight}"
