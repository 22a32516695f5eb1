"""The data set that vbench writes itself: real files, and nothing but the motion tells its classes apart."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import BenchError, DatasetError, InputError, UnknownNameError
from bench.data.collection import VideoSet, open_dataset
from bench.data.datasets.motions import CLASSES, MotionsParameters, changed_files, write_motions
from bench.data.decode import read_frames
from bench.data.probing import probe

SMALL = {"clips_per_class": 2, "val_clips_per_class": 1, "frames": 12, "size": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VBENCH_DATA", raising=False)
    return tmp_path / "cache"


def _open(**options: object) -> VideoSet:
    return open_dataset("motions", split="train", **{**SMALL, **options})


def test_files_are_whole_h264_without_b_frames() -> None:
    videos = _open()
    assert len(videos) == 16
    for video in videos.videos:
        facts = probe(video.path)
        assert (facts.verdict, facts.codec, facts.frames, facts.has_b_frames) == ("ok", "h264", 12, False)
        assert facts.sha256 == video.sha256


def test_decoded_clips_of_opposite_classes_are_each_other_reversed_to_the_last_bit() -> None:
    """Both classes have the same set of frames: no picture, and no trace of the codec in one, tells them apart."""
    videos = {video.id: video for video in _open().videos}
    for scene in range(2):
        for label in range(0, len(CLASSES), 2):
            forward, backward = (
                read_frames(videos[f"t{scene:06d}_{of:03d}"].path, range(12)) for of in (label, label + 1)
            )
            assert np.array_equal(forward, backward[::-1])
            assert not np.array_equal(forward, backward)


def test_objects_move_in_the_direction_of_their_class() -> None:
    """Shifting a frame back along the class's direction must explain the next frame better than any other direction."""
    steps = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (-1, 1), (1, -1)]
    right = 0
    videos = _open(clips_per_class=4, size=64).videos
    for video in videos:
        frames = read_frames(video.path, range(12)).astype(float)
        background = np.median(frames, axis=0)
        moving = np.abs(frames - background).sum(-1)
        errors = [
            sum(
                min(np.abs(np.roll(a, (s * dy, s * dx), (0, 1)) - b).mean() for s in (2, 3))
                for a, b in pairwise(moving)
            )
            for dy, dx in steps
        ]
        right += int(np.argmin(errors)) == video.labels[0]
    assert right >= 0.95 * len(videos)


def test_the_annotation_has_the_form_of_kinetics() -> None:
    videos = _open()
    assert videos.root is not None
    rows = list(csv.DictReader((videos.root / "train.csv").read_text().splitlines()))
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split"]
    for row in rows:
        assert (videos.root / "train" / row["label"] / f"{row['youtube_id']}_000000_000001.mp4").is_file()


def test_seeds_give_other_clips_and_the_same_seed_the_same() -> None:
    assert _open(seed=1).hash == _open(seed=1).hash != _open(seed=2).hash


def test_the_same_parameters_give_the_same_bytes_anywhere(tmp_path: Path) -> None:
    parameters = MotionsParameters(**SMALL)
    one, other = (write_motions(tmp_path / name, parameters) / "motions.json" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_train_and_val_share_no_scene() -> None:
    train, val = (open_dataset("motions", split=split, **SMALL) for split in ("train", "val"))
    assert {v.sha256 for v in train.videos}.isdisjoint(v.sha256 for v in val.videos)


def test_a_changed_file_in_the_cache_is_written_again() -> None:
    video = _open().videos[0]
    sound = video.path.read_bytes()
    video.path.write_bytes(sound[:-1] + b"x")
    assert _open().videos[0].path.read_bytes() == sound


def test_a_changed_file_in_a_given_root_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    video = open_dataset("motions", root=root, split="train", **SMALL).videos[0]
    video.path.unlink()
    assert changed_files(root) == [str(video.path.relative_to(root))]
    with pytest.raises(DatasetError, match=video.path.name):
        open_dataset("motions", root=root, split="train")


def test_a_root_with_other_parameters_is_an_error(tmp_path: Path) -> None:
    open_dataset("motions", root=tmp_path / "mine", split="train", **SMALL)
    with pytest.raises(DatasetError, match="written with seed 0, not 7"):
        open_dataset("motions", root=tmp_path / "mine", split="train", seed=7)


def test_a_writer_that_dies_leaves_nothing_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        write_motions(tmp_path / "mine", MotionsParameters(**SMALL))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 3}, "classes is 3; allowed: 2 to 8 in steps of 2"),
        ({"size": 15}, "size is 15"),
        ({"frames": 0}, "frames is 0"),
        ({"clip_per_class": 2}, "did you mean: clips_per_class"),
    ],
)
def test_impossible_options_are_errors(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _open(**options)


def test_unknown_names_and_splits_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean: motions"):
        open_dataset("motion", split="train")
    with pytest.raises(BenchError, match="train"):
        open_dataset("motions", split="trian")
