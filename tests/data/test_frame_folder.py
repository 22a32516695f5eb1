"""Frame folders: the same frames whatever reads them, and on however many threads; what is not there is named."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.core.errors import VideoError
from bench.data.decode import read_frames
from bench.data.geometry import resize
from bench.data.prepare import prepare_frames

SIZES = [None, 112, 120, 96, 64, 60, 45, 30, 15, (240, 320), (120, 160), (50, 50), (300, 400)]


def texture(*, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Blocks of colour with fine noise: much for a scaler to get wrong."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 255, (height // 6 + 1, width // 6 + 1, 3)).repeat(6, 0).repeat(6, 1)[:height, :width]
    return np.clip(blocks + random.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 240 x 320."""
    path = tmp_path_factory.mktemp("frames")
    for number in range(20):
        data = simplejpeg.encode_jpeg(texture(height=240, width=320, seed=number), quality=92, colorspace="RGB")
        (path / f"image_{number + 1:05d}.jpg").write_bytes(data)
    return path


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Grey levels apart, on average."""
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_simplejpeg_and_pillow_give_the_same_frames(
    size: int | tuple[int, int] | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = read_frames(folder, [0, 7], size=size)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert distance(frames, read_frames(folder, [0, 7], size=size)) < 2


@pytest.mark.parametrize("target", [(112, 149), (7, 300), (481, 641), (1, 1)], ids=str)
def test_images_are_scaled_as_pillow_scales_them(target: tuple[int, int]) -> None:
    image = texture(height=240, width=319, seed=3)
    expected = np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize(image, target).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [None, 112])
def test_threads_change_nothing_but_the_time(size: int | None, folder: Path) -> None:
    indices = [19, 3, 3, *range(20), 0]
    with threads(4):
        together = read_frames(folder, indices, size=size)
    alone = np.concatenate([read_frames(folder, [index], size=size) for index in indices])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("count", [1, 4])
def test_the_first_frame_that_cannot_be_read_is_named(count: int, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for number in (15, 9):
        (tmp_path / f"image_{number:05d}.jpg").write_bytes(b"no picture")
    with threads(count), pytest.raises(VideoError, match=r"frame 8 \(image_00009.jpg\) cannot be decoded"):
        read_frames(tmp_path, range(20))


def test_frames_of_several_sizes_are_read_if_one_size_is_requested(tmp_path: Path) -> None:
    for number, height in enumerate((48, 96), start=1):
        image = texture(height=height, width=64, seed=0)
        (tmp_path / f"image_{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(image))
    assert read_frames(tmp_path, [1, 0], size=(20, 30)).shape == (2, 20, 30, 3)
    with pytest.raises(VideoError, match=r"frame 1 is 96x64 but frame 0 is 48x64 .*at one size"):
        read_frames(tmp_path, [1, 0])


@pytest.mark.parametrize("size", [None, 112])
def test_frames_written_from_a_real_video_are_its_frames(size: int | None, clips: Path, tmp_path: Path) -> None:
    name = "tv_SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / name).symlink_to(clips / name)
    prepare_frames(tmp_path / "videos", tmp_path / "frames")
    indices = range(0, 74, 9)
    frames = read_frames(tmp_path / "frames" / Path(name).stem, indices, size=size)
    assert distance(frames, read_frames(clips / name, indices, size=size)) < 2
