"""Optical flow of a data set's videos: found by their names, read frame by frame, given to models that take it."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import DatasetError, VideoError
from bench.data.clips import ClipReader
from bench.data.collection import VideoSet, open_dataset
from bench.data.datasets.motions import MotionsParameters, write_motions
from bench.data.frame_folder import read_flow
from bench.data.prepare_flow import prepare_flow

STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips of four directions, without flow."""
    parameters = MotionsParameters(clips_per_class=4, val_clips_per_class=1, frames=8, size=48, classes=4)
    return write_motions(tmp_path_factory.mktemp("flow") / "motions", parameters)


def opened(root: Path, **options: str) -> VideoSet:
    return open_dataset("motions", root=root, split="train", **options)


def test_missing_flow_is_none_and_a_missing_folder_is_named(root: Path) -> None:
    assert {video.flow for video in opened(root).videos} == {None}
    with pytest.raises(DatasetError, match="nowhere, does not exist"):
        opened(root, flow="nowhere")


@pytest.mark.parametrize("form", ["jpeg", "npz"])
@pytest.mark.parametrize(
    ("source", "method"), [("", "farneback"), ("train", "dis"), pytest.param("train", "tvl1", marks=pytest.mark.slow)]
)
def test_flow_points_in_the_direction_of_motion(
    root: Path, tmp_path: Path, form: str, source: str, method: str
) -> None:
    pytest.importorskip("cv2", reason="optical flow needs OpenCV")
    prepare_flow(root / source, tmp_path / "flow", method=method, form=form)  # type: ignore[arg-type]
    videos = opened(root, flow=str(tmp_path / "flow"))
    assert all(video.flow is not None for video in videos.videos)
    right = sum(direction_of(read_flow(video.flow, range(7), size=None)) == video.labels[0] for video in videos.videos)
    assert right >= 14, f"{right} of 16"


def direction_of(flow_THW2: NDArray[np.uint8]) -> int:
    """The direction that the largest motions agree with."""
    motion = flow_THW2.astype(float) - 127.5
    strongest = motion[np.linalg.norm(motion, axis=-1) > 2]
    return int(np.argmax([np.sum(strongest @ np.array(step)) for step in STEPS]))


@pytest.mark.parametrize("form", ["jpeg", "npz"])
def test_both_forms_return_the_requested_pair_and_the_last_one_beyond(tmp_path: Path, form: str) -> None:
    from PIL import Image

    planes = np.zeros((3, 16, 24, 2), np.uint8)
    planes[..., 0], planes[..., 1] = np.array([10, 20, 30])[:, None, None], 200
    place = tmp_path / ("video.npz" if form == "npz" else "video")
    if form == "npz":
        np.savez_compressed(place, flow=planes)
    else:
        place.mkdir()
        for number, plane in enumerate(planes, start=1):
            for axis, letter in enumerate("xy"):
                Image.fromarray(plane[..., axis]).save(place / f"flow_{letter}_{number:05d}.jpg", quality=100)
    found = read_flow(place, [0, 2, 3, 7], size=8)
    assert found.shape == (4, 8, 12, 2)
    assert found[..., 0].mean((1, 2)) == pytest.approx([10, 30, 30, 30], abs=1)
    assert found[..., 1].mean() == pytest.approx(200, abs=1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no archive at all"])
def test_a_file_without_flow_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "video.npz").write_bytes(content)
    with pytest.raises(VideoError, match=r"video\.npz"):
        read_flow(tmp_path / "video.npz", [0], size=None)


def test_an_array_of_another_kind_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "video.npz", flow=np.zeros((3, 4, 4, 2), np.float32))
    with pytest.raises(VideoError, match="float32"):
        read_flow(tmp_path / "video.npz", [0], size=None)


class RunsWhenUnpickled:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_an_npz_with_objects_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "video.npz", flow=np.array([RunsWhenUnpickled()], dtype=object))
    with pytest.raises(VideoError, match=r"video\.npz"):
        read_flow(tmp_path / "video.npz", [0], size=None)
    assert not (tmp_path / "unpickled").exists()


def bomb(path: Path, *, shape: tuple[int, ...], stored: int) -> Path:
    """An npz whose header promises `shape` and whose array unpacks to `stored` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("flow.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(stored // (1 << 20)):
            member.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize(
    ("shape", "stored", "message"),
    [
        ((1 << 20, 1 << 10, 1 << 10, 2), 64 << 20, "takes 2,199,023,255,552 bytes; at most"),
        ((1, 1 << 14, 1 << 14, 2), 64 << 20, "takes 536,870,912 bytes"),
        ((2, 64, 64, 2), 64 << 20, "holds 67,108,864 bytes, but its header says"),
        ((64, 64, 64, 2), 0, "holds 0 bytes, but its header says"),
    ],
)
def test_an_npz_that_unpacks_to_anything_else_than_its_flow_is_refused(
    tmp_path: Path, shape: tuple[int, ...], stored: int, message: str
) -> None:
    path = bomb(tmp_path / "video.npz", shape=shape, stored=stored)
    tracemalloc.start()
    try:
        with pytest.raises(VideoError, match=message):
            read_flow(path, [0], size=None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_flow_next_to_the_frames_is_found(tmp_path: Path) -> None:
    """As MMAction2 lays out raw frames: `img_00001.jpg` and `flow_x_00001.jpg` in one folder."""
    from PIL import Image

    folder = tmp_path / "train" / "jump" / "clip"
    folder.mkdir(parents=True)
    for name in ("img_00001", "img_00002", "flow_x_00001", "flow_y_00001"):
        Image.new("L" if name.startswith("flow") else "RGB", (16, 16)).save(folder / f"{name}.jpg")
    (video,) = open_dataset("folder", root=tmp_path, split="train").videos
    assert video.flow == folder
    (clip,) = ClipReader(modalities=("rgb", "flow")).read(video, lambda part: [range(part.frames)])
    assert {modality: frames.shape for modality, frames in clip.items()} == {
        "rgb": (2, 16, 16, 3),
        "flow": (2, 16, 16, 2),
    }
