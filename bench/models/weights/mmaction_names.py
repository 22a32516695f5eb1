"""Renames the weights of MMAction2's recognizers (`backbone.`, `neck.`, `cls_head.`) to the names here."""

import re
from collections.abc import Callable, Iterable

from bench.models.weights.checkpoint import Shapes

Names = dict[str, str]
"""Name in the file → name in our model."""

C3D_LAYERS = {
    "backbone.conv1a.conv": "conv1",
    "backbone.conv2a.conv": "conv2",
    **{f"backbone.conv{n}.conv": f"conv{n}" for n in ("3a", "3b", "4a", "4b", "5a", "5b")},
    "backbone.fc6": "fc6",
    "backbone.fc7": "fc7",
    "cls_head.fc_cls": "fc8",
}

TIN_LAYERS = {
    ".net1.offset_net.conv.": ".net1.biasnet.net.conv.",
    ".net1.offset_net.fc1.": ".net1.biasnet.net.fc.",
    ".net1.offset_net.fc2.": ".net1.biasnet.net.lastlayer.",
    ".net1.weight_net.conv.": ".net1.weightnet.net.lastlayer.",
}

Rules = tuple[tuple[str, str], ...]
"""Regular expressions and what replaces them, in this order."""

RESNET: Rules = (
    (r"\.conv([123])\.conv\.", r".conv\1."),
    (r"\.conv([123])\.bn\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)
"""MMAction2's ResNets for images as torchvision names them."""

TIN: Rules = tuple((re.escape(theirs), ours) for theirs, ours in TIN_LAYERS.items())

NON_LOCAL: Rules = (
    (r"\.(theta|phi|g|conv_out)(?:\.0)?\.conv\.", r".conv_\1."),
    (r"\.conv_conv_out\.", ".conv_out."),
    (r"\.conv_out\.bn\.", ".bn."),
)
"""The layers of a non-local block as PySlowFast names them; a `.0` stands before the pooling behind a layer."""

BOTTLENECK: Rules = (
    (r"\.downsample\.conv\.", ".branch1_conv."),
    (r"\.downsample\.bn\.", ".branch1_norm."),
    (r"\.conv1\.conv\.", ".branch2.conv_a."),
    (r"\.conv1\.bn\.", ".branch2.norm_a."),
    (r"\.conv3\.conv\.", ".branch2.conv_c."),
    (r"\.conv3\.bn\.", ".branch2.norm_c."),
)
"""The outer layers of 3D bottlenecks as PyTorchVideo names them."""

PLAIN: Rules = ((r"\.conv2\.conv\.", ".branch2.conv_b."), (r"\.conv2\.bn\.", ".branch2.norm_b."))
DEPTHWISE: Rules = ((r"\.conv2\.0\.conv\.", ".branch2.conv_b."), (r"\.conv2\.0\.bn\.", ".branch2.norm_b."))
POINTWISE_DEPTHWISE: Rules = (
    (r"\.conv2\.0\.conv\.", ".branch2.conv_b.pointwise."),
    (r"\.conv2\.0\.bn\.", ".branch2.conv_b.norm."),
    (r"\.conv2\.1\.conv\.", ".branch2.conv_b.depthwise."),
    (r"\.conv2\.1\.bn\.", ".branch2.norm_b."),
)
X3D: Rules = (
    (r"^backbone\.conv1_s\.conv\.", "blocks.0.conv.conv_t."),  # PyTorchVideo swapped the names of the two
    (r"^backbone\.conv1_t\.conv\.", "blocks.0.conv.conv_xy."),
    (r"^backbone\.conv1_t\.bn\.", "blocks.0.norm."),
    (r"^backbone\.conv5\.conv\.", "blocks.5.pool.pre_conv."),
    (r"^backbone\.conv5\.bn\.", "blocks.5.pool.pre_norm."),
    (r"^cls_head\.fc1\.", "blocks.5.pool.post_conv."),
    (r"^cls_head\.fc2\.", "blocks.5.proj."),
    (r"^backbone\.layer(\d)\.(\d+)\.", r"blocks.\1.res_blocks.\2."),
    (r"\.conv2\.conv\.", ".branch2.conv_b."),
    (r"\.conv2\.bn\.", ".branch2.norm_b.0."),
    (r"\.se_module\.fc1\.", ".branch2.norm_b.1.block.0."),
    (r"\.se_module\.fc2\.", ".branch2.norm_b.1.block.2."),
    *BOTTLENECK,
)

VIT: Rules = (
    (r"^cls_head\.fc_cls\.", "head."),
    (r"^backbone\.", ""),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
)
TIMESFORMER: Rules = (
    *VIT,
    (r"^transformer_layers\.layers\.", "blocks."),
    (r"\.ffns\.0\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffns\.0\.layers\.1\.", ".mlp.fc2."),
    (r"\.ffns\.0\.norm\.", ".norm2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.in_proj_", ".qkv."),
    (r"\.out_proj\.", ".proj."),
)
DIVIDED: Rules = (
    (r"\.attentions\.0\.norm\.", ".temporal_norm1."),
    (r"\.attentions\.0\.temporal_fc\.", ".temporal_fc."),
    (r"\.attentions\.0\.attn\.", ".temporal_attn."),
    (r"\.attentions\.1\.norm\.", ".norm1."),
    (r"\.attentions\.1\.attn\.", ".attn."),
)
JOINT: Rules = ((r"\.attentions\.0\.attn\.", ".attn."),)
UNIFORMERV2: Rules = (
    (r"^cls_head\.fc_cls\.", "backbone.transformer.proj.2."),
    (r"^backbone\.transformer\.norm\.", "backbone.transformer.proj.0."),
)


def renamed(keys: Iterable[str], rules: Rules) -> Names:
    """Return the name of every key after all rules."""
    names = {}
    for key in keys:
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[key] = name
    return names


def _has(given: Shapes, pattern: str) -> bool:
    return any(re.search(pattern, key) for key in given)


def _has_pyramid(given: Shapes) -> bool:
    return _has(given, r"^neck\.temporal_modulation_ops\.")


def _c3d(given: Shapes) -> Iterable[Names]:
    if "backbone.conv1a.conv.weight" in given:
        split = {key: key.rpartition(".") for key in given}
        yield {key: f"{C3D_LAYERS.get(layer, layer)}.{kind}" for key, (layer, _, kind) in split.items()}


def _resnet_3d(given: Shapes) -> Iterable[Names]:
    """SlowOnly, I3D and CSN as PyTorchVideo names such models; I3D has a pooling as third block.

    With a temporal pyramid behind it, SlowOnly is the backbone of `tpn`.
    """
    if len(given.get("backbone.conv1.conv.weight", ())) != 5:
        return
    is_csn = _has(given, r"\.conv2\.0\.conv\.")
    middle = PLAIN
    if is_csn:
        middle = POINTWISE_DEPTHWISE if _has(given, r"\.conv2\.1\.conv\.") else DEPTHWISE
    if _has_pyramid(given):
        names = renamed(given, (*_stages(pool_after=None), *middle, *BOTTLENECK))
        named = {key: f"backbone.{name}" if name.startswith("blocks.") else name for key, name in names.items()}
        yield named | {key: key.replace("cls_head.fc_cls.", "fc.") for key in given if key.startswith("cls_head.")}
        return
    for pool_after in (None,) if is_csn else (None, 1):
        yield renamed(given, (*_stages(pool_after=pool_after), *middle, *BOTTLENECK, *NON_LOCAL))


def _stages(*, pool_after: int | None) -> Rules:
    """The stem, the stages and the head of a 3D ResNet as blocks, with a pooling behind block `pool_after`."""
    places = [stage + (pool_after is not None and stage > pool_after) for stage in range(1, 6)]
    of_stage = [
        (rf"^backbone\.layer{stage}\.(\d+)\.{old}", rf"blocks.{places[stage - 1]}.{new}.\1.")
        for stage in range(1, 5)
        for old, new in ((r"non_local_block\.", "non_local"), ("", "res_blocks"))
    ]
    return (
        (r"^backbone\.conv1\.conv\.", "blocks.0.conv."),
        (r"^backbone\.conv1\.bn\.", "blocks.0.norm."),
        (r"^cls_head\.fc_cls\.", f"blocks.{places[4]}.proj."),
        *of_stage,
    )


def _slowfast(given: Shapes) -> Iterable[Names]:
    if "backbone.slow_path.conv1.conv.weight" not in given:
        return
    rules = [(r"^cls_head\.fc_cls\.", "blocks.6.proj.")]
    for index, layer in enumerate(("conv1", "layer1", "layer2", "layer3")):
        lateral = rf"^backbone\.slow_path\.{layer}_lateral\."
        rules.append((rf"{lateral}conv\.", f"blocks.{index}.multipathway_fusion.conv_fast_to_slow."))
        rules.append((rf"{lateral}bn\.", f"blocks.{index}.multipathway_fusion.norm."))
    for index, path in enumerate(("slow", "fast")):
        stem = f"blocks.0.multipathway_blocks.{index}"
        rules.append((rf"^backbone\.{path}_path\.conv1\.conv\.", f"{stem}.conv."))
        rules.append((rf"^backbone\.{path}_path\.conv1\.bn\.", f"{stem}.norm."))
        stage = rf"blocks.\1.multipathway_blocks.{index}.res_blocks.\2."
        rules.append((rf"^backbone\.{path}_path\.layer(\d)\.(\d+)\.", stage))
    yield renamed(given, (*rules, *PLAIN, *BOTTLENECK))


def _x3d(given: Shapes) -> Iterable[Names]:
    if "backbone.conv1_s.conv.weight" in given:
        yield renamed(given, X3D)


def _resnet_2d(given: Shapes) -> Iterable[Names]:
    """TSM, TANet and TIN as their authors name them, TSN as `cnn_pool`, C2D as `c2d_frames`, a pyramid as `tpn`.

    MMAction2's C2D has the weights of TSN: nothing but its pooling tells them apart.
    """
    if not any(len(shape) == 4 and key.startswith("backbone.conv1.conv.") for key, shape in given.items()):
        return
    marks = (".conv1.conv.net.weight", ".conv1.conv.net2.weight", ".tam.G.0.weight")
    is_authors = any(key.endswith(marks) for key in given)
    body, head = ("base_model", "new_fc") if is_authors and not _has_pyramid(given) else ("backbone", "fc")
    heads = ((r"^cls_head\.fc_cls\.", f"{head}."), (r"^backbone\.", f"{body}."))
    without_pyramid = [key for key in given if not key.startswith("neck.")]
    named = renamed(without_pyramid, (*heads, *RESNET, *TIN, *NON_LOCAL))
    yield {key: named.get(key, key) for key in given}


INVERTED_BLOCK = r"^backbone\.layer(\d)\.(\d+)\.conv\.(\d)\.(net\.)?(conv|bn)\."


def _mobilenet(given: Shapes) -> Iterable[Names]:
    """MobileNetV2 with the shifts of TSM as torchvision numbers its layers."""
    found = {key: match for key in given if (match := re.match(INVERTED_BLOCK, key))}
    if not found:
        return
    last_layers: dict[tuple[int, int], int] = {}
    for match in found.values():
        place = int(match[1]), int(match[2])
        last_layers[place] = max(last_layers.get(place, 0), int(match[3]))
    numbers = {place: number for number, place in enumerate(sorted(last_layers), start=1)}
    names = renamed(
        given,
        (
            (r"^backbone\.conv1\.conv\.", "base_model.features.0.0."),
            (r"^backbone\.conv1\.bn\.", "base_model.features.0.1."),
            (r"^backbone\.conv2\.conv\.", f"base_model.features.{len(numbers) + 1}.0."),
            (r"^backbone\.conv2\.bn\.", f"base_model.features.{len(numbers) + 1}.1."),
            (r"^cls_head\.fc_cls\.", "new_fc."),
        ),
    )
    for key, match in found.items():
        place = int(match[1]), int(match[2])
        layer = inverted_layer(int(match[3]), last=last_layers[place], shift=match[4] or "", is_norm=match[5] == "bn")
        names[key] = f"base_model.features.{numbers[place]}.conv.{layer}.{key[match.end() :]}"
    yield names


def inverted_layer(number: int, *, last: int, shift: str, is_norm: bool) -> str:
    """Return what torchvision names the convolution `number` of a block of MobileNetV2, or the norm behind it.

    The last convolution and its norm stand alone there, the others are pairs; `shift` is the name of a wrapper.
    """
    return f"{number}.{shift}{int(is_norm)}" if number < last else str(number + is_norm)


def _transformers(given: Shapes) -> Iterable[Names]:
    if _has(given, r"^backbone\.transformer_layers\.layers\.0\."):
        yield renamed(given, (*TIMESFORMER, *(DIVIDED if _has(given, r"\.attentions\.1\.") else JOINT)))
    elif "backbone.blocks.0.attn.pool_k.weight" in given:
        yield renamed(given, ((r"^cls_head\.fc_cls\.", "head.projection."), (r"^backbone\.norm\d\.", "norm."), *VIT))
    elif _has(given, r"^backbone\.transformer\.resblocks\."):
        yield renamed(given, UNIFORMERV2)
    elif _has(given, r"^backbone\.(layers\.0\.blocks\.0\.attn\.relative_position_bias_table|blocks1?\.0\.)"):
        # Video Swin, also of its authors, UniFormer and VideoMAE; MMAction2 numbers the last norm by its stage.
        yield renamed(given, ((r"^backbone\.norm\d\.", "norm."), *VIT[:2], *(VIT[2:] if _is_vit(given) else ())))


def _is_vit(given: Shapes) -> bool:
    return "backbone.blocks.0.attn.qkv.weight" in given


TRANSLATIONS: tuple[Callable[[Shapes], Iterable[Names]], ...] = (
    _c3d,
    _resnet_3d,
    _slowfast,
    _x3d,
    _resnet_2d,
    _mobilenet,
    _transformers,
)
