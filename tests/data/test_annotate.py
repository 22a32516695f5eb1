"""Annotations written in other forms say the same, or are refused; nothing is left out in silence."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.data.annotate import ListCounts, subset_of, write_lists, write_resnets_json
from bench.data.collection import Video, VideoSet, open_dataset, video_set

Write = Callable[..., Path]


def made(*videos: Video, missing: dict[str, tuple[int, ...]] | None = None, is_multi_label: bool = False) -> VideoSet:
    return video_set(
        "s", "train", classes=["a", "b"], videos=videos, root=None, missing=missing, is_multi_label=is_multi_label
    )


def video(id_: str, **known: float) -> Video:
    return Video(id=id_, path=Path(f"{id_}.mp4"), labels=(1,), sha256="0", **known)  # type: ignore[arg-type]


def test_annotations_become_the_json_of_3d_resnets_and_lists_again(tmp_path: Path, write_video: Write) -> None:
    root = tmp_path / "data"
    for name in ("train/a/x.mp4", "train/b/y.mp4", "val/b/z.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, frames=4, size=(16, 16))
    splits = {split: open_dataset("folder", root=root, split=split) for split in ("train", "val")}
    assert write_resnets_json(splits, tmp_path / "kinetics.json").videos == 3
    content = json.loads((tmp_path / "kinetics.json").read_text())
    assert content["labels"] == ["a", "b"]
    assert content["database"]["z"] == {"subset": "validation", "annotations": {"label": "b", "segment": [1, 5]}}
    assert write_lists(tmp_path / "kinetics.json", tmp_path / "lists")["train"] == ListCounts(videos=2, unlabelled=0)
    assert (tmp_path / "lists/train.csv").read_text() == "a/x 4 0\nb/y 4 1\n"
    with pytest.raises(InputError, match="allowed: train, val, test"):
        write_resnets_json({"trian": splits["train"]}, tmp_path / "x.json")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": made(video("a/001"), video("b/001"))}, "train a/001 and train b/001 have one name"),
        ({"train": made(video("a/001"), missing={"b/001": (0,)})}, "train a/001 and train b/001 have one name"),
        ({"train": made(video("a/001")), "val": made(video("b/001"))}, "train a/001 and val b/001 have one name"),
        ({"train": made(video("a"), is_multi_label=True)}, "several labels per video"),
        ({"train": made(video("v#0", start_s=0.5, end_s=3.0))}, "v#0 is a part of v#0.mp4"),
        ({"train": made(replace(video("v"), segment=(9, 20)))}, "v is a part of v.mp4"),
    ],
    ids=["two classes", "missing", "two splits", "several labels", "part", "segment"],
)
def test_annotations_that_the_json_cannot_hold_are_refused(
    splits: dict[str, VideoSet], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_resnets_json(splits, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_official_splits_become_subsets() -> None:
    assert {split: subset_of(split) for split in ("train", "val", "test", "train1", "test3")} == {
        "train": "train",
        "val": "val",
        "test": "test",
        "train1": "train",
        "test3": "val",
    }


def test_videos_without_a_label_are_counted_and_an_empty_list_is_not_written(tmp_path: Path) -> None:
    database = {
        "x": {"subset": "training", "annotations": {"label": "a", "segment": [1, 9]}},
        "y": {"subset": "testing", "annotations": {}},
    }
    (tmp_path / "k.json").write_text(json.dumps({"labels": ["a"], "database": database}))
    found = write_lists(tmp_path / "k.json", tmp_path / "lists")
    assert found["test"] == ListCounts(videos=0, unlabelled=1)
    assert {path.name: path.read_text() for path in (tmp_path / "lists").iterdir()} == {
        "train.csv": "a/x 8 0\n",
        "classes.txt": "a\n",
    }
