"""Frames in the HDF5 files of 3D-ResNets equal those of its frame folders; nothing outside of the file is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import MissingFrameError, VideoError
from bench.data.clips import ClipReader
from bench.data.collection import open_dataset
from bench.data.decode import read_frames
from bench.data.index import index_folder
from bench.data.prepare import prepare_frames
from bench.data.probing import probe

h5py: Any = pytest.importorskip("h5py")
Write = Callable[..., Path]


def write_hdf5(path: Path, images: list[bytes]) -> Path:
    """As `generate_video_hdf5.py` of 3D-ResNets: variable-length bytes of one JPEG per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        video = file.create_dataset("video", (len(images),), dtype=h5py.special_dtype(vlen=np.dtype("uint8")))
        for number, image in enumerate(images):
            video[number] = np.frombuffer(image, np.uint8)
    return path


@pytest.fixture
def root(tmp_path: Path, write_video: Write) -> Path:
    """One video as a frame folder `train/a/x` and as `train/b/y.hdf5`."""
    (tmp_path / "videos/a").mkdir(parents=True)
    write_video(tmp_path / "videos/a/x.mp4", frames=6, size=(48, 64))
    prepare_frames(tmp_path / "videos", tmp_path / "root/train", short_side=48)
    images = [file.read_bytes() for file in sorted((tmp_path / "root/train/a/x").glob("*.jpg"))]
    write_hdf5(tmp_path / "root/train/b/y.hdf5", images)
    return tmp_path / "root"


@pytest.mark.parametrize("size", [None, 24, (20, 30)])
def test_frames_equal_those_of_the_folder(root: Path, size: int | tuple[int, int] | None) -> None:
    folder, file = (read_frames(root / "train" / name, [5, 0, 2, 2], size=size) for name in ("a/x", "b/y.hdf5"))
    assert folder.shape == file.shape
    assert (folder == file).all()


def test_a_data_set_of_such_files_is_indexed_and_read(root: Path) -> None:
    assert index_folder(root).verdicts == {"ok": 2}
    x, y = open_dataset("folder", root=root, split="train").videos
    assert (x.frames, y.frames, y.path.name, probe(y.path).container) == (6, 6, "y.hdf5", "hdf5")
    (clip,) = ClipReader().read(y, lambda part: [range(part.frames)])
    assert clip["rgb"].shape == (6, 48, 64, 3)


def test_missing_and_damaged_frames_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFrameError, match=r"y\.hdf5: frame 6 does not exist; the file has 6 frames"):
        read_frames(root / "train/b/y.hdf5", [1, 6])
    path = write_hdf5(tmp_path / "bad.hdf5", [(root / "train/a/x/image_00001.jpg").read_bytes(), b"no picture"])
    with pytest.raises(VideoError, match=r"bad\.hdf5: frame 1 cannot be decoded"):
        read_frames(path, [0, 1])
    assert probe(path).verdict == "damaged after frame 0"


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("x")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["video"] = np.zeros((4, 2), np.float32)
    with h5py.File(tmp_path / "elsewhere.hdf5", "w") as file:
        file["video"] = h5py.ExternalLink(str(write_hdf5(tmp_path / "y.hdf5", [b"1"])), "video")
    write_hdf5(tmp_path / "empty.hdf5", [])
    for name, message in (("text", "cannot be read as HDF5"), ("other", "no data set `video`"),
                          ("elsewhere", "no data set `video`"), ("empty", "holds no frames")):  # fmt: skip
        with pytest.raises(VideoError, match=rf"{name}\.hdf5: .*{message}"):
            read_frames(tmp_path / f"{name}.hdf5", [0])
