"""Prepared videos show the same frames, appear whole or not at all, and a second run does only what is left."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import InputError, MissingPackageError, UnknownNameError, VideoError
from bench.core.files import _machine
from bench.data import prepare
from bench.data.decode import read_frames
from bench.data.frame_folder import read_flow
from bench.data.prepare import Prepared, prepare_frames, prepare_reencoded
from bench.data.prepare_flow import as_bytes, flow_method, prepare_flow
from bench.data.probing import probe

Write = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path, write_video: Write) -> Path:
    """A rotated video, one of variable rate, and something that is none."""
    root = tmp_path / "source" / "train"
    (root / "c").mkdir(parents=True)
    write_video(root / "c" / "turned.mp4", frames=12, rotation=-90)
    write_video(root / "c" / "vfr.mkv", frames=20, pts=[i * i * 10 for i in range(20)], options={"bf": "2"})
    (root / "c" / "broken.avi").write_bytes(b"no video")
    return root


def test_frame_folders_hold_every_frame_upright_at_their_short_side(source: Path, tmp_path: Path) -> None:
    done = prepare_frames(source, tmp_path / "frames", short_side=24)
    assert (done.written, done.skipped, [failed.what for failed in done.failed]) == (2, 0, ["c/broken.avi"])
    folder = tmp_path / "frames/c/turned"
    assert sorted(path.name for path in folder.iterdir())[:2] == ["image_00001.jpg", "image_00002.jpg"]
    expected = read_frames(source / "c/turned.mp4", range(12), size=24)
    assert expected.shape == (12, 32, 24, 3)
    brightness = [frames @ (0.299, 0.587, 0.114) for frames in (read_frames(folder, range(12)), expected)]
    assert np.abs(brightness[0] - brightness[1]).mean() < 4  # colour is stored at half size, which blurs these blocks
    assert probe(folder).frames == 12


def test_a_second_run_prepares_only_the_rest(source: Path, tmp_path: Path) -> None:
    prepare_frames(source, tmp_path / "frames", short_side=24)
    done = prepare_frames(source, tmp_path / "frames", short_side=24)
    assert (done.written, done.skipped, len(done.failed)) == (0, 2, 1)


@pytest.mark.parametrize("prepare_", [prepare_frames, prepare_reencoded], ids=["frames", "reencode"])
def test_a_target_inside_the_source_is_not_read(prepare_: Callable[..., Prepared], source: Path) -> None:
    for skipped in (0, 2, 2):
        done = prepare_(source, source / "target", short_side=24)
        assert (done.written, done.skipped, len(done.failed)) == (2 - skipped, skipped, 1)
    assert not (source / "target" / "target").exists()
    (source.parent / "link").symlink_to(source / "target")
    assert prepare_(source, source.parent / "link", short_side=24).skipped == 2
    with pytest.raises(InputError, match="is the folder of the videos itself"):
        prepare_(source, source / "target" / "..", short_side=24)


def test_leftovers_of_killed_runs_are_removed_and_files_of_others_stay(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "c"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    machine = _machine()
    names = [f"{machine}-{int(ended.stdout)}", f"{machine}-{os.getpid()}", f"elsewhere-{int(ended.stdout)}"]
    for name in names:
        (folder / f".unfinished-{name}-abcdefgh").mkdir(parents=True)
        (folder / f".unfinished-{name}-abcdefgh" / "image_00001.jpg").write_bytes(b"x")
        (folder / f".unfinished-{name}-ijklmnop.mp4").write_bytes(b"x")
    prepare_frames(source, tmp_path / "frames", short_side=24)
    left = {path.name.split("-", 1)[1].rpartition("-")[0] for path in folder.glob(".unfinished-*")}
    assert left == set(names[1:])


def test_a_killed_run_leaves_nothing_for_ever(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "c"
    folder.mkdir(parents=True)
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.core.files import atomic_file, atomic_folder\n"
        "with atomic_file(Path(sys.argv[1], 'x.mp4')), atomic_folder(Path(sys.argv[1], 'y')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert len(list(folder.glob(".unfinished-*"))) == 2
    prepare_frames(source, tmp_path / "frames", short_side=24)
    assert sorted(path.name for path in folder.iterdir()) == ["turned", "vfr"]


def test_unfinished_output_does_not_appear(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = prepare.every_frame

    def dying(path: Path, **options: object) -> object:
        for number, frame in enumerate(frames(path, **options)):  # type: ignore[arg-type]
            if number == 5:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(prepare, "every_frame", dying)
    for run in (prepare_frames, prepare_reencoded):
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "target", short_side=24)
        assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []


def test_reencoded_files_keep_frames_and_times_and_seek_quickly(source: Path, tmp_path: Path) -> None:
    done = prepare_reencoded(source, tmp_path / "quick")
    assert (done.written, [failed.what for failed in done.failed]) == (2, ["c/broken.avi"])
    before, after = probe(source / "c/vfr.mkv"), probe(tmp_path / "quick/c/vfr.mp4")
    assert (after.verdict, after.frames, after.has_b_frames, after.codec) == ("ok", 20, False, "h264")
    assert after.times_s() == pytest.approx(before.times_s(), abs=0.002)
    assert list(after.keyframes) == [0, 8, 16]
    original, again = (read_frames(p, range(20)) for p in (source / "c/vfr.mkv", tmp_path / "quick/c/vfr.mp4"))
    assert np.abs(original.astype(int) - again).mean() < 4
    turned = probe(tmp_path / "quick/c/turned.mp4")
    assert (turned.height, turned.width, turned.rotation) == (64, 48, 0)


def test_videos_that_would_share_a_place_are_refused(source: Path, tmp_path: Path, write_video: Write) -> None:
    write_video(source / "c" / "vfr.mp4", frames=3)
    with pytest.raises(InputError, match=r"vfr\.mkv and c/vfr\.mp4 would both become"):
        prepare_frames(source, tmp_path / "frames")


def test_flow_is_clipped_to_twenty_pixels_and_centred() -> None:
    flow = np.array([[-30, -20, 0, 10, 20, 30]], np.float32)
    assert as_bytes(flow).tolist() == [[0, 0, 128, 191, 255, 255]]


def test_flow_finds_the_motion_or_names_the_missing_package(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean: farneback"):
        prepare_flow(source, tmp_path / "flow", method="farnebeck")  # type: ignore[arg-type]
    try:
        flow_method("farneback")
    except MissingPackageError as error:
        pytest.skip(str(error))
    prepare_flow(source, tmp_path / "flow", method="farneback")
    flow = read_flow(tmp_path / "flow/c/vfr", range(19), size=None)
    assert flow.shape == (19, 48, 64, 2)
    assert np.median(flow[..., 0]) > np.median(flow[..., 1]) > 127


def test_frames_of_folders_are_read_exactly_and_damage_is_named(source: Path, tmp_path: Path) -> None:
    prepare_frames(source, tmp_path / "frames", short_side=24)
    folder = tmp_path / "frames/c/vfr"
    whole = read_frames(folder, range(20), size=12)
    assert np.array_equal(read_frames(folder, [7, 19, 7], size=12), whole[[7, 19, 7]])
    with pytest.raises(VideoError, match="frame 20 does not exist; the folder has 20 frames"):
        read_frames(folder, [20])
    (folder / "image_00011.jpg").write_bytes((folder / "image_00011.jpg").read_bytes()[:200])
    assert probe(folder).verdict == "damaged after frame 9"
    with pytest.raises(VideoError, match=r"frame 10 \(image_00011.jpg\) cannot be decoded"):
        read_frames(folder, [10])
    (folder / "image_00011.jpg").unlink()
    with pytest.raises(VideoError, match="frame 10 is missing"):
        read_frames(folder, [10])
