"""Views of many settings from one decode are those that each setting gives alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.core.errors import InputError, VideoError
from bench.core.input_change import InputChange
from bench.core.schema import Clip
from bench.data import pyav_reader
from bench.data.clip_batches import view_batches
from bench.data.clips import Reading
from bench.data.collection import Video, VideoSet
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.data.geometry import Covering, Scaling
from bench.data.shared_views import ViewSetting, shared_views
from bench.data.transforms import normalise
from bench.data.view_rule import ViewRule
from bench.models.base import InputSpec

RULE = ViewRule(
    clip=Clip.model_validate("4x1x16"),
    views=(1, 1),
    crop_rounding="floor",
    sampling="blocks",
    placement="ends",
    short="loop",
)
SIZES = (
    Scaling(size=Covering(height=16, width=16)),
    Scaling(size=20, rounding="round", interpolation="bicubic"),
    Scaling(size=(24, 18), interpolation="nearest"),
    Scaling(size=None),
)
SETTINGS = [
    *(ViewSetting(rule=RULE, reading=Reading(size=size)) for size in SIZES),
    *(
        ViewSetting(rule=replace(RULE, **parts), reading=Reading(size=SIZES[0]))
        for parts in (
            {"views": (3, 3)},
            {"clip": Clip.model_validate("6x2x16"), "crop_rounding": "ceil"},
            {"sampling": "sections"},
            {"changes": (InputChange.parse("reversed"),)},
            {"changes": (InputChange.parse("jpeg:50"),)},
            {"changes": (InputChange.parse("bitrate:0.5"),)},
        )
    ),
]


@pytest.fixture
def videos(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.mp4" for name in ("wide", "tall")]
    for path, (height, width) in zip(paths, [(24, 40), (40, 26)], strict=True):
        write_mp4(path, random.integers(0, 256, (20, height, width, 3), dtype=np.uint8), fps=10, options=HISTORY_FREE)
    files = tuple(Video(id=path.stem, path=path, labels=(0,)) for path in paths)
    return VideoSet(name="made", split="val", classes=("a",), videos=files, hash="h")


def all_views(videos, settings=SETTINGS, **options):
    chunks = shared_views(videos, settings, positions=range(len(videos)), modalities=("rgb",), most=2, **options)
    return [video for chunk in chunks for video in chunk]


def alone(videos, setting):
    """The clips of `view_batches`, as numbers from 0 to 1."""
    rule, inputs = setting.rule, (InputSpec(),)
    return [
        batch.clips[0]
        for batch in view_batches(
            videos,
            clip=rule.clip,
            inputs=inputs,
            views=rule.views,
            mean=(0, 0, 0),
            std=(1, 1, 1),
            batch=1,
            resize=setting.reading.size,
            crop_rounding=rule.crop_rounding,
            sampling=rule.sampling,
            placement=rule.placement,
            short=rule.short,
            changes=rule.changes,
        )
    ]


def test_every_setting_has_the_views_that_it_gives_alone(videos):
    found = all_views(videos)
    assert [video.position for video in found] == [0, 1]
    for number, setting in enumerate(SETTINGS):
        for video, expected in zip(found, alone(videos, setting), strict=True):
            views = torch.from_numpy(video.of_settings[number]["rgb"])
            assert torch.equal(normalise(views, mean=(0, 0, 0), std=(1, 1, 1)), expected)


def test_a_file_is_opened_once_for_all_settings(videos, monkeypatch):
    opened = []
    read = pyav_reader._read_from_start
    monkeypatch.setattr(
        pyav_reader, "_read_from_start", lambda path, *a, **k: opened.append(path) or read(path, *a, **k)
    )
    all_views(videos, SETTINGS[:9])
    assert opened == [video.path for video in videos.videos]


def test_a_setting_that_wants_a_frame_that_cannot_be_read_does_not_spoil_the_others(videos):
    """The annotation claims 40 frames of 20. Alone, the setting chooses its frames from those that exist."""
    claimed = replace(videos, videos=tuple(replace(video, frames=40) for video in videos.videos))
    for number, setting in enumerate(SETTINGS[:6]):
        for video, expected in zip(all_views(claimed, SETTINGS[:6]), alone(claimed, setting), strict=True):
            views = torch.from_numpy(video.of_settings[number]["rgb"])
            assert torch.equal(normalise(views, mean=(0, 0, 0), std=(1, 1, 1)), expected)


def test_an_unreadable_video_and_an_impossible_setting_are_returned_as_errors(videos, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video")
    broken = replace(videos, videos=(videos.videos[0], Video(id="damaged", path=damaged, labels=(0,))))
    too_large = ViewSetting(rule=replace(RULE, clip=Clip.model_validate("4x1x64")), reading=Reading(size=20))
    sound, unread = all_views(broken, [SETTINGS[0], too_large])
    assert sound.of_settings[0]["rgb"].shape == (1, 3, 4, 16, 16)
    assert isinstance(sound.of_settings[1], InputError)
    assert all(isinstance(each, VideoError) for each in unread.of_settings)
