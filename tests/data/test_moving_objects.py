"""The true flow of motions: it leads each moving point to where the next frame has it."""

from pathlib import Path

import numpy as np
import pytest

from bench.data.collection import open_dataset
from bench.data.frame_folder import read_flow
from bench.data.moving_objects import draw_scene, film, flow_of_film


@pytest.mark.parametrize("direction", range(8))
def test_moving_points_are_found_where_their_flow_leads(direction: int) -> None:
    """All but those that another object hides or uncovers in the next frame."""
    scene = draw_scene((5, direction), size=48)
    frames, flow = film(scene, direction, frames=6), flow_of_film(scene, direction, frames=6)
    assert flow.shape == (5, 48, 48, 2)
    rows, columns = np.mgrid[:48, :48]
    found = moved = 0
    for before, after, field in zip(frames[:-1], frames[1:], flow, strict=True):
        right, down = field[..., 0].astype(int), field[..., 1].astype(int)
        led = after[(rows + down) % 48, (columns + right) % 48]
        is_moving = (right != 0) | (down != 0)
        found += int((led == before).all(-1)[is_moving].sum())
        moved += int(is_moving.sum())
    assert moved > 500
    assert found / moved > 0.75


def test_the_background_rests_and_objects_run_at_their_speeds() -> None:
    scene = draw_scene((7,), size=48)
    flow = flow_of_film(scene, 0, frames=3)
    assert set(np.unique(flow[..., 0])) == {0.0, *(float(thing.speed_px) for thing in scene.objects)}
    assert not flow[..., 1].any(), "class 0 moves right, not down"
    assert np.array_equal(flow_of_film(scene, 1, frames=3), -flow_of_film(scene, 0, frames=4)[:0:-1][:2])


def test_videos_of_motions_have_flow_if_requested(tmp_path: Path) -> None:
    options = {"clips_per_class": 1, "val_clips_per_class": 1, "frames": 6, "size": 32}
    plain = open_dataset("motions", root=tmp_path / "m", split="train", **options)
    videos = open_dataset("motions", root=tmp_path / "m", split="train", true_flow=True, **options)
    assert plain.hash == videos.hash
    assert {video.flow for video in plain.videos} == {None}
    scene = draw_scene((0, 3, 0, 0), size=32)
    for label, video in enumerate(videos.videos):
        assert video.flow is not None
        read_THW2 = read_flow(video.flow, range(5), size=None).astype(float) / 255 * 40 - 20
        true_THW2 = flow_of_film(scene, label, frames=6)
        assert np.abs(read_THW2 - true_THW2).mean() < 0.4, "bytes and JPEG are that coarse"
