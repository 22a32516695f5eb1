"""What the table of zoos states, against values read by hand from its cells."""

import csv
from importlib.resources import files
from typing import Any

import pytest

from bench.core.input_protocol import InputProtocol
from bench.reference.zoo_protocols import class_list, zoo_protocols

IMAGENET_255 = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
BY_HAND: dict[str, dict[str, Any]] = {
    "jfzhang95 C3D UCF101": {"channels": "bgr", "scale": 255, "mean": (90, 98, 102), "std": (1,), "resize": "128x171"},
    "DavideA c3d.pickle (Sports-1M)": {"channels": "rgb", "scale": 255, "mean": (0,), "std": (1,), "crop": "112"},
    "mmaction2 C3D UCF101": {"channels": "rgb", "mean": (104, 117, 128), "std": (1, 1, 1), "resize": "short:128"},
    "mmaction2 TSM R50 SSv2": {"mean": IMAGENET_255[0], "std": IMAGENET_255[1], "crop": "256", "rounding": "round"},
    "mmaction2 TIN R50 K400": {"mean": IMAGENET_255[0], "crop": "224", "sampling": "sections", "averaging": "softmax"},
    "TIN (deepcs233)": {
        "scale": 1,
        "crop": "224",
        "resize": "short:256",
        "sampling": "sections",
        "averaging": "softmax",
    },
    "ACTION-Net EgoGesture": {"scale": 1, "resize": "224x224", "crop": None, "sampling": "sections", "clip": None},
    "ACTION-Net Jester": {"scale": 1, "resize": "short:256", "crop": "256", "averaging": "softmax"},
    "mmaction2 TANet R50 dense": {"scale": 255, "clip": None, "crop": "256"},
    "mmaction2 X3D S (ported)": {"mean": (114.75,) * 3, "clip": "13x6", "crop": "182", "resize": "short:182"},
    "3D-ResNets-PyTorch master (r3d*_K*_200ep.pth, r2p1d)": {
        "scale": 1,
        "mean": (0.4345, 0.4051, 0.3775),
        "resize": "short:112",
        "rounding": "floor",
        "antialias": True,
        "clip": "16x1",
    },
    "3D-ResNets-PyTorch CVPR2018 branch (resnet-50-kinetics.pth, resnext-101-kinetics-ucf101_split1.pth ..)": {
        "scale": 255,
        "mean": (114.7748, 107.7354, 99.475),
        "std": (1,),
        "crop": "112",
    },
    "piergiaj I3D RGB (rgb_imagenet.pt, rgb_charades.pt)": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": None},
    "PySlowFast Charades SlowFast 16x8": {"channels": "rgb", "averaging": "max", "clip": "64x2"},
    "PySlowFast MVIT_B_16x4_CONV": {"resize": "short:256", "crop": "224", "clip": "16x4"},
    "torchvision r3d_18 mc3_18 r2plus1d_18": {"resize": "128x171", "antialias": False, "clip": "16x@15fps"},
    "torchvision mvit_v1_b mvit_v2_s": {"clip": "16x@7.5fps", "resize": "short:256", "mean": (0.45,) * 3},
    "TSM (mit-han-lab) uniform": {"averaging": "score", "crop": "224", "antialias": True},
    "TSN (tsn-pytorch) BNInception": {"channels": "bgr", "scale": 255, "mean": (104, 117, 128), "std": (1,)},
    "VMZ c2 small models (.pkl)": {"channels": "rgb", "scale": 255, "resize": "128x171", "crop": "112"},
    "TimeSformer SSv2": {"channels": "rgb", "averaging": "score"},
    "UniFormer (v1)": {"averaging": "score", "resize": "short:224", "clip": None},
    "Hiera video": {"std": (0.225, 0.225, 0.255), "averaging": "softmax", "clip": "16x4"},
    "MoViNet": {"mean": (0,), "std": (1,), "crop": "172"},
    # x / 127.5 - 1, then (y - 0.5) / 0.5: 4 x - 3 of x in 0..1.
    "Hugging Face ViViT": {"mean": (0.75,) * 3, "std": (0.25,) * 3, "resize": "short:256", "crop": "224"},
    "facebookarchive C3D (Caffe)": {"channels": None, "mean": None},
}


@pytest.mark.parametrize("zoo", BY_HAND)
def test_parts_are_those_of_the_cells(zoo: str) -> None:
    parts = zoo_protocols()[zoo].parts
    assert {name: parts.get(name) for name in BY_HAND[zoo]} == BY_HAND[zoo]


def test_every_row_is_an_input_protocol() -> None:
    assert len(zoo_protocols()) == 88
    for row in zoo_protocols().values():
        InputProtocol.of(row.parts, mark="assumed", origin=row.zoo)


def test_zoos_whose_classes_are_not_in_alphabetical_order_are_known() -> None:
    """3D-ResNets-PyTorch numbers by first appearance; UniFormer and VideoMAE V2 ship lists of their own."""
    other = {row.zoo.split(" ")[0] for row in zoo_protocols().values() if row.is_alphabetical is False}
    assert {"3D-ResNets-PyTorch", "UniFormer", "VideoMAE", "DavideA"} <= other
    assert not {"torchvision", "piergiaj", "hassony2"} & other


def test_every_class_list_has_its_number_of_different_names_and_the_order_that_labels_csv_says() -> None:
    reference = files("bench.reference")
    known = {(line["repo"], line["path"]): line for line in _table("labels.csv")}
    for line in _table("class_lists.csv"):
        names = reference.joinpath("class_lists", f"{line['list']}.txt").read_text(encoding="utf-8").splitlines()
        said = known[line["repo"], line["path"]]
        assert len(set(names)) == len(names) == int(line["classes"]) == int(said["classes"]), line["list"]
        assert (names[0], names[-1]) == (said["first"], said["last"]), line["list"]
        assert (names == sorted(names)) == (said["order"] == "alphabetical (bytes)"), line["list"]


def test_lists_of_one_data_set_differ_in_order_only() -> None:
    ours, theirs = class_list("mmaction2 TSM R50 K400", 400), class_list("UniFormer (v1)", 400)
    assert ours is not None
    assert theirs is not None
    assert theirs != ours
    assert sorted(map(_letters, theirs)) == sorted(map(_letters, ours))


def test_xclip_swaps_two_pairs_of_hmdb51() -> None:
    usual, theirs = class_list("3D-ResNets-PyTorch master", 51), class_list("X-CLIP", 51)
    assert usual is not None
    assert theirs is not None
    moved = [index for index, (a, b) in enumerate(zip(usual, theirs, strict=True)) if _letters(a) != _letters(b)]
    assert moved == [20, 21, 44, 45]


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _table(name: str) -> list[dict[str, str]]:
    text = files("bench.reference").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
