"""Fully convolutional evaluation: whole frames instead of crops, for the networks that can."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import InputError
from bench.core.schema import Clip, views_from_text, views_per_video
from bench.data.decode import read_frames
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.data.transforms import normalise
from bench.models.factory import create_model
from bench.train.accuracy_protocol import describe_evaluation
from bench.train.evaluating import evaluate, require_whole_frames
from bench.train.inference import InferenceSettings, predict
from bench.train.preprocessing import default_protocol


@pytest.fixture
def wide_videos(val_videos, tmp_path):
    """Four videos of three widths, noise all over."""
    videos = []
    for number, width in enumerate((40, 64, 64, 48)):
        path = tmp_path / f"{number}.mp4"
        frames = np.random.default_rng(number).integers(0, 256, (8, 24, width, 3), dtype=np.uint8)
        write_mp4(path, frames, fps=8, options=HISTORY_FREE)
        videos.append(replace(val_videos.videos[number], path=path, facts=None, frames=8, sha256=""))
    return replace(val_videos, videos=tuple(videos))


def test_a_model_slides_over_whole_frames_of_any_width(tiny_net, wide_videos, clip):
    model = tiny_net().eval()
    seen = evaluate(model, wide_videos, clip=clip, views=(2, "full"), batch=64)
    for score, video, width in zip(seen.scores, wide_videos.videos, (20, 32, 32, 24), strict=True):
        views = []
        for first in (0, 4):
            frames_THWC = read_frames(video.path, range(first, first + 4), size=(12, width))
            clip_CTHW = normalise(torch.from_numpy(frames_THWC).permute(3, 0, 1, 2), mean=(0.45,) * 3, std=(0.225,) * 3)
            with torch.inference_mode():
                views.append(model(clip_CTHW[None])[0].softmax(0))
        np.testing.assert_allclose(score, torch.stack(views).mean(0), atol=1e-5)


def test_whole_frames_include_what_crops_leave_out(tiny_net, wide_videos, clip):
    whole, centre = (evaluate(tiny_net(), wide_videos, clip=clip, views=views) for views in ((1, "full"), (1, 1)))
    assert not np.allclose(whole.scores, centre.scores, atol=1e-4)


def test_the_protocol_states_whole_frames(tiny_net, wide_videos, clip):
    model = tiny_net()
    views = views_from_text("3xfull")
    assert views_per_video(views) == 3
    seen = evaluate(model, wide_videos, clip=clip, views=views)
    said = describe_evaluation(model, wide_videos, seen, clip=clip, views=views, protocol=default_protocol(model, clip))
    assert (said["views"], said["crop"]) == ("3xfull", "none: whole frames")
    assert seen.clip_ranks.shape == (4, 3)


def test_predictions_can_be_of_whole_frames(tiny_net, wide_videos, clip):
    paths = [video.path for video in wide_videos.videos]
    found = predict(tiny_net(), paths, InferenceSettings(clip=clip, views=(2, "full")), k=1)
    assert [len(prediction.views) for prediction in found] == [2, 2, 2, 2]


def test_models_with_global_pooling_are_accepted_and_fixed_ones_refused():
    clip = Clip.model_validate("16x1x112")
    require_whole_frames(create_model("resnet3d_18", num_classes=3, widen_factor=0.125), clip)
    with pytest.raises(InputError, match=r"C3D takes frames of 112x112 only; .* give the number of crops"):
        require_whole_frames(create_model("c3d", num_classes=3), clip)


def test_a_model_of_fixed_size_is_refused_before_a_frame_is_read(val_videos, clip, monkeypatch):
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 12 * 12, 2))
    monkeypatch.setattr("bench.train.evaluating.view_batches", lambda *_, **__: pytest.fail("nothing is to be read"))
    with pytest.raises(InputError, match="12x12 only"):
        evaluate(fixed, val_videos, clip=clip, views=(1, "full"))
    assert not fixed[1].weight.is_meta, "it was tried on a copy"


def test_a_model_that_cannot_be_tried_without_data_is_accepted(clip):
    class Peeking(nn.Module):
        def forward(self, clip):
            return clip.mean((2, 3, 4)) if float(clip.sum()) > 0 else clip.sum((2, 3, 4))

    require_whole_frames(Peeking(), clip)


@pytest.mark.parametrize("text", ["10", "0x1", "10x", "fullx1", "10xfull3", "10x-1"])
def test_other_views_are_refused(text):
    with pytest.raises(ValueError, match="temporal x spatial, such as 10x3, or 10xfull for whole frames"):
        views_from_text(text)
