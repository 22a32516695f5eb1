"""Arguments of models that weights do not show, but the code base that wrote them fixes, such as strides over time."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from bench.models.weights.checkpoint import Checkpoint, Shapes, stated_setting
from bench.models.weights.checkpoint_protocol import is_of_vbench

Arguments = dict[str, Any]

WITHOUT_STRIDES: Arguments = {"stem_stride_t": 1, "pool_stride_t": 1}

PUBLISHED: Mapping[str, Arguments] = {
    "slow": {"pooling": "window", **WITHOUT_STRIDES},
    "c2d": {"pooling": "window", **WITHOUT_STRIDES},
    "i3d_resnet": {"pooling": "window", **WITHOUT_STRIDES},
    "csn": {"pooling": "window", "norm_eps": 1e-5},
    "x3d": {"pooling": "window"},
    "slowfast": {"takes": "pathways"},
    "mvitv1": {"pooling": "class"},
    "mvitv2": {"pooling": "class"},
}
"""By family, what PySlowFast and PyTorchVideo fix; families that are not here have nothing to fix."""

PYSLOWFAST_AFFINITIES = {"slow": "dot_product", "slowfast": "dot_product", "c2d": "softmax", "i3d_resnet": "softmax"}
"""By family, the affinity of the non-local blocks in PySlowFast's own configs."""

WITH_NON_LOCAL = (*PYSLOWFAST_AFFINITIES, "tsm")
NON_LOCAL_CONFIG = r"non_local_cfg=dict\(((?:[^()]|\([^()]*\))*)\)"


def fixed_arguments(checkpoint: Checkpoint, family: str) -> Arguments:
    """Return the arguments of `family` that the code base of `checkpoint` fixes; none if the code is not known.

    The affinity of non-local blocks, and the clips and pooling of PySlowFast, are those of the config in the file.
    Files with the names of PyTorchVideo are its own only if they also have its wrapper: models here share its names.
    """
    container = checkpoint.container
    if is_of_vbench(checkpoint):
        return {}
    stated = _stated_affinity(checkpoint) if family in WITH_NON_LOCAL else None
    if container == "MMAction2":
        of_family = MMACTION2.get(family)
        fixed = of_family(checkpoint.shapes) if of_family else {}
        return {**fixed, **({"non_local": stated} if stated else {})}
    if container == "PyTorchVideo" and checkpoint.entry == "model_state":
        return dict(PUBLISHED.get(family, {}))
    if container.startswith("PySlowFast"):
        usual = PYSLOWFAST_AFFINITIES.get(family) if _has(checkpoint.shapes, r"nonlocal") else None
        affinity = stated or usual
        fixed = {**PUBLISHED.get(family, {}), **({"non_local": affinity} if affinity else {})}
        fixed |= {"pooling": "mean"} if family == "mvitv2" and widens_in_mlp(checkpoint.shapes) else {}
        return fixed | _stated_sizes(checkpoint, family)
    return {}


def _stated_affinity(checkpoint: Checkpoint) -> str | None:
    """Return the affinity of the non-local blocks in a file by the config in it; None without such blocks or config.

    PySlowFast stores its config as YAML, MMAction2 as Python; there an embedded Gaussian is scaled unless it says not.
    """
    if not _has(checkpoint.shapes, r"non_?local"):
        return None
    meta = checkpoint.metadata.get("meta")
    config = meta.get("cfg") if isinstance(meta, Mapping) else checkpoint.metadata.get("cfg")
    if not isinstance(config, str):
        return None
    if found := re.search(r"\bINSTANTIATION:\s*['\"]?(\w+)", config):
        return found[1]
    if not (found := re.search(NON_LOCAL_CONFIG, config)):
        return None
    mode = re.search(r"\bmode=['\"](\w+)", found[1])
    if mode is not None and mode[1] != "embedded_gaussian":
        return mode[1]
    return "unscaled_softmax" if re.search(r"\buse_scale=False", found[1]) else "softmax"


def _stated_sizes(checkpoint: Checkpoint, family: str) -> Arguments:
    """Return what the config in a file of PySlowFast says of its clips and its pooling, as arguments of `family`."""
    frames, size = (stated_setting(checkpoint, "DATA", key) for key in ("NUM_FRAMES", "TRAIN_CROP_SIZE"))
    if family in ("c2d", "i3d_resnet") and frames.isdigit():
        halves_time = stated_setting(checkpoint, "MODEL", "MODEL_NAME") != "resnet_nopool"
        window = {"window_frames": int(frames) // 2 if halves_time else int(frames)}
        return {**window, "halves_time": halves_time} if family == "c2d" else window
    if family == "slow" and frames.isdigit():
        return {"window_frames": int(frames)}
    if family == "x3d" and frames.isdigit() and size.isdigit():
        return {"window": (int(frames), math.ceil(int(size) / 32), math.ceil(int(size) / 32))}
    if family == "slowfast" and (alpha := stated_setting(checkpoint, "SLOWFAST", "ALPHA")).isdigit():
        return {"alpha": int(alpha)}
    if family in ("mvitv1", "mvitv2") and (is_mean := stated_setting(checkpoint, "MVIT", "USE_MEAN_POOLING")):
        return {"pooling": "mean" if is_mean == "true" else "class"}
    return {}


def widens_in_mlp(shapes: Shapes) -> bool:
    """Return whether an MLP widens: its second layer has more rows than a fourth of its columns.

    Of MViTv2, only models that were pretrained by MaskFeat do so, and PySlowFast's then classify the mean token.
    """
    layers = [shape for key, shape in shapes.items() if key.endswith(".mlp.fc2.weight")]
    return any(4 * shape[0] > shape[1] for shape in layers)


def _slow(shapes: Shapes) -> Arguments:
    non_local = {"non_local": "softmax", "non_local_form": "mmaction2"}
    return {"pooling": "mean", **WITHOUT_STRIDES, **(non_local if _has(shapes, r"\.non_local_block\.theta\.") else {})}


def _i3d(shapes: Shapes) -> Arguments:
    """The heavy I3D, whose second bottleneck of the second stage spans three frames, does not stride over time."""
    kernel = next((shape for key, shape in shapes.items() if key.endswith("layer2.1.conv1.conv.weight")), ())
    stride = 1 if len(kernel) == 5 and kernel[2] == 3 else 2
    return {"pooling": "mean", "stem_stride_t": stride, "pool_stride_t": stride}


def _slowfast(shapes: Shapes) -> Arguments:
    """MMAction2 fuses by 5 frames if the fast pathway sees 8 times as many frames, and by 7 if it sees 4 times."""
    kernel = next((shape for key, shape in shapes.items() if key.endswith("conv1_lateral.conv.weight")), ())
    return {"takes": "clip", "alpha": 4 if len(kernel) == 5 and kernel[2] == 7 else 8}


def _videomae(shapes: Shapes) -> Arguments:
    """The sine table of positions is in the file, as a buffer."""
    is_stored = _has(shapes, r"^(backbone\.)?pos_embed$")
    return {"learned_positions": False, "stored_positions": is_stored}


MMACTION2: Mapping[str, Callable[[Shapes], Arguments]] = {
    "slow": _slow,
    "i3d_resnet": _i3d,
    "csn": lambda _: {"pooling": "mean", "norm_eps": 1e-3},
    "x3d": lambda _: {"pooling": "mean"},
    "slowfast": _slowfast,
    "mvitv2": lambda _: {"pooling": "class"},
    "tsm": lambda _: {"shift_div": 8},
    "videomae": _videomae,
    "videomaev2": _videomae,
}


def _has(shapes: Shapes, pattern: str) -> bool:
    return any(re.search(pattern, key) for key in shapes)
