"""The stages of the loader, timed by a fake clock."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.core.schema import Clip
from bench.data.collection import VideoSet, open_dataset
from bench.data.loading_stages import time_stages
from bench.data.transforms import Augmentation


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    root: Path = tmp_path_factory.mktemp("data") / "motions"
    return open_dataset(
        "motions", root=root, split="val", clips_per_class=1, val_clips_per_class=1, frames=8, size=16, classes=2
    )


class Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_lanes_add_up_and_give_the_number_of_workers_needed(videos: VideoSet) -> None:
    times = time_stages(
        videos,
        clip=Clip.model_validate("4x1x8"),
        augmentation=Augmentation(),
        batch=2,
        clips=6,
        wanted_clips_per_s=2.0,
        clock=Clock(),
    )
    assert times.clips == 6
    assert (times.ms["decode"], times.ms["transform"], times.ms["collate"]) == (1000.0, 1000.0, 500.0)
    assert times.clips_per_s == pytest.approx(0.4)
    assert times.workers_for_wanted == 5


def test_a_set_without_videos_cannot_be_timed(videos: VideoSet) -> None:
    with pytest.raises(InputError, match="holds no videos"):
        time_stages(replace(videos, videos=()), clip=Clip.model_validate("4x1x8"), augmentation=Augmentation())
