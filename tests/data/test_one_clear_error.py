"""What files, annotations and arguments can get wrong ends in one clear error of vbench's own."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from bench.core.errors import DatasetError, InputError, VideoError
from bench.core.schema import Clip
from bench.data.clip_batches import train_batches
from bench.data.collection import open_dataset
from bench.data.decode import read_frames
from bench.data.index import index_folder
from bench.data.parallel import for_each_task
from bench.data.prepare import prepare_frames, prepare_reencoded
from bench.data.prepare_flow import prepare_flow
from bench.data.probing import probe
from bench.data.shards import is_there
from bench.data.transforms import Augmentation

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def quiet_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(path: Path, *, height: int = 8, width: int = 8, breaks: bool = False) -> Path:
    """A PNG whose header claims a size, perhaps with a chunk whose name is no name."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + np.random.default_rng(row).bytes(24) for row in range(8)))
    between = struct.pack(">I", 4) + b"\x00\x01\x02\x03" + bytes(8) if breaks else b""
    data = chunk(b"IDAT", pixels[:99]) + between + chunk(b"IDAT", pixels[99:])
    parts = chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def giant_jpeg(path: Path) -> Path:
    """A JPEG of a few bytes that claims 60000 x 60000 pixels."""
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8), colorspace="RGB"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(data)
    return path


DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a broken chunk": (lambda folder: png(folder / "image_00002.png", breaks=True), "broken PNG"),
    "a giant PNG": (lambda folder: png(folder / "image_00002.png", height=30000, width=30000), "cannot be decoded"),
    "a large PNG": (lambda folder: png(folder / "image_00002.png", height=9000, width=9000), "more than 67,108,864"),
    "a giant JPEG": (lambda folder: giant_jpeg(folder / "image_00002.jpg"), "60000x60000 pixels .H x W., more than"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_picture_that_cannot_be_decoded_is_a_frame_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    make, reason = DAMAGED[name]
    (tmp_path / "v").mkdir()
    png(tmp_path / "v" / "image_00001.png")
    make(tmp_path / "v")
    assert read_frames(tmp_path / "v", [0]).shape == (1, 8, 8, 3)
    with pytest.raises(VideoError, match=r"frame 1 \(image_00002\.\w+\) cannot be decoded: ."):
        read_frames(tmp_path / "v", [1])
    with pytest.raises(VideoError, match=reason):
        read_frames(tmp_path / "v", [0, 1], size=(8, 8))
    assert probe(tmp_path / "v").verdict == "damaged after frame 0"


@pytest.mark.parametrize("size", [np.int64(24), (np.int32(24), np.uint8(32)), np.array([24, 32]), [24, 32]], ids=str)
def test_sizes_of_numpy_are_sizes(size: Any, tmp_path: Path, write_video: Write) -> None:
    path = write_video(tmp_path / "x.mp4", frames=2)
    assert read_frames(path, [0], size=size).shape == (1, 24, 32, 3)


@pytest.mark.parametrize("size", [100.0, (24, 32.0), (24,), (1, 2, 3), "24", 0, (0, 4), -3, (), np.array(2.5)], ids=str)
def test_other_sizes_are_refused(size: Any, tmp_path: Path, write_video: Write) -> None:
    path = write_video(tmp_path / "x.mp4", frames=2)
    with pytest.raises(InputError, match="is not a short side in pixels"):
        read_frames(path, [0], size=size)


@pytest.mark.parametrize("name", ["a\0b.mp4", "n" * 300 + ".mp4", "d\0/x.mp4"], ids=["nul", "long", "nul folder"])
def test_names_that_no_file_can_have_are_files_that_are_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(VideoError):
        read_frames(tmp_path / name, [0])
    assert probe(tmp_path / name).verdict == "missing"
    assert not is_there(tmp_path / name)


def test_a_list_of_endless_names_is_one_of_missing_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("n" * 300 + ".mp4 0\n")
    with pytest.raises(DatasetError, match=r"train.csv:1: 1 of 1 files are missing"):
        open_dataset("csv", root=tmp_path, split="train")


def activitynet(root: Path, segments: str) -> Path:
    text = f'{{"database": {{"abc":\n {{"subset": "training", "annotations": [{segments}]}}}}}}'
    (root / "activitynet.json").write_text(text)
    (root / "videos").mkdir()
    (root / "videos" / "v_abc.mp4").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    "end",
    ["Infinity", "NaN", "-Infinity", "1e999", "1" + "0" * 400, "9" * 5000, "true", '"7"'],
    ids=lambda end: end[:9],
)
def test_segments_without_an_end_are_refused(end: str, tmp_path: Path) -> None:
    root = activitynet(tmp_path, f'{{"segment": [1, {end}], "label": "a"}}')
    with pytest.raises(DatasetError, match=r"activitynet\.json:(1:|2:)? ") as raised:
        open_dataset("activitynet", root=root, split="train")
    assert "\n" not in str(raised.value)


def test_segments_that_end_before_they_begin_are_missing_not_gone(tmp_path: Path) -> None:
    texts = [f'{{"segment": {segment}, "label": "a"}}' for segment in ("[1, 2]", "[3, 3]", "[5, 4]", "[-2, -1]")]
    videos = open_dataset("activitynet", root=activitynet(tmp_path, ",".join(texts)), split="train")
    assert [video.id for video in videos.videos] == ["abc#0"]
    assert list(videos.missing) == ["abc#1", "abc#2", "abc#3"]
    assert videos.counts()["annotated"] == 4


@pytest.mark.parametrize("crop", ["random", "random_resized", "multi_scale"])
def test_flow_of_another_size_is_refused_not_cropped(crop: Any) -> None:
    frames = {"rgb": np.zeros((4, 48, 64, 3), np.uint8), "flow": np.zeros((4, 24, 32, 2), np.uint8)}
    transform = Augmentation(crop=crop).build(Clip.model_validate("4x1x16"))
    with pytest.raises(VideoError, match=r"rgb is 48x64 and flow is 24x32 \(H x W\); scale both"):
        transform(frames, 0)


def test_a_video_with_flow_of_another_size_is_replaced_and_reported(tmp_path: Path, write_video: Write) -> None:
    for name, side in (("x", 24), ("y", 48)):
        write_video(_made(tmp_path, name), frames=6)
        folder = tmp_path / "flow" / "c" / name
        folder.mkdir(parents=True)
        for letter in "xy":
            for number in range(1, 6):
                Image.new("L", (side * 4 // 3, side)).save(folder / f"flow_{letter}_{number:05d}.jpg")
    videos = open_dataset("folder", root=tmp_path, split="train")
    unread: list[Any] = []
    (batch,) = train_batches(
        videos,
        clip=Clip.model_validate("4x1x16"),
        inputs=(_Input("rgb", 3), _Input("flow", 2)),
        augmentation=Augmentation(crop="random_resized"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        batch=2,
        seed=0,
        epoch=0,
        failures=unread,
    )
    assert [each.id for each in unread] == ["c/x"]
    assert batch.videos.tolist() == [1, 1]


class _Input:
    def __init__(self, modality: str, channels: int) -> None:
        self.modality, self.channels = modality, channels

    def take(self, clip_BCTHW: Any) -> Any:
        return clip_BCTHW


def _made(root: Path, name: str) -> Path:
    path = root / "train" / "c" / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_frame_that_an_encoder_refuses_fails_alone(tmp_path: Path, write_video: Write) -> None:
    """libx264 takes no frame wider than 16384."""
    write_video(_made(tmp_path, "good"), frames=2, size=(16, 16))
    write_video(tmp_path / "train/c/wide.avi", codec="rawvideo", frames=1, size=(16, 16400))
    done = prepare_reencoded(tmp_path / "train", tmp_path / "quick")
    assert (done.written, [each.what for each in done.failed]) == (1, ["c/wide.avi"])


def _refuse(task: str) -> None:
    raise {"av": av.error.ExternalError(1, "refused"), "runtime": RuntimeError("odd"), "key": KeyError("x")}[task]


def test_no_error_of_one_task_ends_the_others() -> None:
    outcomes = list(for_each_task(["av", "runtime", "key"], _refuse, total=3))
    assert [each.task for each in outcomes] == ["av", "runtime", "key"]
    assert all(isinstance(each.error, VideoError) for each in outcomes)


@pytest.mark.parametrize("prepare", [prepare_frames, prepare_reencoded, prepare_flow])
def test_a_short_side_has_a_pixel(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for side in (0, -4):
        with pytest.raises(InputError, match=f"short side {side}; allowed: 1 and more"):
            prepare(tmp_path / "videos", tmp_path / "target", short_side=side)


def test_workers_are_not_negative(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-1 workers"):
        index_folder(tmp_path, workers=-1)
    with pytest.raises(InputError, match="-1 workers"):
        for_each_task([1], str, total=1, workers=-1)
