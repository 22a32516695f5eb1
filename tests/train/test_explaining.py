"""Occlusion and Grad-CAM, on networks whose decisive frames and places are known."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import InputError
from bench.core.schema import Clip
from bench.train.explaining import explain, grad_cam, occlusion, segments
from bench.train.inference import InferenceSettings


class LooksAt(nn.Module):
    """Answers class 1 by the brightness of one frame's corner, and nothing else."""

    def forward(self, clip_BCTHW):
        bright = clip_BCTHW[:, :, 5, :4, :4].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 4 * bright], dim=1)


@pytest.fixture
def clip_BCTHW():  # noqa: N802  # the shape suffix is meant
    clip = torch.zeros(1, 3, 8, 12, 12)
    clip[:, :, 5, :4, :4] = 1
    return clip


def test_segments_are_of_nearly_equal_length():
    assert segments(8, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [segments(10, 4).count(number) for number in range(4)] == [3, 2, 3, 2]


def test_hiding_the_decisive_frame_and_place_costs_most(clip_BCTHW):
    by_time, by_place = occlusion(LooksAt(), clip_BCTHW, label=1, time_segments=4, grid=3)
    mean = float(clip_BCTHW.mean())
    expected = torch.tensor([0.0, 4.0]).softmax(0)[1] - torch.tensor([0.0, 4 * mean]).softmax(0)[1]
    assert by_time == pytest.approx([0, 0, float(expected), 0], abs=1e-6)
    assert by_place.shape == (4, 3, 3)
    assert by_place[2, 0, 0] == pytest.approx(float(expected), abs=1e-6)
    assert np.abs(np.delete(by_place.ravel(), 2 * 9)).max() < 1e-6


def test_the_drop_of_the_other_class_is_its_opposite(clip_BCTHW):
    ones, zeros = (occlusion(LooksAt(), clip_BCTHW, label=label, time_segments=4)[0] for label in (1, 0))
    assert ones == pytest.approx(-zeros, abs=1e-6)


class TinyCam(nn.Module):
    """Two convolutions and a mean; class 0 adds the first channel of the last map, class 1 the second."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 2, 3, padding=1, stride=2)

    def forward(self, clip_BCTHW):
        return self.last(self.first(clip_BCTHW)).mean((2, 3, 4))


def test_grad_cam_of_a_linear_head_is_the_positive_part_of_its_map():
    """The gradient of a mean is the same everywhere, so the map is the class's own channel."""
    torch.manual_seed(0)
    model, clip = TinyCam(), torch.randn(1, 3, 4, 8, 8)
    found, layer = grad_cam(model, clip, label=1)
    own = model.last(model.first(clip))[:, 1:2].relu()
    wanted = nn.functional.interpolate(own, size=(4, 8, 8), mode="trilinear", align_corners=False)[0, 0]
    assert layer == "last"
    assert found == pytest.approx((wanted / wanted.max()).detach().numpy(), abs=1e-5)


def test_a_model_without_convolutions_has_no_grad_cam(clip_BCTHW):
    assert grad_cam(LooksAt(), clip_BCTHW, label=1) is None


def test_a_video_is_explained_with_the_frames_that_the_model_saw(tiny_net, val_videos):
    video, settings = val_videos.videos[0], InferenceSettings(clip=Clip.model_validate("8x1x32"))
    found = explain(tiny_net(), video.path, settings, time_segments=4, grid=2)
    assert found.frames.shape == (8, 32, 32, 3)
    assert found.frames.std() > 5
    assert (found.by_time.shape, found.by_place.shape, found.grad_cam.shape) == ((4,), (4, 2, 2), (8, 32, 32))
    assert found.spans == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert 0.5 <= found.probability <= 1


def test_a_class_that_does_not_exist_is_an_error(tiny_net, val_videos):
    settings = InferenceSettings(clip=Clip.model_validate("8x1x32"))
    with pytest.raises(InputError, match="class 7 does not exist: the model has 2, 0 to 1"):
        explain(tiny_net(), val_videos.videos[0].path, settings, label=7)


def test_an_occlusion_that_was_killed_goes_on_where_it_was(clip_BCTHW, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.train.explaining.SAVE_EVERY_S", 0)
    model, options = LooksAt(), {"label": 1, "time_segments": 4, "grid": 2, "batch": 2}
    expected = occlusion(model, clip_BCTHW, **options)
    calls, forward = [], LooksAt.forward

    def dying(self, clips, after):
        calls.append(len(clips))
        if len(calls) > after:
            raise KeyboardInterrupt
        return forward(self, clips)

    monkeypatch.setattr(LooksAt, "forward", lambda self, clips: dying(self, clips, 5))
    with pytest.raises(KeyboardInterrupt):
        occlusion(model, clip_BCTHW, unfinished=tmp_path / "scores.npz", **options)
    monkeypatch.setattr(LooksAt, "forward", lambda self, clips: dying(self, clips, 100))
    calls.clear()
    reports = []
    monkeypatch.setattr("bench.train.progress.EVERY_S", 0)
    again = occlusion(model, clip_BCTHW, unfinished=tmp_path / "scores.npz", report=reports.append, **options)
    np.testing.assert_array_equal(again[1], expected[1])
    assert calls == [1] + [2] * 6  # 4 of 10 batches were stored
    assert reports[-1].fraction == 1
    calls.clear()
    occlusion(model, clip_BCTHW, unfinished=tmp_path / "scores.npz", **{**options, "label": 0})
    assert calls == [1] + [2] * 10  # another class has other scores
