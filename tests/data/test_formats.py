"""Formats met in the wild: each is read exactly and upright, or refused by name, and nothing hangs."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.core.errors import VideoError
from bench.data.decode import read_frames
from bench.data.geometry import Orientation
from bench.data.media import VIDEO_SUFFIXES
from bench.data.probing import probe

Frames = list[NDArray[np.uint8]]
Write = Callable[..., Path]
Sequential = Callable[[Path], Frames]

ODD = (143, 175)
REALTIME = {"g": "15", "deadline": "realtime", "cpu-used": "8"}
QUIET_265 = "keyint=15:bframes=3:log-level=none"
FORMATS: dict[str, dict[str, Any]] = {
    "odd_444.mp4": {"size": ODD, "pix_fmt": "yuv444p", "options": {"g": "12"}},
    "ten_bit_422.mkv": {"pix_fmt": "yuv422p10le", "options": {"g": "12"}},
    "rgb.mkv": {"codec": "libx264rgb", "pix_fmt": "bgr24", "options": {"g": "12"}},
    "interlaced.mp4": {"options": {"g": "12", "x264-params": "tff=1"}},
    "interlaced.mpg": {"codec": "mpeg2video", "options": {"g": "12", "flags": "+ildct+ilme", "bf": "2"}},
    "mpeg2_422.ts": {"codec": "mpeg2video", "pix_fmt": "yuv422p", "options": {"g": "12", "bf": "2"}},
    "odd_mpeg1.mpg": {"codec": "mpeg1video", "size": ODD, "options": {"g": "12"}},
    "odd_divx.avi": {"codec": "mpeg4", "size": ODD, "options": {"g": "12", "bf": "2"}},
    "twelve_bit.mkv": {"codec": "libx265", "pix_fmt": "yuv444p12le", "options": {"x265-params": QUIET_265}},
    "grey_hevc.mkv": {"codec": "libx265", "pix_fmt": "gray10le", "options": {"x265-params": QUIET_265}},
    "hidden_frames.webm": {"codec": "libvpx", "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "odd_vp9.mp4": {"codec": "libvpx-vp9", "size": ODD, "options": REALTIME},
    "alpha_vp9.webm": {
        "codec": "libvpx-vp9",
        "pix_fmt": "yuva420p",
        "options": {**REALTIME, "auto-alt-ref": "0"},
    },
    "alpha_prores.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "alpha_png.mov": {"codec": "png", "pix_fmt": "rgba"},
    "delta_rle.mov": {"codec": "qtrle", "pix_fmt": "argb"},
    "grey16.mkv": {"codec": "ffv1", "pix_fmt": "gray16le"},
    "huff.avi": {"codec": "huffyuv", "pix_fmt": "rgb24"},
    "odd_raw.y4m": {"codec": "rawvideo", "size": ODD, "container": "yuv4mpegpipe"},
    "odd_raw.avi": {"codec": "rawvideo", "size": ODD},
    "packed_raw.avi": {"codec": "rawvideo", "pix_fmt": "yuyv422"},
    "grey_raw.avi": {"codec": "rawvideo", "pix_fmt": "gray"},
    "fifteen_bit_raw.avi": {"codec": "rawvideo", "pix_fmt": "rgb555le"},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "msmpeg4.avi": {"codec": "msmpeg4", "options": {"g": "12"}},
    "h264.flv": {"options": {"g": "12", "bf": "2"}},
    "h263.3gp": {"codec": "h263", "size": (144, 176), "options": {"g": "12"}},
    "odd_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj422p", "size": ODD},
    "palette.gif": {"codec": "gif", "pix_fmt": "bgr8", "size": ODD},
    "late_start.mkv": {"pts": [24 * i + 24_000 for i in range(40)], "options": {"g": "12", "bf": "2"}},
    "early_start.mkv": {"pts": [24 * i - 240 for i in range(40)], "options": {"g": "12", "bf": "2"}},
    "gap.mp4": {"pts": [24 * i + 24_000 * (i > 20) for i in range(40)], "options": {"g": "12", "bf": "2"}},
    "gaps.avi": {"codec": "mpeg4", "pts": [24 * (i + i // 5) for i in range(40)], "options": {"g": "12", "bf": "0"}},
}


def assert_exact(path: Path, expected: Frames) -> None:
    facts = probe(path)
    assert facts.frames == len(expected)
    assert (facts.height, facts.width) == expected[0].shape[:2]
    last = len(expected) - 1
    for known in (facts, None):
        for indices in ([last], [last // 2, last // 3, last // 2], [0, last, 1]):
            frames = read_frames(path, indices, facts=known)
            assert all(np.array_equal(got, expected[i]) for got, i in zip(frames, indices, strict=True))
        with pytest.raises(VideoError, match=f"frame {last + 1} "):
            read_frames(path, [last + 1], facts=known)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_exactly(
    name: str, tmp_path: Path, write_video: Write, decode_in_sequence: Sequential
) -> None:
    path = write_video(tmp_path / name, **FORMATS[name])
    assert path.suffix in VIDEO_SUFFIXES
    assert probe(path).verdict == "ok"
    assert_exact(path, decode_in_sequence(path))


@pytest.mark.parametrize("name", ["interlaced.mpg", "odd_raw.avi"])
def test_torchcodec_is_near(name: str, tmp_path: Path, write_video: Write, torchcodec_works: None) -> None:
    """In brightness. Colour comes to full size by another filter, but for plain 4:2:0, which shows on these blocks."""
    path = write_video(tmp_path / name, **FORMATS[name])
    ours, theirs = (read_frames(path, [30, 2], backend=each) @ (0.299, 0.587, 0.114) for each in ("pyav", "torchcodec"))
    assert np.abs(ours - theirs).mean() < 1


def test_torchcodec_leaves_deep_colour_to_pyav(tmp_path: Path, write_video: Write, torchcodec_works: None) -> None:
    """Where the two would differ by more than two grey levels; colour of full size they bring out alike."""
    path = write_video(tmp_path / "ten.mkv", **FORMATS["ten_bit_422.mkv"])
    with pytest.raises(VideoError, match=r"ten\.mkv: has colours of more than 8 bits \(yuv422p10le\)"):
        read_frames(path, [0], backend="torchcodec")
    full = write_video(tmp_path / "full.mkv", codec="ffv1", pix_fmt="yuv444p10le", frames=3)
    ours, theirs = (read_frames(full, [2], backend=each).astype(int) for each in ("pyav", "torchcodec"))
    assert np.abs(ours - theirs).mean() < 1


def test_frames_before_an_edit_list_begins_do_not_count(
    tmp_path: Path, write_video: Write, decode_in_sequence: Sequential
) -> None:
    path = write_video(tmp_path / "edited.mp4", pts=[24 * i - 240 for i in range(40)], options={"g": "12", "bf": "2"})
    expected = decode_in_sequence(path)
    assert len(expected) == 30
    assert_exact(path, expected)


@pytest.mark.parametrize("name", ["mpeg2_422.ts", "interlaced.mpg", "odd_mpeg1.mpg"])
@pytest.mark.parametrize("cut", [0.1, 0.26, 0.6])
def test_a_stream_joined_in_the_middle_starts_at_its_first_decodable_frame(
    name: str, cut: float, tmp_path: Path, write_video: Write, decode_in_sequence: Sequential
) -> None:
    whole = write_video(tmp_path / name, **FORMATS[name]).read_bytes()
    path = tmp_path / f"joined{Path(name).suffix}"
    path.write_bytes(whole[int(len(whole) * cut) :])
    expected = decode_in_sequence(path)
    assert 0 < len(expected) < 40
    assert_exact(path, expected)


QUARTERS = {  # clockwise degrees: where pixel (x, y) of a 64 x 48 picture is shown
    0: lambda x, y: (x, y),
    90: lambda x, y: (47 - y, x),
    180: lambda x, y: (63 - x, 47 - y),
    270: lambda x, y: (y, 63 - x),
}
MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("clockwise", QUARTERS)
def test_all_eight_display_matrices_come_out_upright(
    clockwise: int, is_mirrored: bool, tmp_path: Path, write_video: Write, decode_in_sequence: Sequential
) -> None:
    """Mirrored ones too, as cameras that face the user write: first left and right change places, then it turns."""
    path = write_video(tmp_path / "turned.mp4", frames=2, rotation=90)
    (stored, _), content = decode_in_sequence(path), path.read_bytes()
    a, b, c, d = MATRICES[clockwise]
    if is_mirrored:
        a, b = -a, -b
    before = [0, -1, 1, 0]
    assert content.count(_tkhd(*before)) == 1
    path.write_bytes(content.replace(_tkhd(*before), _tkhd(a, b, c, d)))
    place = QUARTERS[clockwise]
    expected = np.zeros((64, 48, 3) if clockwise in (90, 270) else (48, 64, 3), np.uint8)
    for y in range(48):
        for x in range(64):
            column, row = place(63 - x if is_mirrored else x, y)
            expected[row, column] = stored[y, x]
    assert np.array_equal(read_frames(path, [0])[0], expected)


def _tkhd(a: int, b: int, c: int, d: int) -> bytes:
    """The first five numbers of the matrix in a track header: 16.16 fixed point, and 2.30 for the third."""
    return b"".join((n << 16).to_bytes(4, "big", signed=True) for n in (a, b, 0, c, d))


@pytest.mark.parametrize("angle", [0, 90, 180, 270, -90, -180, 88.0])
def test_an_angle_turns_as_its_display_matrix_does(angle: float) -> None:
    """PyAV's angle counts against the clock."""
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(Orientation.from_angle(angle).turn(picture), np.rot90(picture, round(angle / 90)))


def test_frames_with_side_data_that_has_no_name_are_read(tmp_path: Path) -> None:
    """Exif in JPEG, as cameras write into avi."""
    picture, exif = Image.fromarray(np.full((48, 64, 3), 90, np.uint8)), Image.Exif()
    exif[0x0110] = "camera"
    picture.save(tmp_path / "one.jpg", exif=exif)
    path = tmp_path / "camera.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number in range(3):
            packet = av.Packet((tmp_path / "one.jpg").read_bytes())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            output.mux(packet)
    assert probe(path).verdict == "ok"
    assert np.abs(read_frames(path, [2, 0]).astype(int) - 90).max() < 3


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp", "tiff"])
def test_a_picture_is_not_a_video(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path, format=kind)
    facts = probe(path)
    assert (facts.verdict, facts.frames) == ("unreadable", 0)
    assert "is a picture, not a video file" in facts.problem


@pytest.mark.parametrize("name", ["no_frames.mp4", "no_frames.mkv", "no_frames.avi"])
def test_a_file_without_a_frame_is_unreadable(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        output.start_encoding()
    assert (probe(path).verdict, probe(path).frames) == ("unreadable", 0)
    with pytest.raises(VideoError, match=name):
        read_frames(path, [0])


def test_pipes_devices_and_loops_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    for name, reason in {"pipe.mp4": "a pipe", "device.mp4": "a device", "loop.mp4": "no such file"}.items():
        assert probe(tmp_path / name).verdict == "missing"
        with pytest.raises(VideoError, match=reason):
            read_frames(tmp_path / name, [0])


@pytest.mark.parametrize("name", ["a b%03d.mp4", "ünï#?.mp4", "pipe:0.mp4", "concat:x.mp4", "-x.mp4", "data:text.mp4"])
def test_a_name_is_never_taken_for_anything_else(
    name: str, tmp_path: Path, write_video: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "x.mp4", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_frames(name, [1, 0]).shape == (2, 48, 64, 3)
    assert probe(name).frames == 2
