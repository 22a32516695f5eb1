"""Printed protocols: what can be read of the words of each source, and that none of them is misread."""

import pytest

from bench.core.registry import DATASETS as KNOWN
from bench.reference.published import ZooRow, published_for, published_rows, zoo_names
from bench.reference.published_protocol import DATASETS, PublishedProtocol, published_protocol


def first(zoo: str, **wanted: object) -> PublishedProtocol:
    """The protocol of the first row about `zoo` whose fields are `wanted`."""
    rows = [row for row in published_for(zoo) if all(getattr(row.row, k) == v for k, v in wanted.items())]
    return published_protocol(rows[0])


@pytest.mark.parametrize(
    ("zoo", "wanted", "expected"),
    [
        # of SlowFast 8x8 the fast pathway has 32 frames over the same 64 frames of the video
        ("slowfast_r50", {"crop": "256"}, {"frames": 32, "stride": 2, "crop": 256, "views": "10x3"}),
        ("x3d_s", {"crop": "182"}, {"frames": 13, "stride": 6, "crop": 182, "views": "10x3"}),
        ("c3d", {"dataset": "UCF101"}, {"frames": 16, "stride": 1, "fold": None, "is_mean": False, "views": "10x1"}),
        ("tsm_r50", {"clip": "1x1x8"}, {"frames": 8, "stride": None, "fps": None, "crop": 224}),
        ("torchvision:r3d_18", {"crop": "112"}, {"frames": 16, "stride": None, "fps": 15.0, "views": "5x1"}),
        ("resnet3d_50", {"dataset": "Kinetics-400 (val)"}, {"part": "val", "dataset": "kinetics400", "views": None}),
        ("resnet3d_50", {"dataset": "UCF-101 (3-split avg)"}, {"dataset": "ucf101", "is_mean": True, "fold": None}),
        ("resnet3d_50", {"dataset": "UCF-101 split 1"}, {"dataset": "ucf101", "is_mean": False, "fold": 1}),
        ("resnet3d_50", {"dataset": "Kinetics-700"}, {"dataset": "kinetics700", "frames": None, "crop": None}),
        ("i3d_rgb", {"top1": 71.1}, {"part": "test", "frames": None, "views": None}),
        ("slow_r50", {"crop": "short-side 320"}, {"crop": None, "frames": 8, "stride": 8}),
        ("ir_csn_r152", {"crop": "224 as printed"}, {"crop": 224, "frames": 32, "stride": None}),
    ],
)
def test_what_a_row_says_is_read(zoo: str, wanted: dict[str, object], expected: dict[str, object]) -> None:
    found = first(zoo, **wanted)
    assert {name: getattr(found, name) for name in expected} == expected


def test_views_that_cover_the_whole_video_differ_from_those_that_are_not_stated() -> None:
    assert first("resnet3d_18", dataset="Kinetics-400 (val)").is_dense
    assert not first("resnet3d_18", dataset="UCF-101 (3-split avg)").is_dense
    assert not first("i3d_rgb").is_dense


def test_every_row_of_the_table_can_be_asked() -> None:
    """Whatever its source has written there; what is read is a number above zero."""
    for row in published_rows():
        read = published_protocol(ZooRow(zoo="any", row=row, frames=None, size=None, known=""))
        for name in ("frames", "stride", "fps", "crop", "fold"):
            value = getattr(read, name)
            assert value is None or value > 0, (name, row)


def test_names_of_data_sets_are_ours() -> None:
    assert {name for name in DATASETS.values() if name not in KNOWN} == set()
    named = {published_protocol(row).dataset for zoo in zoo_names() for row in published_for(zoo)}
    assert named >= {"kinetics400", "kinetics700", "ucf101", "hmdb51"}
