"""Which frames a clip takes, counted by hand and held as properties."""

import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.input_protocol import Placement
from bench.core.schema import Clip, SlidingWindows
from bench.data.frame_sampling import (
    Part,
    Sampling,
    generator_of,
    part_between,
    sample_clip,
    sample_views,
    view_sampling,
)


def clip_of(text: str) -> Clip:
    return Clip.model_validate(text)


def sample(part: Part, clip: str, sampling: str, *, short: str = "loop", seed: int = 0) -> tuple[int, ...]:
    random = generator_of(seed, epoch=0, sample=0)
    return sample_clip(part, clip_of(clip), sampling=sampling, short=short, random=random)  # type: ignore[arg-type]


def test_the_centre_block_has_as_many_frames_before_as_after() -> None:
    assert sample(Part(frames=10), "4x2x8", "centre") == (1, 3, 5, 7)
    assert sample(Part(first=100, frames=10), "4x2x8", "centre") == (101, 103, 105, 107)


def test_uniform_takes_the_middles_of_equal_sections() -> None:
    assert sample(Part(frames=8), "4x1x8", "uniform") == (1, 3, 5, 7)
    assert sample(Part(frames=3), "6x1x8", "uniform") == (0, 0, 1, 1, 2, 2)


def test_a_short_part_loops_or_stays_on_its_last_frame() -> None:
    assert sample(Part(first=5, frames=3), "7x1x8", "centre", short="loop") == (5, 6, 7, 5, 6, 7, 5)
    assert sample(Part(first=5, frames=3), "7x1x8", "centre", short="clamp") == (5, 6, 7, 7, 7, 7, 7)
    assert sample(Part(frames=3), "4x2x8", "centre", short="loop") == (0, 2, 1, 0)


def test_views_reach_from_the_first_frame_to_the_last() -> None:
    views = sample_views(Part(frames=20), clip_of("4x1x8"), views=3, short="loop")
    assert views == ((0, 1, 2, 3), (8, 9, 10, 11), (16, 17, 18, 19))
    assert sample_views(Part(frames=20), clip_of("4x1x8"), views=1, short="loop") == ((8, 9, 10, 11),)


def test_one_view_of_sections_is_their_middles_as_tsn_tests() -> None:
    """Counted by TSM's rule for validation: int(tick / 2 + tick * x), tick = frames / segments."""
    for frames in (3, 8, 29, 30, 100, 101):
        tick = frames / 8
        expected = tuple(int(tick / 2 + tick * x) for x in range(8))
        assert sample_views(Part(frames=frames), clip_of("8x9x8"), views=1, sampling="sections", short="loop") == (
            expected,
        )
        assert sample(Part(frames=frames), "8x1x8", "uniform") == expected


def test_two_views_of_sections_are_their_beginnings_and_middles_as_tsm_tests() -> None:
    tick = 37 / 8
    assert sample_views(Part(first=5, frames=37), clip_of("8x1x8"), views=2, sampling="sections", short="clamp") == (
        tuple(5 + int(tick * x) for x in range(8)),
        tuple(5 + int(tick / 2 + tick * x) for x in range(8)),
    )


def test_more_views_of_sections_are_even_steps_round_each_section() -> None:
    views = sample_views(Part(frames=36), clip_of("2x1x8"), views=3, sampling="sections", short="loop")
    assert views == ((3, 21), (9, 27), (15, 33))
    four = sample_views(Part(frames=16), clip_of("2x1x8"), views=4, sampling="sections", short="loop")
    assert four == ((0, 8), (2, 10), (4, 12), (6, 14))


def test_sections_need_no_rate() -> None:
    clip = Clip.model_validate({"seconds": 1, "fps": 4, "size": 8})
    assert sample_views(Part(frames=8), clip, views=1, sampling="sections", short="loop") == ((1, 3, 5, 7),)


@given(
    first=st.integers(0, 50),
    frames=st.integers(1, 300),
    sections=st.integers(1, 40),
    views=st.integers(1, 12),
)
def test_views_of_sections_lie_in_their_sections_and_differ_if_possible(
    first: int, frames: int, sections: int, views: int
) -> None:
    part = Part(first=first, frames=frames)
    taken = sample_views(part, clip_of(f"{sections}x1x8"), views=views, sampling="sections", short="loop")
    for view in taken:
        for k, index in enumerate(view):
            assert k * frames // sections <= index - first < -(-(k + 1) * frames // sections)
    assert list(taken) == sorted(taken)
    if frames >= sections * views:
        assert len(set(taken)) == views
    (middle,) = sample_views(part, clip_of(f"{sections}x1x8"), views=1, sampling="sections", short="loop")
    assert middle in taken


@pytest.mark.parametrize(
    ("trained", "viewed"),
    [
        ("random", "blocks"),
        ("centre", "blocks"),
        ("dense", "blocks"),
        ("uniform", "sections"),
        ("segments", "sections"),
    ],
)
def test_models_trained_on_sections_are_evaluated_by_sections(trained: str, viewed: str) -> None:
    assert view_sampling(trained) == viewed  # type: ignore[arg-type]


def test_a_clip_in_seconds_follows_the_rate_of_the_video() -> None:
    clip = Clip.model_validate({"seconds": 1, "fps": 5, "size": 8})
    assert sample_views(Part(frames=30, fps=30.0), clip, views=1, short="loop") == ((2, 8, 14, 20, 26),)
    assert sample_views(Part(frames=30, fps=2.5), clip, views=1, short="loop")[0] == (13, 13, 14, 14, 15)


def test_a_rate_that_is_twice_the_clips_steps_by_two_in_spite_of_rounding() -> None:
    clip = Clip(frames=16, stride=None, fps=30000 / 1001 / 2, height=8, width=8)
    assert sample_views(Part(frames=31, fps=29.97002997), clip, views=1, short="loop")[0] == tuple(range(0, 31, 2))


def test_a_clip_in_seconds_of_a_video_without_a_rate_is_an_error() -> None:
    clip = Clip.model_validate({"seconds": 1, "fps": 5, "size": 8})
    with pytest.raises(InputError, match="rate of the video is not known"):
        sample_views(Part(frames=30), clip, views=1, short="loop")


def test_parts_in_seconds_are_cut_at_the_nearest_frame_and_keep_one() -> None:
    assert part_between(100, 25.0, start_s=1.0, end_s=2.0) == Part(first=25, frames=25, fps=25.0)
    assert part_between(100, 25.0, start_s=None, end_s=2.0) == Part(first=0, frames=50, fps=25.0)
    assert part_between(100, 25.0, start_s=9.0, end_s=10.0) == Part(first=99, frames=1, fps=25.0)
    with pytest.raises(InputError, match="seconds"):
        part_between(100, None, start_s=1.0, end_s=2.0)


@given(
    sampling=st.sampled_from(get_args(Sampling)),
    short=st.sampled_from(["loop", "clamp"]),
    first=st.integers(0, 50),
    frames=st.integers(1, 200),
    length=st.integers(1, 40),
    stride=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_every_sampling_stays_inside_its_part(
    sampling: str, short: str, first: int, frames: int, length: int, stride: int, seed: int
) -> None:
    part = Part(first=first, frames=frames)
    taken = sample(part, f"{length}x{stride}x8", sampling, short=short, seed=seed)
    assert len(taken) == length
    assert all(first <= index < first + frames for index in taken)
    if sampling in ("random", "centre") and (length - 1) * stride < frames:
        assert {b - a for a, b in pairwise(taken)} <= {stride}
    if sampling in ("uniform", "segments"):
        assert list(taken) == sorted(taken)


def test_random_starts_reach_both_ends() -> None:
    starts = {sample(Part(frames=10), "8x1x8", "random", seed=seed)[0] for seed in range(60)}
    assert starts == {0, 1, 2}


def test_dense_blocks_start_anywhere_and_wrap_round() -> None:
    starts = {sample(Part(frames=5), "4x1x8", "dense", seed=seed) for seed in range(80)}
    assert starts == {tuple((s + i) % 5 for i in range(4)) for s in range(5)}


def test_segments_take_one_frame_of_each_section() -> None:
    for seed in range(20):
        taken = np.array(sample(Part(frames=40), "8x1x8", "segments", seed=seed))
        assert (taken // 5 == np.arange(8)).all()


def test_each_of_seed_epoch_and_sample_changes_the_draw() -> None:
    draws = {
        int(generator_of(seed, epoch=epoch, sample=sample_).integers(1 << 60))
        for seed in range(3)
        for epoch in range(3)
        for sample_ in range(3)
    }
    assert len(draws) == 27


CLIPS = ("4x1x8", "4x3x8", "16x2x8", "13x6x8")


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("frames", [1, 5, 16, 33, 78, 100, 251])
@pytest.mark.parametrize("views", [1, 2, 5, 10])
def test_blocks_begin_where_the_zoos_begin_them(clip: str, frames: int, views: int) -> None:
    """Against the arithmetic of MMAction2, PySlowFast and Video Swin, written down from their code."""
    span = clip_of(clip).frames * (clip_of(clip).stride or 1)
    room = max(frames - span, 0)
    expected = {
        "rounded": np.round(np.arange(views) * (room / max(views - 1, 1))).astype(int).tolist()
        if views > 1
        else [room // 2],
        "offset": [k * math.floor(room / (views - 1)) for k in range(views)] if views > 1 else [math.floor(room / 2)],
        "starts": [int(room * k / views) for k in range(views)],
        "middles": [int((room + 1) / views / 2 + (room + 1) / views * k) for k in range(views)],
    }
    for placement in get_args(Placement):
        found = sample_views(Part(frames=frames), clip_of(clip), views=views, placement=placement, short="loop")
        if placement != "ends":
            assert [block[0] for block in found] == [min(start, frames - 1) for start in expected[placement]]


@given(frames=st.integers(1, 400), length=st.integers(1, 40), every=st.integers(1, 50))
def test_sliding_windows_are_those_of_3d_resnets(frames: int, length: int, every: int) -> None:
    """Begin at every `every`-th frame; the first window that is cut short is repeated until it is full, and ends it."""
    expected = []
    for begin in range(0, frames, every):
        window = list(range(begin, min(frames, begin + length)))
        is_cut = len(window) < length
        while len(window) < length:
            window.append(window[len(window) - min(frames, begin + length) + begin])
        expected.append(tuple(window))
        if is_cut:
            break
    found = sample_views(Part(frames=frames), clip_of(f"{length}x1x8"), views=SlidingWindows(every), short="loop")
    assert found == tuple(expected)


def test_sliding_windows_of_a_stride_step_by_frames_of_the_clip() -> None:
    found = sample_views(Part(first=10, frames=20), clip_of("4x2x8"), views=SlidingWindows(4), short="clamp")
    assert found == ((10, 12, 14, 16), (18, 20, 22, 24), (26, 28, 29, 29))
