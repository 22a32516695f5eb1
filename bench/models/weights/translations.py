"""The same network under other names: from the names in a file to ours.

A translation is here only where the other network computes the same as ours; equal shapes alone do not show that
(MMAction2's I3D has other strides, PySlowFast's X3D one normalisation more than PyTorchVideo's).
"""

import re
from collections.abc import Callable, Iterable

from bench.models.base import belongs_to
from bench.models.weights.checkpoint import Shapes

Names = dict[str, str]
"""Name in the file → name in our network."""

SPORTS_1M_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3a",
    "features.8": "conv3b",
    "features.11": "conv4a",
    "features.13": "conv4b",
    "features.16": "conv5a",
    "features.18": "conv5b",
    "classifier.0": "fc6",
    "classifier.3": "fc7",
    "classifier.6": "fc8",
}

MMACTION_C3D_LAYERS = {
    "backbone.conv1a.conv": "conv1",
    "backbone.conv2a.conv": "conv2",
    **{f"backbone.conv{n}.conv": f"conv{n}" for n in ("3a", "3b", "4a", "4b", "5a", "5b")},
    "backbone.fc6": "fc6",
    "backbone.fc7": "fc7",
    "cls_head.fc_cls": "fc8",
}


def names_for(given: Shapes, target: Shapes) -> Names:
    """The translation under which most weights of `given` find one of the same shape in `target`."""
    offers = [dict(zip(given, given, strict=True))]
    offers += [names for translate in TRANSLATIONS for names in translate(given)]
    offers += [{key: f"{prefix}.{key}" for key in given} for prefix in _wrappers(target)]
    return max(offers, key=lambda names: _agreeing(names, given, target))


def rows_of(shapes: Shapes, head: str) -> int | None:
    """Rows of the weight of the layer `head`: the number of classes; None where it has none."""
    return next((shape[0] for key, shape in shapes.items() if belongs_to(key, head) and key.endswith("weight")), None)


def _agreeing(names: Names, given: Shapes, target: Shapes) -> int:
    return sum(target.get(new) == given[old] for old, new in names.items())


def _wrappers(target: Shapes) -> list[str]:
    """The one name before all of `target`, where there is one: a network inside ours."""
    first = {key.partition(".")[0] for key in target if "." in key}
    return sorted(first) if len(first) == 1 else []


def _sports_1m(given: Shapes) -> Iterable[Names]:
    if {f"{layer}.weight" for layer in SPORTS_1M_LAYERS if layer != "classifier.6"} <= given.keys():
        yield _by_layer(given, SPORTS_1M_LAYERS)


def _mmaction_c3d(given: Shapes) -> Iterable[Names]:
    if "backbone.conv1a.conv.weight" in given:
        yield _by_layer(given, MMACTION_C3D_LAYERS)


def _by_layer(given: Shapes, layers: dict[str, str]) -> Names:
    split = {key: key.rpartition(".") for key in given}
    return {key: f"{layers.get(layer, layer)}.{kind}" for key, (layer, _, kind) in split.items()}


def _pyslowfast(given: Shapes) -> Iterable[Names]:
    """PySlowFast's ResNets and SlowFast as PyTorchVideo names them; C2D and I3D have a pooling as third block."""
    if not any(key.startswith("s1.pathway0_stem.conv.") for key in given):
        return
    if any(key.startswith("s1.pathway1_stem.") for key in given):
        yield {key: _from_pyslowfast(key, pathways=2, pool_after=5) for key in given}
        return
    yield {key: _from_pyslowfast(key, pathways=1, pool_after=None) for key in given}
    yield {key: _from_pyslowfast(key, pathways=1, pool_after=1) for key in given}


def _from_pyslowfast(key: str, *, pathways: int, pool_after: int | None) -> str:
    stage = re.match(r"s(\d)(_fuse)?\.(?:pathway(\d)_)?(?:stem\.|res(\d+)\.)?", key)
    if stage is None:
        head = 5 if pool_after is None else 6
        return re.sub(r"^head\.projection\.", f"blocks.{head}.proj.", key)
    number, fuse, pathway, block = stage.groups()
    index = int(number) - 1
    index += pool_after is not None and index > pool_after
    rest = key[stage.end() :]
    if fuse:
        names = {"conv_f2s": "conv_fast_to_slow", "bn": "norm"}
        layer, _, kind = rest.partition(".")
        return f"blocks.{index}.multipathway_fusion.{names.get(layer, layer)}.{kind}"
    place = f"blocks.{index}." + (f"multipathway_blocks.{pathway}." if pathways > 1 else "")
    if block is None:
        return place + re.sub(r"^bn\.", "norm.", rest)
    return f"{place}res_blocks.{block}.{_pyslowfast_layer(rest)}"


def _pyslowfast_layer(name: str) -> str:
    """`branch2.a_bn.weight` → `branch2.norm_a.weight`."""
    name = re.sub(r"^branch1_bn\.", "branch1_norm.", name)
    name = re.sub(r"^branch1\.", "branch1_conv.", name)
    name = re.sub(r"^branch2\.([abc])_bn\.", r"branch2.norm_\1.", name)
    return re.sub(r"^branch2\.([abc])\.", r"branch2.conv_\1.", name)


def _mmaction_slow(given: Shapes) -> Iterable[Names]:
    """MMAction2's SlowOnly as PyTorchVideo's Slow: 1x7x7 stem, time convolved in the last two stages only."""
    depths = [given.get(f"backbone.{name}.conv.weight", ()) for name in ("conv1", "layer2.0.conv1", "layer3.0.conv1")]
    if [shape[2] for shape in depths if len(shape) == 5] == [1, 1, 3]:
        yield {key: _from_mmaction_slow(key) for key in given}


def _from_mmaction_slow(key: str) -> str:
    key = re.sub(r"^cls_head\.fc_cls\.", "blocks.5.proj.", key)
    key = re.sub(r"^backbone\.conv1\.conv\.", "blocks.0.conv.", key)
    key = re.sub(r"^backbone\.conv1\.bn\.", "blocks.0.norm.", key)
    key = re.sub(r"^backbone\.layer(\d)\.(\d+)\.", r"blocks.\1.res_blocks.\2.", key)
    key = re.sub(r"\.downsample\.conv\.", ".branch1_conv.", key)
    key = re.sub(r"\.downsample\.bn\.", ".branch1_norm.", key)
    layer = re.search(r"\.conv([123])\.(conv|bn)\.", key)
    if layer is None:
        return key
    kind = "conv" if layer[2] == "conv" else "norm"
    return key.replace(layer[0], f".branch2.{kind}_{'abc'[int(layer[1]) - 1]}.")


def _mmaction_2d(given: Shapes) -> Iterable[Names]:
    """MMAction2's TSM as its authors name it, and its TSN as `cnn_pool`."""
    if len(given.get("backbone.conv1.conv.weight", ())) == 4:
        is_shifted = "backbone.layer1.0.conv1.conv.net.weight" in given
        body, head = ("base_model", "new_fc") if is_shifted else ("backbone", "fc")
        yield {key: _from_mmaction_2d(key, body=body, head=head) for key in given}


def _from_mmaction_2d(key: str, *, body: str, head: str) -> str:
    key = re.sub(r"^cls_head\.fc_cls\.", f"{head}.", key)
    key = re.sub(r"^backbone\.", f"{body}.", key)
    key = re.sub(r"\.conv(\d)\.conv\.", r".conv\1.", key)
    key = re.sub(r"\.conv(\d)\.bn\.", r".bn\1.", key)
    key = re.sub(r"\.downsample\.conv\.", ".downsample.0.", key)
    return re.sub(r"\.downsample\.bn\.", ".downsample.1.", key)


TRANSLATIONS: tuple[Callable[[Shapes], Iterable[Names]], ...] = (
    _sports_1m,
    _mmaction_c3d,
    _mmaction_slow,
    _mmaction_2d,
    _pyslowfast,
)
