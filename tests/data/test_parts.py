"""Parts of videos: the annotated frames and no others, out of files and frame folders, indexed or not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import DatasetError, InputError, VideoError
from bench.data.clips import ClipReader, part_at, part_of
from bench.data.collection import VideoSet, open_dataset
from bench.data.decode import read_frames
from bench.data.frame_sampling import Part
from bench.data.index import index_folder
from bench.data.prepare import prepare_frames

Write = Callable[..., Path]
OpenWith = Callable[..., VideoSet]


@pytest.fixture
def root(tmp_path: Path, write_video: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty frames at 25 per second, as `mp4/v_abc.mp4` and as the folder `jpg/v_abc`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mp4").mkdir()
    write_video(tmp_path / "mp4" / "v_abc.mp4", size=(16, 16))
    prepare_frames(tmp_path / "mp4", tmp_path / "jpg", short_side=16)
    return tmp_path


@pytest.fixture
def activitynet(root: Path) -> OpenWith:
    def opened(*, videos: str, fps: object = None, rate: float | None = None) -> VideoSet:
        """With `fps` in the entry and `rate` as option."""
        entry = {"subset": "training", "annotations": [{"segment": [0.4, 0.8], "label": "a"}]}
        content = {"database": {"abc": entry if fps is None else {**entry, "fps": fps}}}
        (root / "activitynet.json").write_text(json.dumps(content))
        return open_dataset("activitynet", root=root, split="train", videos=videos, fps=rate)

    return opened


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("by", ["annotation", "option"])
def test_seconds_of_a_frame_folder_are_counted_by_the_rate_that_is_given(
    by: str, is_indexed: bool, root: Path, activitynet: OpenWith
) -> None:
    if is_indexed:
        index_folder(root)
    videos = activitynet(videos="jpg", fps=25.0) if by == "annotation" else activitynet(videos="jpg", rate=25.0)
    (video,) = videos.videos
    assert (video.facts is not None, video.path.is_dir()) == (is_indexed, True)
    assert part_of(video) == Part(first=10, frames=10, fps=25.0)
    (clip,) = ClipReader().read(video, lambda part: [(part.first, part.first + part.frames - 1)])
    assert np.array_equal(clip["rgb"], read_frames(root / "jpg/v_abc", [10, 19]))


def test_the_annotated_rate_is_that_of_its_video_and_the_option_serves_the_others(activitynet: OpenWith) -> None:
    assert part_of(activitynet(fps=12.5, rate=25.0, videos="jpg").videos[0]) == Part(first=5, frames=5, fps=12.5)
    assert activitynet(videos="jpg").videos[0].fps is None


@pytest.mark.parametrize("is_indexed", [False, True])
def test_seconds_of_a_frame_folder_without_a_rate_are_refused_with_a_remedy(
    is_indexed: bool, root: Path, activitynet: OpenWith
) -> None:
    if is_indexed:
        index_folder(root)
    with pytest.raises(InputError, match="needs the rate of the video; put fps into its annotation"):
        part_of(activitynet(videos="jpg").videos[0])
    with pytest.raises(InputError, match="none is known"):
        part_at((), fps=None, start_s=1.0, end_s=2.0)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_file_is_cut_by_its_own_rate(is_indexed: bool, root: Path, activitynet: OpenWith) -> None:
    if is_indexed:
        index_folder(root)
    (video,) = activitynet(fps=5, videos="mp4").videos
    assert part_of(video) == Part(first=10, frames=10, fps=25.0)


@pytest.mark.parametrize("fps", [0, -25, "25", True, [25]])
def test_invalid_rates_are_refused_with_their_line(fps: object, activitynet: OpenWith) -> None:
    with pytest.raises(DatasetError, match=r"activitynet\.json:1: fps of 'abc' is"):
        activitynet(fps=fps, videos="jpg")


def test_a_rate_changes_the_hash_for_it_changes_the_frames(activitynet: OpenWith) -> None:
    hashes = {activitynet(fps=fps, videos="jpg").hash for fps in (None, 25, 12.5)}
    assert len(hashes) == 3


def of_3d_resnets(root: Path, segment: list[Any], *, videos: str) -> VideoSet:
    entry = {"subset": "training", "annotations": {"label": "a", "segment": segment}}
    (root / "kinetics.json").write_text(json.dumps({"labels": ["a"], "database": {"v_abc": entry}}))
    return open_dataset("kinetics", root=root, split="train", videos=videos)


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("videos", ["jpg", "mp4"])
def test_a_segment_in_frames_starts_at_its_frame(videos: str, is_indexed: bool, root: Path) -> None:
    if is_indexed:
        index_folder(root)
    (video,) = of_3d_resnets(root, [21, 31], videos=videos).videos
    part = part_of(video)
    assert (part.first, part.frames) == (20, 10)
    (clip,) = ClipReader().read(video, lambda part: [range(part.first, part.first + part.frames)])
    assert np.array_equal(clip["rgb"], read_frames(video.path, range(20, 30)))
    assert part_of(of_3d_resnets(root, [31, 99], videos=videos).videos[0]).frames == 10
    with pytest.raises(VideoError, match=r"its part begins at frame 40; there are 40 frames, 0 to 39"):
        part_of(of_3d_resnets(root, [41, 50], videos=videos).videos[0])


def test_a_segment_from_the_first_frame_on_is_the_length_as_before(root: Path) -> None:
    videos = of_3d_resnets(root, [1, 31], videos="jpg")
    assert (videos.videos[0].segment, videos.videos[0].frames, part_of(videos.videos[0]).first) == (None, 30, 0)
    assert of_3d_resnets(root, [1, 1], videos="jpg").videos[0].frames is None


def test_parts_of_one_video_have_other_hashes(root: Path) -> None:
    assert len({of_3d_resnets(root, segment, videos="jpg").hash for segment in ([1, 9], [2, 9], [2, 8])}) == 3


@pytest.mark.parametrize("segment", [[0, 5], [-3, 5], [7, 6], [5, 5], [1, 0], [1.0, 5], [True, 5], [1, 5, 9]], ids=str)
def test_invalid_segments_are_refused_with_their_line(segment: list[Any], root: Path) -> None:
    with pytest.raises(DatasetError, match=r"kinetics\.json:1: segment of 'v_abc' is"):
        of_3d_resnets(root, segment, videos="jpg")
