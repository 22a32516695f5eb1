"""Shards hold every video of a split once, and a second run makes them what they should be by then."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.core import files as atomic
from bench.core.errors import InputError, VideoError
from bench.data.collection import VideoSet, open_dataset
from bench.data.decode import read_frames
from bench.data.prepare_shards import prepare_shards
from bench.data.shards import shard_members

Write = Callable[..., Path]


def test_shards_hold_what_their_annotation_names(tmp_path: Path, write_video: Write) -> None:
    root = tmp_path / "data"
    for name in ("train/a/x.mp4", "train/a/y.mp4", "train/b/z.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, frames=4, seed=ord(name[-5]))
    videos = open_dataset("folder", root=root, split="train")
    size = (root / "train/a/x.mp4").stat().st_size
    done = prepare_shards(videos, tmp_path / "shards" / "train", shard_bytes=size + 10)
    assert (done.shards, done.videos, done.failed) == (3, 3, ())
    assert prepare_shards(videos, tmp_path / "shards" / "train", shard_bytes=size + 10).skipped == 3
    with tarfile.open(tmp_path / "shards/train/train-000000.tar") as shard:
        assert shard.getnames() == ["a/x.mp4", "a/x.json"]
        notes = shard.extractfile("a/x.json")
        assert notes is not None
        assert json.load(notes) == {"id": "a/x", "labels": ["a"], "start_s": None, "end_s": None}
    again = open_dataset("folder", root=tmp_path / "shards", split="train")
    assert [(v.id, v.labels) for v in again.videos] == [(v.id, v.labels) for v in videos.videos]
    for packed, plain in zip(again.videos, videos.videos, strict=True):
        assert np.array_equal(read_frames(packed.path, [3, 1]), read_frames(plain.path, [3, 1]))
    with pytest.raises(VideoError, match=r"no such file in train-000000\.tar"):
        read_frames(tmp_path / "shards/train/train-000000.tar/a/nothing.mp4", [0])


def bytes_as_videos(root: Path, names: dict[str, bytes]) -> VideoSet:
    """Class folders of files with these bytes; packing does not look into them."""
    for name, content in names.items():
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1, 1))
    return open_dataset("folder", root=root, split="train")


def packed(target: Path) -> dict[str, bytes]:
    """Videos of all shards by name; a name that occurs twice is an error."""
    found: dict[str, bytes] = {}
    for path in sorted(target.glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member)
                assert file is not None
                assert member.name not in found
                if not member.name.endswith(".json"):
                    found[member.name] = file.read()
    return found


def test_a_second_run_packs_only_new_and_changed_videos(tmp_path: Path) -> None:
    root, target = tmp_path / "data", tmp_path / "shards"
    names = {"c/c5.mp4": b"five", "c/c6.mp4": b"six"}
    assert prepare_shards(bytes_as_videos(root, names), target).shards == 1
    names |= {"c/c1.mp4": b"one", "c/c7.mp4": b"seven"}
    done = prepare_shards(bytes_as_videos(root, names), target)
    assert (done.shards, done.skipped, done.videos, packed(target)) == (1, 0, 4, names)
    assert prepare_shards(bytes_as_videos(root, names), target).skipped == 1
    (root / "train/c/c5.mp4").write_bytes(b"FIVE")
    assert prepare_shards(bytes_as_videos(root, {}), target).shards == 1
    assert packed(target)["c/c5.mp4"] == b"FIVE"


def test_a_truncated_shard_or_one_with_other_labels_is_rewritten(tmp_path: Path) -> None:
    target = tmp_path / "shards"
    videos = bytes_as_videos(tmp_path / "data", {"c/x.mp4": b"x", "d/y.mp4": b"y"})
    prepare_shards(videos, target)
    shard = target / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    assert prepare_shards(videos, target).shards == 1
    both = replace(videos, videos=(replace(videos.videos[0], labels=(0, 1)), videos.videos[1]))
    assert prepare_shards(both, target).shards == 1
    swapped = replace(videos, videos=(replace(videos.videos[0], labels=(0, 0)), videos.videos[1]))
    assert prepare_shards(swapped, target).shards == 1
    assert prepare_shards(swapped, target).skipped == 1


def test_shards_beyond_the_last_and_shards_that_are_read_from_are_refused(tmp_path: Path) -> None:
    videos = bytes_as_videos(tmp_path / "data", {f"c/{i}.mp4": b"0123456789" for i in range(4)})
    target = tmp_path / "shards" / "train"
    assert prepare_shards(videos, target, shard_bytes=10).shards == 4
    before = packed(target)
    with pytest.raises(InputError, match=r"train-000002\.tar: split train takes 2 shards now"):
        prepare_shards(videos, target, shard_bytes=20)
    with pytest.raises(InputError, match=r"in shards of .* already"):
        prepare_shards(open_dataset("folder", root=tmp_path / "shards", split="train"), target, shard_bytes=10)
    assert packed(target) == before
    assert prepare_shards(replace(videos, split="val"), target, shard_bytes=20).shards == 2


@pytest.mark.parametrize("names", [("d1/1", "d2/1"), ("d/a.b", "d/a_b")])
def test_two_videos_of_one_name_are_refused_before_anything_is_written(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / "d" / "train.csv").write_text("".join(f"{name}.mp4 0\n" for name in names))
    videos = open_dataset("csv", root=tmp_path / "d", split="train")
    with pytest.raises(InputError, match=rf"{names[0]}.mp4 and {names[1]}.mp4 would both be 0/"):
        prepare_shards(videos, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_failed_parts_are_reported_and_no_name_leads_out_of_a_shard(tmp_path: Path) -> None:
    videos = bytes_as_videos(tmp_path / "data", {"c/x.mp4": b"x", "c/y.mp4": b"y"})
    first, second = videos.videos
    part = replace(first, id="x#0", start_s=1.0, end_s=2.0)
    done = prepare_shards(replace(videos, videos=(part, second), classes=("..",)), tmp_path / "shards")
    assert [(failed.what, "part" in failed.reason) for failed in done.failed] == [("x#0", True)]
    assert packed(tmp_path / "shards") == {"_/y.mp4": b"y"}


def test_processes_write_the_same_shards_and_one_that_cannot_be_written_fails_alone(
    tmp_path: Path, write_video: Write
) -> None:
    root = tmp_path / "data"
    for name in ("train/a/x.mp4", "train/a/y.mp4", "train/b/z.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, frames=4, seed=ord(name[-5]))
    videos = open_dataset("folder", root=root, split="train")
    prepare_shards(videos, tmp_path / "one", shard_bytes=1)
    (tmp_path / "two/train-000001.tar").mkdir(parents=True)
    done = prepare_shards(videos, tmp_path / "two", shard_bytes=1, workers=2)
    assert (done.shards, done.skipped, done.videos) == (2, 0, 2)
    assert [failed.what for failed in done.failed] == ["train-000001.tar"]
    for name in ("train-000000.tar", "train-000002.tar"):
        assert [*shard_members(tmp_path / "one" / name)] == [*shard_members(tmp_path / "two" / name)] != []


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, write_video: Write) -> None:
    video = tmp_path / "data/train/a/x.mp4"
    video.parent.mkdir(parents=True)
    write_video(video, frames=4)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"shards/.unfinished-{atomic._machine()}-{gone.pid}-abcdefgh.tar"
    left.parent.mkdir()
    left.write_bytes(b"half")
    prepare_shards(open_dataset("folder", root=tmp_path / "data", split="train"), left.parent)
    assert [path.name for path in left.parent.iterdir()] == ["train-000000.tar"]
