"""stills: one picture a video, its class the number of objects; and nothing of it in `motions`."""

from collections import Counter
from pathlib import Path

import pytest

from bench.core.errors import DatasetError, InputError
from bench.data.collection import VideoSet, open_dataset
from bench.data.decode import read_frames
from bench.data.leakage import find_leaks

SMALL = {"per_class": 3, "val_per_class": 2, "size": 32}


def opened(root: Path, split: str, **changes: int) -> VideoSet:
    return open_dataset("stills", root=root, split=split, **{**SMALL, **changes})


def test_every_class_has_as_many_pictures_of_one_frame(tmp_path: Path) -> None:
    train, val = (opened(tmp_path / "stills", split) for split in ("train", "val"))
    assert train.classes == ("3 objects", "4 objects", "5 objects")
    assert Counter(label for video in train.videos for label in video.labels) == {0: 3, 1: 3, 2: 3}
    assert len(val) == 6
    assert read_frames(train.videos[0].path, [0]).shape == (1, 32, 32, 3)
    assert not find_leaks(train, val)


def test_it_is_written_once_and_alike_everywhere(tmp_path: Path) -> None:
    first = opened(tmp_path / "a", "train")
    written = first.videos[0].path.stat().st_mtime_ns
    assert opened(tmp_path / "a", "train").videos[0].path.stat().st_mtime_ns == written
    assert opened(tmp_path / "b", "train").hash == first.hash
    assert opened(tmp_path / "c", "train", seed=1).hash != first.hash


def test_another_set_and_foreign_files_are_not_taken_for_it(tmp_path: Path) -> None:
    opened(tmp_path / "a", "train")
    with pytest.raises(DatasetError, match=r"written with .*'seed': 0.*, not .*'seed': 1"):
        opened(tmp_path / "a", "train", seed=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("")
    with pytest.raises(DatasetError, match="holds something else"):
        opened(tmp_path / "b", "train")
    assert (tmp_path / "b" / "mine.txt").exists()
    with pytest.raises(InputError, match="per_class is 0; allowed: 1 to"):
        opened(tmp_path / "c", "train", per_class=0)
