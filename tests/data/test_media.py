"""Which folders are the frames of one video, and which hold videos among other things."""

from pathlib import Path

import pytest

from bench.core.errors import DatasetError
from bench.data.collection import open_dataset
from bench.data.index import videos_under
from bench.data.media import Media

FRAMES = [f"image_{number:05d}.jpg" for number in range(1, 4)]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize("picture", ["a1.jpg", "a2.jpg", "cover.png", "z9.webp"])
def test_a_picture_among_videos_hides_none_of_them(picture: str, tmp_path: Path) -> None:
    tree(tmp_path / "train", "a/a1.mp4", f"a/{picture}", "a/a3.MP4", "b/x.mp4")
    assert sorted(Media([tmp_path / "train"]).names()) == ["a/a1", "a/a3", "b/x"]
    assert sorted(videos_under(tmp_path)) == ["train/a/a1.mp4", "train/a/a3.MP4", "train/b/x.mp4"]
    assert len(open_dataset("folder", root=tmp_path, split="train")) == 3


def test_a_picture_among_frame_folders_hides_none_of_them(tmp_path: Path) -> None:
    tree(tmp_path / "train", "a/cover.jpg", *(f"a/{video}/{frame}" for video in ("v", "w") for frame in FRAMES))
    assert sorted(Media([tmp_path / "train"]).names()) == ["a/v", "a/w"]
    assert sorted(videos_under(tmp_path)) == ["train/a/v", "train/a/w"]


def test_frames_with_other_files_are_one_video(tmp_path: Path) -> None:
    tree(tmp_path, *(f"v/{frame}" for frame in FRAMES), "v/n_frames", "v/@eaDir/thumb.db", "v/audio.wav")
    assert Media([tmp_path]).names() == ["v"]
    assert list(videos_under(tmp_path)) == ["v"]


def test_pictures_without_numbers_are_no_frames(tmp_path: Path) -> None:
    """Two of them beside the frame folder of the only clip do not make one video of the class."""
    tree(tmp_path / "train", "jump/thumb.jpg", "jump/sheet.png", *(f"jump/v/{frame}" for frame in FRAMES), "run/x.mp4")
    assert sorted(Media([tmp_path / "train"]).names()) == ["jump/v", "run/x"]
    assert open_dataset("folder", root=tmp_path, split="train").classes == ("jump", "run")


def test_a_video_outside_of_any_class_is_reported(tmp_path: Path) -> None:
    tree(tmp_path / "train", "a/x.mp4", "stray.mp4")
    with pytest.raises(DatasetError, match="stray: is a video outside any class folder"):
        open_dataset("folder", root=tmp_path, split="train")


def test_flow_in_the_folder_of_flat_videos_hides_none_of_them(tmp_path: Path) -> None:
    tree(tmp_path, "x.mp4", "flow/a/x/flow_x_00001.jpg", "flow/a/x/flow_y_00001.jpg")
    media = Media([tmp_path])
    assert media.names() == ["x"]
    assert media.find(("a/x", "x")) == tmp_path / "x.mp4"
