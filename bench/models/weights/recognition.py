"""Recognises the zoo that a checkpoint file comes from, so that its input protocol is known.

A zoo is *recognised* if the wrapper around the weights or its metadata identify it, and only *assumed* if only the
names of the weights do, because people who retrain with their own preprocessing often keep the names.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.core.input_protocol import InputProtocol, Mark
from bench.models.weights.checkpoint import Checkpoint, stated_setting
from bench.reference.zoo_protocols import ZooProtocol, class_list, zoo_protocols

SSV2_CLASSES = 174
EGO_GESTURE_CLASSES = 83
HEADS = re.compile(
    r"(^|\.)(fc|fc8|fc_cls|new_fc|head|blocks\.\d+\.proj|projection|classifier|linear|logits\.conv3d|conv3d_0c_1x1\.conv3d|"
    r"proj\.2|last_out_\w+|pred|classifier\.1)(\.weight|_w)$"
)


@dataclass(frozen=True, kw_only=True)
class ZooMatch:
    """The row of `protocols.csv` that a checkpoint belongs to, and whether it is recognised or assumed."""

    row: ZooProtocol
    mark: Mark
    num_classes: int | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The class names in the zoo's order, if its list for this number of classes is known."""
        return None if self.num_classes is None else class_list(self.row.zoo, self.num_classes)

    @property
    def protocol(self) -> InputProtocol:
        """The input protocol of the row, each part with its mark."""
        return InputProtocol.of({**self.row.parts, "classes": self.classes}, mark=self.mark, origin=self.row.zoo)

    @property
    def note(self) -> str:
        """What must be known about the class order of a recognised zoo; empty if it is alphabetical or known."""
        if self.mark != "recognised" or self.row.is_alphabetical is not False or self.classes is not None:
            return ""
        order = self.row.class_order.partition(";")[0]
        return f"{self.row.zoo}: classes are not in alphabetical order ({order}); give the names with --labels FILE"


def recognise(checkpoint: Checkpoint) -> ZooMatch | None:
    """Return the zoo that `checkpoint` comes from; None if neither wrapper nor names identify one."""
    view = _View(checkpoint)
    for find in _FINDERS:
        for zoo, mark in find(view):
            return ZooMatch(row=zoo_protocols()[zoo], mark=mark, num_classes=view.rows)
    return None


Found = Iterator[tuple[str, Mark]]


class _View:
    """What the finders ask about a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.container = checkpoint.container
        self.keys = set(checkpoint.keys)
        self.state = checkpoint.state
        self.file = checkpoint.path.name.lower()
        heads = [int(v.shape[0]) for k, v in self.state.items() if HEADS.search(k) and v.ndim > 1]
        self.rows = heads[-1] if heads else None

    def wrapped(self, *keys: str) -> Mark:
        """`recognised` if the file has all these entries, else `assumed`."""
        return "recognised" if set(keys) <= self.keys else "assumed"

    def has(self, pattern: str) -> bool:
        """Whether the name of a weight contains `pattern`."""
        return any(re.search(pattern, key) for key in self.state)

    def shape(self, pattern: str) -> tuple[int, ...]:
        """Shape of the first weight whose name contains `pattern`; empty if there is none."""
        return next((tuple(v.shape) for k, v in self.state.items() if re.search(pattern, k)), ())


def _c3d(view: _View) -> Found:
    if view.container == "C3D Sports-1M":
        yield "c3d-pretrained.pth (Sports-1M port loaded by jfzhang95)", "assumed"
    if view.container != "C3D":
        return
    # Many ports of C3D share these names: without the wrapper of jfzhang95 only the 487 classes tell one of them. His
    # script prepares clips of every data set alike.
    if {"epoch", "state_dict", "opt_dict"} <= view.keys:
        yield ("jfzhang95 C3D HMDB51" if view.rows == 51 else "jfzhang95 C3D UCF101"), "recognised"
    elif view.rows == 487:
        yield "DavideA c3d.pickle (Sports-1M)", "assumed"


def _mmaction2(view: _View) -> Found:
    is_named = view.container == "MMAction2" or view.has(r"^(backbone|cls_head)\.")
    if not ({"meta", "state_dict"} <= view.keys or view.container == "MMAction2") or not is_named:
        return
    mark = view.wrapped("meta", "state_dict")
    if view.has(r"layers\.\d\.blocks\.\d+\.attn\.relative_position_bias_table") and _is_mmaction0(view):
        yield "Video Swin (authors)", mark
    for pattern, zoo in _MMACTION2:
        if view.has(pattern):
            yield (_MMACTION2_SSV2.get(zoo, zoo) if view.rows == SSV2_CLASSES else zoo), mark
    yield from ((zoo, mark) for zoo in _mmaction2_resnets(view))


def _is_mmaction0(view: _View) -> bool:
    """Whether the file was written by mmaction 0.x, which knows no mmengine, as the authors of Video Swin use it."""
    meta = view.checkpoint.metadata.get("meta")
    return isinstance(meta, dict) and "mmcv_version" in meta and "mmengine_version" not in meta


_MMACTION2 = (
    (r"conv1a\.conv\.", "mmaction2 C3D UCF101"),
    (r"slow_path\.", "mmaction2 SlowFast R50 4x16"),
    (r"^neck\.", "mmaction2 TPN SlowOnly R50"),
    (r"\.tam\.", "mmaction2 TANet R50 dense"),
    (r"conv1\.conv\.net1\.", "mmaction2 TIN R50 K400"),
    (r"conv1\.conv\.net\.|\.conv\.0\.net\.conv\.", "mmaction2 TSM R50 K400"),
    (r"conv1_s\.conv\.", "mmaction2 X3D S (ported)"),
    (r"conv_s\.", "mmaction2 R(2+1)D R34 8x8"),
    (r"layers\.\d\.blocks\.\d+\.attn\.relative_position_bias_table", "mmaction2 Swin"),
    (r"patch_embed1\.", "mmaction2 UniFormer (ported)"),
    (r"transformer\.resblocks\.", "mmaction2 UniFormerV2 (ported)"),
    (r"transformer_layers\.layers\.", "mmaction2 TimeSformer"),
    (r"blocks\.0\.attn\.(pool_q|rel_pos_h)", "mmaction2 MViTv2-S K400"),
    (r"blocks\.0\.attn\.q_bias", "mmaction2 VideoMAE (ported)"),
)
_MMACTION2_SSV2 = {
    "mmaction2 TIN R50 K400": "mmaction2 TIN R50 SSv2",
    "mmaction2 TSM R50 K400": "mmaction2 TSM R50 SSv2",
    "mmaction2 MViTv2-S K400": "mmaction2 MViTv2-S SSv2",
}


def _mmaction2_resnets(view: _View) -> Iterator[str]:
    """MMAction2's plain ResNets, told apart by the shapes of their convolutions."""
    stem, first = view.shape(r"conv1\.conv\.weight$"), view.shape(r"layer1\.0\.conv2\.conv\.weight$")
    if len(stem) == 4:
        yield "mmaction2 TSN R50 K400"
    elif len(stem) == 5 and len(first) == 5 and first[1] == 1:
        yield (
            "mmaction2 CSN ported from VMZ (vmz_* files)" if "vmz" in view.file else "mmaction2 ir-CSN (trained there)"
        )
    elif len(stem) == 5 and stem[2] > 1:
        yield "mmaction2 I3D R50 (and non-local)"
    elif len(stem) == 5:
        is_2d = not any(v.ndim == 5 and v.shape[2] > 1 for v in view.state.values())
        plain = "mmaction2 SlowOnly R50 4x16" if "4x16" in view.file else "mmaction2 SlowOnly R50 8x8"
        yield "mmaction2 C2D R50" if is_2d else plain


def _resnets_3d(view: _View) -> Found:
    if view.container != "3D-ResNets-PyTorch":
        return
    mark = view.wrapped("epoch", "arch", "state_dict")
    # Files of the master branch also hold the scheduler; those made for publishing hold no optimiser either.
    is_old = "module." in view.checkpoint.prefix and "optimizer" in view.keys and "scheduler" not in view.keys
    yield (_HARA_OLD if is_old and mark == "recognised" else _HARA), mark


_HARA = "3D-ResNets-PyTorch master (r3d*_K*_200ep.pth, r2p1d)"
_HARA_OLD = "3D-ResNets-PyTorch CVPR2018 branch (resnet-50-kinetics.pth, resnext-101-kinetics-ucf101_split1.pth ..)"


def _i3d(view: _View) -> Found:
    stem = view.shape(r"^conv3d_1a_7x7\.conv3d\.weight") or view.shape(r"^Conv3d_1a_7x7\.conv3d\.weight")
    if view.container == "hassony2 I3D":
        yield "hassony2 I3D (model_rgb.pth, model_flow.pth)", "assumed"
    if view.container == "pytorch-i3d":
        is_flow = bool(stem) and stem[1] == 2
        flow, rgb = "I3D flow (flow_imagenet.pt, flow_charades.pt)", "I3D RGB (rgb_imagenet.pt, rgb_charades.pt)"
        yield f"piergiaj {flow if is_flow else rgb}", "assumed"


def _pyslowfast(view: _View) -> Found:
    if view.container == "VMZ caffe2":
        blocks = {match[1] for key in view.state if (match := re.match(r"comp_(\d+)_", key))}
        large = "VMZ c2 large models (CSN-152, R(2+1)D-152)"
        yield (large if len(blocks) > 30 else "VMZ c2 small models (.pkl)"), "recognised"
    if view.container == "PySlowFast caffe2":
        yield _PYSLOWFAST_BY_ROWS.get(view.rows or 0, _PYSLOWFAST_KINETICS), "recognised"
    if view.container != "PySlowFast":
        return
    mark = view.wrapped("model_state")
    if view.has(r"pathway0_stem\.conv_xy\."):
        yield f"PySlowFast X3D_{_x3d_size(view)} (.pyth)", mark
    elif view.has(r"pathway1_stem\."):
        yield _PYSLOWFAST_BY_ROWS.get(view.rows or 0, _PYSLOWFAST_KINETICS), mark
    elif view.has(r"pathway0_stem\."):
        yield _PYSLOWFAST_KINETICS, mark
    elif view.has(r"blocks\.0\.attn\.rel_pos_h"):
        depth = len({key.split(".")[1] for key in view.state if key.startswith("blocks.")})
        large = "PySlowFast MVITv2_L_40x3 K400"
        by_depth = {16: "PySlowFast MVITv2_S_16x4", 24: "PySlowFast MVITv2_B_32x3", 48: large}
        yield ("PySlowFast SSv2 MViTv2" if view.rows == SSV2_CLASSES else by_depth.get(depth, large)), mark
    else:
        name = "REV_MVIT_B_16x4_CONV" if "rev" in view.file else "MVIT_B_16x4_CONV"
        yield f"PySlowFast {'MVIT_B_32x3_CONV' if '32x3' in view.file else name}", mark


_PYSLOWFAST_KINETICS = "PySlowFast Kinetics, c2 (.pkl: C2D I3D Slow SlowFast)"
_PYSLOWFAST_BY_ROWS = {SSV2_CLASSES: "PySlowFast SSv2 SlowFast 16x8", 157: "PySlowFast Charades SlowFast 16x8"}


def _x3d_size(view: _View) -> str:
    """XS, S and M have the same weights; the name of the file tells them apart, else M is taken."""
    blocks = {key.split(".")[1] for key in view.state if key.startswith("s4.pathway0_res")}
    if len(blocks) > 20:
        return "L"
    named = re.search(r"x3d_(xs|s|m)", view.file)
    return named[1].upper() if named else "M"


def _by_container(view: _View) -> Found:
    ssv2 = view.rows == SSV2_CLASSES
    mark: Mark = "recognised" if view.keys & {"model_state", "module", "model"} else "assumed"
    if view.container == "PyTorchVideo":
        yield "PyTorchVideo hub", view.wrapped("model_state")
    if view.container == "TSM":
        yield from _tsm(view)
    if view.container == "TIN":
        yield "TIN (deepcs233)", view.wrapped("epoch", "arch", "state_dict")
    if view.container == "ACTION-Net":
        yield "ACTION-Net EgoGesture" if view.rows == EGO_GESTURE_CLASSES else "ACTION-Net Jester", "assumed"
    if view.container == "TimeSformer":
        yield ("TimeSformer SSv2" if ssv2 else "TimeSformer Kinetics"), mark
    if view.container == "VideoMAE":
        is_second = view.rows == 710 or "k710" in view.file or view.shape(r"patch_embed\.proj\.weight")[-1:] == (14,)
        yield ("VideoMAE V2" if is_second else "VideoMAE SSv2 (uniform)" if ssv2 else "VideoMAE K400 (dense)"), mark
    if view.container == "V-JEPA 2 probe":
        yield "V-JEPA 2 probes", view.wrapped("classifiers")
    if view.container == "V-JEPA 2" and {"encoder", "target_encoder"} & view.keys:
        yield "V-JEPA 2 probes", "recognised"
    if view.container == "X-CLIP":
        yield "X-CLIP", mark
    for container in ("UniFormerV2", "VideoMamba", "MoViNet"):
        if view.container == container:
            yield container, "recognised" if mark == "recognised" and container != "MoViNet" else "assumed"
    if view.container == "UniFormer":
        yield "UniFormer (v1)", mark
    if view.container == "Hiera":
        yield "Hiera video", mark
    if view.container == "Hugging Face":
        kinds = {"videomae": "VideoMAE", "timesformer": "TimeSformer", "vivit": "ViViT"}
        yield from ((f"Hugging Face {kinds[kind]}", "assumed") for kind in kinds if view.has(rf"^{kind}\."))


def _tsm(view: _View) -> Found:
    mark = view.wrapped("epoch", "arch", "state_dict")
    if view.has(r"\.tam\."):
        return  # the authors' own TANet: its input protocol was not read
    if not view.has(r"\.net\.weight$"):
        yield "TSN (tsn-pytorch) BNInception", mark if view.has(r"conv1_7x7_s2") else "assumed"
    elif view.rows == SSV2_CLASSES:
        yield "TSM SSv2 accurate", mark
    else:
        yield ("TSM dense / full_res" if "dense" in view.file else "TSM (mit-han-lab) uniform"), mark


def _torchvision(view: _View) -> Found:
    if view.container != "torchvision":
        return
    middle = view.shape(r"^layer2\.0\.conv2\.0\.0\.weight$")[:1]
    if middle == (288,):  # VMZ's widths, which torchvision's own R(2+1)D does not have there
        yield "ig65m-pytorch (moabitcoin)", "assumed"
    elif view.has(r"^stem\.0\."):
        yield "torchvision r3d_18 mc3_18 r2plus1d_18", "assumed"
    elif view.has(r"^conv_proj\."):
        yield "torchvision mvit_v1_b mvit_v2_s", "assumed"
    elif view.has(r"^patch_embed\."):
        yield "torchvision swin3d_t swin3d_s swin3d_b", "assumed"
    elif len(view.shape(r"^features\.0\.0\.")) == 5:
        yield "torchvision s3d", "assumed"


_FINDERS: tuple[Callable[[_View], Found], ...] = (
    _c3d,
    _mmaction2,
    _resnets_3d,
    _i3d,
    _pyslowfast,
    _by_container,
    _torchvision,
)


DETECTION_HEADS = re.compile(r"(?:^|\.)(detection_head|roi_head|bbox_head)\.")

AVA_CLASSES = 80


def why_detector(checkpoint: Checkpoint) -> str:
    """Return what shows that a file is of a detector, which classifies boxes (AVA); empty if nothing does."""
    head = next((match[1] for key in checkpoint.state if (match := DETECTION_HEADS.search(key))), None)
    if head is not None:
        return f"it has a {head}"
    return "its config enables DETECTION" if stated_setting(checkpoint, "DETECTION", "ENABLE") == "true" else ""


def notes_on_head(checkpoint: Checkpoint) -> str:
    """Return what a user must know of the head of a file: whether it classifies boxes, or may; empty if it does not."""
    if reason := why_detector(checkpoint):
        return f"the file is of a detector, which classifies boxes ({reason}): no model here does"
    is_open = checkpoint.container.startswith("PySlowFast") and not stated_setting(checkpoint, "DETECTION", "ENABLE")
    if is_open and _View(checkpoint).rows == AVA_CLASSES:
        return (
            f"{AVA_CLASSES} classes are as many as AVA has: if the file is of a detector, which classifies boxes, no "
            "model here is the same"
        )
    return ""
