"""Each change of the input, on values worked out by hand."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from bench.core.errors import InputError, MissingPackageError
from bench.core.input_change import InputChange, read_changes
from bench.core.registry import CHANGES
from bench.core.schema import Clip
from bench.data.changes.reading import lower_bitrate
from bench.data.clip_batches import view_batches
from bench.data.clips import ClipReader
from bench.data.collection import Video, VideoSet, open_dataset
from bench.data.encode import write_mp4
from bench.data.frame_sampling import Part
from bench.data.probing import probe
from bench.data.view_rule import change_generator, require_decoders
from bench.models.base import InputSpec

PART = Part(first=100, frames=12, fps=10)
CLIP = (102, 104, 106, 108)


def order(text, frames=CLIP, part=PART, id_="v"):
    change = InputChange.parse(text)
    return change.entry.function(frames, part=part, value=change.value, random=change_generator(id_, change))


def pixels(text, frames_THWC, id_="v"):
    change = InputChange.parse(text)
    return change.entry.function(frames_THWC, value=change.value, random=change_generator(id_, change))


@pytest.fixture
def frames_THWC():  # noqa: N802  # the shape suffix is meant
    return np.random.default_rng(3).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)


def test_frames_are_reversed_frozen_or_reduced_to_one():
    assert order("reversed") == (108, 106, 104, 102)
    assert order("frozen") == (102, 102, 102, 102)
    assert order("frozen:0.5") == (102, 104, 104, 104)
    assert order("frozen:0") == CLIP
    assert order("single_frame") == (106, 106, 106, 106)


def test_a_lower_rate_holds_each_kept_frame():
    every = tuple(range(100, 112))
    assert order("fps:0.5", every) == (100, 100, 102, 102, 104, 104, 106, 106, 108, 108, 110, 110)
    assert order("fps:0.25", every) == (100, 100, 100, 100, 104, 104, 104, 104, 108, 108, 108, 108)
    assert order("fps:1", every) == every


def test_shuffling_keeps_the_frames_and_depends_on_the_video():
    long = tuple(range(100, 112))
    assert sorted(order("shuffled", long)) == list(long)
    assert order("shuffled", long) == order("shuffled", long) != order("shuffled", long, id_="w")


def test_a_lost_frame_shows_the_last_one_that_arrived():
    long = Part(first=100, frames=1000)
    shown = order("drop_frames:0.3", tuple(range(100, 1100)), long)
    held = [now == before for before, now in pairwise(shown)]
    assert 0.25 < np.mean(held) < 0.35
    assert all(frame <= real for frame, real in zip(shown, range(100, 1100), strict=True))
    assert order("drop_frames:0") == CLIP
    assert order("drop_frames:1") == (100, 100, 100, 100)


def test_overlapping_clips_of_a_video_lose_the_same_frames():
    long = Part(frames=64)
    first, second = order("drop_frames", tuple(range(32)), long), order("drop_frames", tuple(range(16, 48)), long)
    assert first[16:] == second[:16]


@given(st.integers(1, 40), st.integers(0, 30), st.sampled_from([entry.name for entry in CHANGES]))
def test_a_change_of_order_shows_frames_of_the_part_only(frames, first, name):
    if CHANGES.get(name).stage != "order":
        return
    part = Part(first=first, frames=frames)
    clip = tuple(range(first, first + frames))
    found = order(name, clip, part)
    assert len(found) == frames
    assert set(found) <= set(clip)


def test_brightness_contrast_gamma_and_grey_follow_their_formulas():
    frame = np.array([[[[10, 200, 90], [250, 0, 40]]]], dtype=np.uint8)
    assert pixels("brightness:0.5", frame).ravel().tolist() == [5, 100, 45, 125, 0, 20]
    assert pixels("brightness:2", frame).ravel().tolist() == [20, 255, 180, 255, 0, 80]
    mean = 590 / 6
    wanted = [round((value - mean) * 0.5 + mean) for value in (10, 200, 90, 250, 0, 40)]
    assert pixels("contrast:0.5", frame).ravel().tolist() == wanted
    assert pixels("gamma:2", frame).ravel().tolist() == [round(v * v / 255) for v in (10, 200, 90, 250, 0, 40)]
    assert pixels("grayscale", frame)[0, 0, 0].tolist() == [round(0.299 * 10 + 0.587 * 200 + 0.114 * 90)] * 3
    assert pixels("rgb_to_bgr", frame)[0, 0, 0].tolist() == [90, 200, 10]
    assert pixels("mirrored", frame)[0, 0, 0].tolist() == [250, 0, 40]


def test_the_static_picture_is_the_median_over_time(frames_THWC):
    found = pixels("static_bias", frames_THWC)
    assert (found == np.median(frames_THWC, axis=0).astype(np.uint8)).all()


def test_noise_has_the_wanted_deviation():
    grey = np.full((8, 64, 64, 3), 128, dtype=np.uint8)
    noisy = pixels("noise:0.1", grey)
    assert noisy.std() == pytest.approx(25.5, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.3)
    assert (pixels("noise:0", grey) == grey).all()


def test_blur_is_that_of_an_independent_filter():
    frame = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    wanted = frame.astype(float)
    for axis in (1, 2):
        wanted = gaussian_filter1d(wanted, 2, axis=axis, mode="mirror", truncate=3)
    assert np.abs(pixels("blur:2", frame) - wanted).max() <= 1


def test_jpeg_is_that_of_an_independent_encoder():
    """Of a smooth picture: in noise, decoders round colours differently."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(float)
    frame = np.clip(128 + 8 * (gaussian_filter(noise, (4, 4, 0)) - 128), 0, 255).astype(np.uint8)
    (changed,) = pixels("jpeg:30", frame[None])
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "jpeg", quality=30, subsampling=0)
    wanted = np.asarray(Image.open(file)).astype(int)
    assert np.abs(wanted - changed).mean() < 0.2 * np.abs(wanted - frame).mean()


def test_a_box_hides_its_share_of_the_picture():
    white = np.full((2, 100, 100, 3), 255, dtype=np.uint8)
    hidden = pixels("occluded:0.25", white)[..., 0] == 127
    assert hidden.mean() == 0.25
    assert (hidden[0] == hidden[1]).all()


@pytest.mark.parametrize("name", [entry.name for entry in CHANGES if entry.stage == "pixels"])
def test_a_change_of_pixels_keeps_shape_type_and_its_input(name, frames_THWC):
    before = frames_THWC.copy()
    found = pixels(name, frames_THWC)
    assert (found.shape, found.dtype) == (before.shape, np.uint8)
    assert (frames_THWC == before).all()
    assert (pixels(name, frames_THWC) == found).all()


# In the loader --------------------------------------------------------------------------------------------------------

OPTIONS = {"clip": Clip.model_validate("4x1x32"), "inputs": (InputSpec(),), "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "motions"
    return open_dataset(
        "motions", root=root, split="val", clips_per_class=1, val_clips_per_class=2, frames=8, size=32, classes=2
    )


def loaded(videos, *texts, **options):
    """The clips (videos, changes, views, C, T, H, W) of a pass, by their own decoding of each change."""
    changes = tuple(InputChange.parse(text) for text in texts)
    batches = list(view_batches(videos, batch=3, views=(2, 1), changes=changes, **OPTIONS, **options))
    clips = np.concatenate([batch.clips[0].numpy() for batch in batches])
    return clips.reshape(len(videos), len(texts), 2, *clips.shape[1:])


def test_changes_share_a_decode_and_equal_their_own(videos):
    names = ["none", "reversed", "noise:0.1", "static_bias", "drop_frames:0.3", "rgb_to_bgr"]
    together = loaded(videos, *names)
    for number, name in enumerate(names):
        assert (together[:, number] == loaded(videos, name)[:, 0]).all(), name
    assert (together[:, 1] == together[:, 0, :, :, ::-1]).all()
    assert (together[:, 5] == together[:, 0, :, ::-1]).all()


def test_worker_processes_change_clips_alike(videos):
    names = ["none", "shuffled", "noise:0.2", "occluded:0.25"]
    assert (loaded(videos, *names) == loaded(videos, *names, workers=1)).all()


def test_a_change_of_the_scaling_decodes_with_another_filter(videos):
    options = {"resize": 20}
    OPTIONS_20 = {**OPTIONS, "clip": Clip.model_validate("4x1x20")}
    clips = {}
    for text in ("none", "resize:nearest", "resize:bilinear", "resize:no_antialias"):
        batches = view_batches(videos, batch=4, changes=(InputChange.parse(text),), **OPTIONS_20, **options)
        clips[text] = np.concatenate([batch.clips[0].numpy() for batch in batches])
    assert (clips["none"] == clips["resize:bilinear"]).all()
    assert (clips["none"] != clips["resize:nearest"]).any()
    assert (clips["none"] != clips["resize:no_antialias"]).any()


def test_a_lower_bit_rate_makes_smaller_files_with_the_same_frames(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a.mp4", frames, fps=12, options={"qp": "10"})
    lower_bitrate(tmp_path / "a.mp4", tmp_path / "b.mp4", value=0.1)
    before, after = (probe(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert after.frames == before.frames == 24
    assert after.bytes < 0.3 * before.bytes


def test_a_changed_file_is_read_like_the_part_of_its_source(tmp_path):
    """The annotation gives a part in seconds; the changed file must show the same frames."""
    flat = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None, None], 32, axis=1)
    frames = np.broadcast_to(flat, (24, 32, 32, 3)).copy()
    write_mp4(tmp_path / "a.mp4", frames, fps=12, options={"qp": "0"})
    video = Video(id="a", path=tmp_path / "a.mp4", labels=(0,), start_s=1.0, end_s=1.5)
    changed = VideoSet(name="x", split="val", classes=("a",), videos=(video,))
    clips = []
    for text in ("none", "bitrate:0.9"):
        (batch,) = view_batches(changed, batch=1, changes=(InputChange.parse(text),), **OPTIONS)
        clips.append(255 * batch.clips[0].numpy())
    assert np.abs(clips[0] - clips[1]).mean() < 4
    (source,) = ClipReader().read(video, lambda part: [tuple(range(part.first, part.first + 4))])
    assert np.abs(source["rgb"].mean((1, 2, 3)) - np.array([120, 130, 140, 150])).max() < 4


def test_a_plug_in_can_add_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos):
    source = (
        "from bench import register_change\n\n"
        "@register_change('inverted_for_test', stage='pixels')\n"
        "def inverted(frames_THWC, *, value, random):\n"
        "    'Black is white.'\n"
        "    return 255 - frames_THWC\n"
    )
    (tmp_path / "inverting_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(CHANGES, "_entries", dict(CHANGES._all()))
    __import__("inverting_plugin")
    found = loaded(videos, *map(str, read_changes(["inverted_for_test"])))
    assert np.allclose(found[:, 0] + found[:, 1], 1)


def test_a_decoder_that_does_not_work_here_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="'nvdec' needs an NVIDIA GPU"):
        require_decoders(read_changes(["jpeg:30", "decoder:nvdec"]))
    monkeypatch.setattr("bench.data.torchcodec_reader._decoder_class", missing_torchcodec)
    with pytest.raises(MissingPackageError, match="needs torchcodec, which is not installed"):
        require_decoders(read_changes(["decoder:torchcodec"]))
    require_decoders(read_changes(["decoder:pyav", "resize:nearest", "bitrate:0.1", "reversed"]))


def missing_torchcodec():
    raise MissingPackageError(
        "torchcodec", needed_for="decoding backend 'torchcodec'", install="pip install torchcodec"
    )
