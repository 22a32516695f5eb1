"""Held-out validation videos: whole groups, a share of every class, the same for the same ids."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.data.collection import Video, VideoSet, video_set
from bench.data.leakage import find_leaks, hold_out


def ucf(groups: int, clips: int, classes: int = 3) -> VideoSet:
    """`classes` of `groups` recordings with `clips` clips each, named as UCF-101 names them."""
    names = [
        (f"v_Class{label}_g{group:02d}_c{clip:02d}", label)
        for label in range(classes)
        for group in range(groups)
        for clip in range(clips)
    ]
    videos = [Video(id=name, path=Path(f"/data/{name}.avi"), labels=(label,), sha256=name) for name, label in names]
    return video_set("ucf101", "train1", classes=[f"Class{n}" for n in range(classes)], videos=videos, root=None)


@given(groups=st.integers(2, 12), clips=st.integers(1, 5), share=st.floats(0.1, 0.6))
def test_no_recording_is_on_both_sides_and_nothing_is_lost(groups: int, clips: int, share: float) -> None:
    videos = ucf(groups, clips)
    try:
        train, val = hold_out(videos, share=share)
    except InputError:
        assert round(share * groups * clips) < clips  # not even one whole group fits
        return
    assert find_leaks(train, val) == ()
    assert {v.id for v in train.videos} | {v.id for v in val.videos} == {v.id for v in videos.videos}
    for label in range(3):
        held = sum(video.labels == (label,) for video in val.videos)
        assert held <= round(share * groups * clips)
        assert held > round(share * groups * clips) - clips
        assert any(video.labels == (label,) for video in train.videos)


def test_the_split_depends_on_ids_and_seed_only() -> None:
    videos = ucf(8, 2)
    again = video_set("ucf101", "train1", classes=videos.classes, videos=videos.videos[::-1], root=None)
    held = {video.id for video in hold_out(videos, share=0.25)[1].videos}
    assert held == {video.id for video in hold_out(again, share=0.25)[1].videos}
    assert held != {video.id for video in hold_out(videos, share=0.25, seed=1)[1].videos}
    assert hold_out(videos, share=0.25)[0].hash != videos.hash


def test_what_cannot_be_held_out_is_an_error() -> None:
    with pytest.raises(InputError, match="leaves nothing to validate on"):
        hold_out(ucf(1, 5), share=0.5)
    with pytest.raises(InputError, match="above 0 and below 1, found 1"):
        hold_out(ucf(4, 1), share=1.0)
