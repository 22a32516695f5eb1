"""Frame i is frame i of a decode from the start, or an error that names it: for every kind of file."""

import csv
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.core.errors import (
    BenchError,
    InputError,
    MissingFrameError,
    MissingPackageError,
    UnknownNameError,
    VideoError,
)
from bench.data import pyav_reader
from bench.data.decode import read_frames
from bench.data.facts import VideoFacts
from bench.data.probing import probe

Frames = list[NDArray[np.uint8]]
Write = Callable[..., Path]
Sequential = Callable[[Path], Frames]

MADE: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": {"g": "12", "bf": "3"}},
    "open_gop.mp4": {"options": {"g": "15", "bf": "3", "x264-params": "open-gop=1"}},
    "intra_refresh.mkv": {"options": {"g": "15", "x264-params": "intra-refresh=1"}},
    "transport.ts": {"options": {"g": "12", "bf": "2"}, "container": "mpegts"},
    "elementary.h264": {"options": {"g": "12", "bf": "2"}, "container": "h264"},
    "divx_b.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "xvid.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "0"}},
    "h264_b.avi": {"options": {"g": "12", "bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=15:bframes=3:log-level=none"}},
    "hevc_open.mkv": {"codec": "libx265", "options": {"x265-params": "keyint=15:open-gop=1:log-level=none"}},
    "ten_bit.mp4": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "options": {"x265-params": "keyint=15:log-level=none"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "15", "deadline": "realtime", "cpu-used": "8"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "raw.avi": {"codec": "rawvideo"},
    "raw_rgb.mov": {"codec": "rawvideo", "pix_fmt": "rgb24"},
    "lossless.mkv": {"codec": "ffv1", "options": {"g": "12"}},
    "odd.mp4": {"size": (47, 63), "pix_fmt": "yuv444p", "options": {"g": "12"}},
    "vfr.mp4": {"pts": np.cumsum(np.arange(40) % 7 * 9 + 1).tolist(), "options": {"g": "12", "bf": "2"}},
    "vfr.mkv": {"pts": np.cumsum(np.arange(40) % 11 * 30 + 20).tolist(), "options": {"g": "12", "bf": "2"}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_video: Write) -> Callable[[str], Path]:
    """The file of that name in `MADE`, written once."""
    folder = tmp_path_factory.mktemp("made")

    def file(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, **MADE[name])

    return file


def assert_exact(path: Path, expected: Frames, facts: VideoFacts | None, *, reads: int = 8) -> None:
    """Scattered, repeated, unordered reads give exactly `expected`; what lies beyond is refused by name."""
    draw = random.Random(0)
    for _ in range(reads):
        indices = [draw.randrange(len(expected)) for _ in range(4)]
        frames = read_frames(path, indices, facts=facts)
        assert all(np.array_equal(got, expected[i]) for got, i in zip(frames, indices, strict=True))
    with pytest.raises(VideoError, match=rf"{path.name}: frame {len(expected)} ") as raised:
        read_frames(path, [0, len(expected)], facts=facts)
    assert isinstance(raised.value, MissingFrameError)
    assert raised.value.frames == len(expected)


@pytest.mark.parametrize("name", MADE)
def test_made_files_are_read_exactly_with_and_without_facts(
    name: str, made: Callable[[str], Path], decode_in_sequence: Sequential
) -> None:
    path = made(name)
    facts, expected = probe(path), decode_in_sequence(path)
    assert (facts.verdict, facts.frames) == ("ok", 40)
    assert (facts.height, facts.width) == expected[0].shape[:2]
    assert_exact(path, expected, facts)
    assert_exact(path, expected, None)


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_rates_keep_the_time_of_every_frame(name: str, made: Callable[[str], Path]) -> None:
    facts = probe(made(name))
    expected = np.array(MADE[name]["pts"]) / 600
    assert facts.times_s() == pytest.approx(expected - expected[0], abs=0.0011)


def test_seeks_are_used_only_if_they_can_be_trusted(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeks: list[bool] = []
    seek = pyav_reader._read_by_seeking

    def counted(*args: Any, **kwargs: Any) -> Any:
        found = seek(*args, **kwargs)
        seeks.append(found is not None)
        return found

    monkeypatch.setattr(pyav_reader, "_read_by_seeking", counted)
    read_frames(made("b_frames.mp4"), [30], facts=probe(made("b_frames.mp4")))
    assert seeks == [True]
    for name in ("divx_b.avi", "transport.ts", "elementary.h264"):
        facts = probe(made(name))
        assert not facts.is_seekable
        read_frames(made(name), [30], facts=facts)
    assert seeks == [True]


def test_facts_of_another_file_do_not_give_wrong_frames(
    made: Callable[[str], Path], decode_in_sequence: Sequential
) -> None:
    lied = replace(probe(made("b_frames.mp4")), keyframe_checksums=(1, 2, 3, 4))
    frames = read_frames(made("b_frames.mp4"), [30], facts=lied)
    assert np.array_equal(frames[0], decode_in_sequence(made("b_frames.mp4"))[30])


@pytest.mark.parametrize(("rotation", "clockwise"), [(90, 270), (-90, 90), (180, 180)])  # PyAV counts against the clock
def test_rotated_files_come_out_upright(
    rotation: int, clockwise: int, tmp_path: Path, write_video: Write, decode_in_sequence: Sequential
) -> None:
    path = write_video(tmp_path / "turned.mp4", rotation=rotation, frames=3)
    stored, facts = decode_in_sequence(path), probe(path)
    upright = np.stack([np.rot90(frame, rotation // 90) for frame in stored])
    assert facts.rotation == clockwise
    assert (facts.height, facts.width) == upright.shape[1:3]
    assert np.array_equal(read_frames(path, range(3)), upright)
    assert read_frames(path, [0], size=24).shape == ((1, 32, 24, 3) if rotation != 180 else (1, 24, 32, 3))


@pytest.mark.parametrize(
    ("size", "shape"), [(24, (24, 32)), ((20, 30), (20, 30)), (96, (96, 128)), ((1, 1), (1, 1)), (None, (48, 64))]
)
def test_size_is_the_short_side_or_height_and_width(
    size: Any, shape: tuple[int, int], made: Callable[[str], Path]
) -> None:
    assert read_frames(made("xvid.avi"), [3, 1], size=size).shape == (2, *shape, 3)


def test_scaled_frames_are_those_of_a_scaled_decode_in_sequence(made: Callable[[str], Path]) -> None:
    path = made("b_frames.mp4")
    whole = read_frames(path, range(40), size=20)
    assert np.array_equal(read_frames(path, [33, 7, 33], size=20, facts=probe(path)), whole[[33, 7, 33]])


def test_no_indices_give_no_frames_of_the_right_size(made: Callable[[str], Path]) -> None:
    assert read_frames(made("xvid.avi"), [], size=24).shape == (0, 24, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"indices": [-1]}, VideoError, "frame -1 does not exist; frames count from 0"),
        ({"indices": [1.5]}, InputError, "whole numbers"),
        ({"indices": [0], "size": 0}, InputError, "size 0"),
        ({"indices": [0], "size": (1, 2, 3)}, InputError, "size"),
        ({"indices": [0], "backend": "pyavv"}, UnknownNameError, "did you mean: pyav"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[BenchError], message: str, made: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        read_frames(made("xvid.avi"), **arguments)


def test_files_that_are_no_video_are_unreadable(tmp_path: Path, write_video: Write) -> None:
    sound = write_video(tmp_path / "sound.mp4").read_bytes()
    moov = sound.rindex(b"moov")
    hostile = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 99,
        "text.txt": b"this is no video\n" * 99,
        "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
        "no_moov.mp4": sound[: moov - 4],
        "playlist.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for name, content in hostile.items():
        path = tmp_path / name
        path.write_bytes(content)
        facts = probe(path)
        assert (facts.verdict, facts.frames) == ("unreadable", 0), name
        assert name in facts.problem
        with pytest.raises(VideoError, match=name):
            read_frames(path, [0])
    assert probe(tmp_path / "nothing.mp4").verdict == "missing"
    with pytest.raises(VideoError, match="no such file"):
        read_frames(tmp_path / "nothing.mp4", [0])


def test_a_file_with_only_sound_is_named(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    facts = probe(path)
    assert facts.verdict == "unreadable"
    assert "has no video stream; found: audio" in facts.problem


@pytest.mark.parametrize("name", ["b_frames.mp4", "vfr.mkv", "xvid.avi", "transport.ts"])
@pytest.mark.parametrize("share", [0.7, 0.85])
def test_a_cut_file_gives_the_frames_that_are_left(
    name: str, share: float, made: Callable[[str], Path], tmp_path: Path, decode_in_sequence: Sequential
) -> None:
    whole = made(name).read_bytes()
    if name.endswith(".mp4"):  # the index comes last in this one: put it first, as downloads have it
        whole = _index_first(made(name), tmp_path)
    path = tmp_path / f"cut{Path(name).suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    facts, expected = probe(path), decode_in_sequence(path)
    assert 0 < facts.frames == len(expected) < 40
    if not name.endswith(".ts"):  # a transport stream may end anywhere
        assert facts.verdict.startswith("damaged after frame")
        assert path.name in facts.problem
    assert_exact(path, expected, facts)


def _index_first(path: Path, folder: Path) -> bytes:
    import av

    moved = folder / f"moved{path.suffix}"
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved.read_bytes()


def test_the_frame_size_may_change_if_one_size_is_requested(tmp_path: Path, write_video: Write) -> None:
    small, large = (
        write_video(tmp_path / f"{h}.ts", size=(h, w), frames=10, container="mpegts") for h, w in ((48, 64), (96, 128))
    )
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames = probe(path).frames
    assert read_frames(path, [0, frames - 1], size=(20, 30)).shape == (2, 20, 30, 3)
    with pytest.raises(VideoError, match=r"frame \d+ is 96x128 but frame 0 is 48x64"):
        read_frames(path, [0, frames - 1])


def test_torchcodec_reads_the_same_frames_or_names_what_is_missing(made: Callable[[str], Path]) -> None:
    path = made("b_frames.mp4")
    try:
        frames = read_frames(path, [30, 2], backend="torchcodec")
    except MissingPackageError:
        pytest.skip("torchcodec or FFmpeg's shared libraries are not installed")
    expected = read_frames(path, [30, 2])
    assert np.abs(frames.astype(int) - expected.astype(int)).mean() < 2


@pytest.mark.gpu
def test_the_decoder_of_a_gpu_reads_the_same(made: Callable[[str], Path], torchcodec_works: None) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that torch can use")
    path = made("b_frames.mp4")
    whole = read_frames(path, range(40), backend="nvdec")
    assert np.array_equal(read_frames(path, [30, 2, 30], backend="nvdec", facts=probe(path)), whole[[30, 2, 30]])
    assert np.abs(whole.astype(int) - read_frames(path, range(40))).mean() < 2


def test_decoding_on_a_missing_gpu_is_refused(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"'nvdec' needs an NVIDIA GPU .*allowed here: auto, pyav, torchcodec"):
        read_frames(made("b_frames.mp4"), [0], backend="nvdec")


def test_decoding_damaged_files_writes_nothing_to_the_terminal(made: Callable[[str], Path], tmp_path: Path) -> None:
    whole = bytearray(made("b_frames.mp4").read_bytes())
    for at in range(800, len(whole) - 1500, 301):
        whole[at] ^= 0xFF
    path = tmp_path / "rot.mp4"
    path.write_bytes(whole)
    code = f"from bench.data.probing import probe; assert probe({str(path)!r}).verdict != 'ok'"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def damage(whole: bytes, other: bytes, *, kind: str, places: list[float], count: int) -> bytes:
    """`whole` cut, spliced with `other`, or with `count` bits turned, at `places` from 0 to 1."""
    at = [int(place * (len(whole) - 1)) for place in places]
    if kind == "cut":
        return whole[: at[0]]
    if kind == "splice":
        return whole[: at[0]] + other[int(places[1] * len(other)) :]
    if kind == "insert":
        return whole[: at[0]] + other[:count] + whole[at[0] :]
    turned = bytearray(whole)
    for i in range(count):
        turned[(at[i % len(at)] + 97 * i) % len(turned)] ^= 1 << (i % 8)
    return bytes(turned)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.sampled_from(["b_frames.mp4", "xvid.avi", "divx_b.avi", "vfr.mkv", "hevc.mp4"]), min_size=2, max_size=2
    ),
    kind=st.sampled_from(["cut", "splice", "insert", "turn"]),
    places=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    count=st.integers(1, 60),
)
def test_damage_of_any_kind_gives_right_frames_or_an_error(
    names: list[str],
    kind: str,
    places: list[float],
    count: int,
    made: Callable[[str], Path],
    tmp_path: Path,
    decode_in_sequence: Sequential,
) -> None:
    path = tmp_path / f"damaged{Path(names[0]).suffix}"
    path.write_bytes(
        damage(made(names[0]).read_bytes(), made(names[1]).read_bytes(), kind=kind, places=places, count=count)
    )
    facts, expected = probe(path), decode_in_sequence(path)
    assert facts.frames == len(expected)
    assert (facts.verdict == "unreadable") == (not expected)
    draw = random.Random(0)
    for known in (facts, None, None):
        index = draw.randrange(len(expected) + 2)
        if index >= len(expected):
            with pytest.raises(VideoError, match=path.name):
                read_frames(path, [index], facts=known)
        else:
            (frame,) = read_frames(path, [index], facts=known)
            assert facts.rotation or np.array_equal(frame, expected[index])


CLIPS = [
    "dc_corrupted.mp4", "dc_flipping_a_pancake.mkv", "dc_video_0.mov", "dc_video_90.mov", "mma_demo.mp4",
    "mma_test.avi", "mma_test.mp4", "ntu_S001.avi", "tc_av1_video.mkv", "tc_bt709_full_range.mp4",
    "tc_h264_10bits.mp4", "tv_R6llTwEh07w.mp4", "tv_SOX5yA1l24A.mp4",
    "tv_SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi", "tv_TrumanShow_wave_f_nm_np1_fr_med_26.avi",
    "tv_v_SoccerJuggling_g23_c01.avi", "tv_v_SoccerJuggling_g24_c01.avi", "vf_v_ZNVhz7ctTq0.mp4",
]  # fmt: skip


QUICK = ("dc_video", "dc_corrupted", "tc_h264", "tv_TrumanShow", "tv_SchoolRules", "tv_v_SoccerJuggling_g23")
SORTED_CLIPS = [pytest.param(name, marks=() if name.startswith(QUICK) else pytest.mark.slow, id=name) for name in CLIPS]


@pytest.mark.parametrize("name", SORTED_CLIPS)
def test_every_real_clip_has_the_facts_of_its_manifest(name: str, clips: Path) -> None:
    rows = csv.DictReader((clips / "manifest.csv").read_text().splitlines())
    row = next(row for row in rows if row["file"] == name)
    facts = probe(clips / name)
    upright = (facts.height, facts.width)
    assert facts.frames == int(row["decoded_frames"])
    assert facts.claimed_frames == int(row["container_frames"])
    assert (upright[::-1] if facts.rotation in (0, 180) else upright) == (int(row["width"]), int(row["height"]))
    assert (facts.pix_fmt, facts.bytes) == (row["pix_fmt"], int(row["bytes"]))
    assert facts.is_ok == (not row["note"])
    assert facts.fps == pytest.approx(float(row["avg_fps"]), rel=1e-3)


def test_the_manifest_names_no_clip_that_is_not_tested(clips: Path) -> None:
    assert {row["file"] for row in csv.DictReader((clips / "manifest.csv").read_text().splitlines())} == set(CLIPS)


@pytest.mark.parametrize("name", SORTED_CLIPS)
def test_every_real_clip_is_read_exactly(name: str, clips: Path, decode_in_sequence: Sequential) -> None:
    path = clips / name
    facts, stored = probe(path), decode_in_sequence(path)
    expected = [np.rot90(frame, -facts.rotation // 90) for frame in stored]
    assert_exact(path, expected, facts, reads=4)
    assert_exact(path, expected, None, reads=4)


def test_the_damaged_real_clip_keeps_its_sound_frames(clips: Path) -> None:
    path = clips / "dc_corrupted.mp4"
    assert probe(path).verdict == "damaged after frame 27"
    assert read_frames(path, [27, 0], size=64).shape == (2, 64, 113, 3)
    with pytest.raises(MissingFrameError, match="frame 28 cannot be decoded; damaged after frame 27"):
        read_frames(path, [3, 28])


def test_full_range_colours_are_not_stretched(clips: Path) -> None:
    """BT.709 by its own matrix, from the stored planes."""
    import av

    path = clips / "tc_bt709_full_range.mp4"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    y, u, v = (
        np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].astype(float) for p in frame.planes
    )
    u, v = (plane.repeat(2, 0).repeat(2, 1) - 128 for plane in (u, v))
    red, blue = y + 2 * (1 - 0.2126) * v, y + 2 * (1 - 0.0722) * u
    green = (y - 0.2126 * red - 0.0722 * blue) / (1 - 0.2126 - 0.0722)
    expected = np.stack([red, green, blue], -1).clip(0, 255)
    assert np.abs(read_frames(path, [0])[0] - expected).mean() < 1
