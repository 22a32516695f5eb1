from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.models.feature_readers import FeatureReader
from bench.train.evaluating import evaluate
from bench.train.inference import InferenceSettings, predict


@pytest.fixture
def settings(clip):
    return InferenceSettings(clip=clip, views=(2, 2), batch=3)


def test_guesses_are_the_evaluations_scores_best_first(tiny_net, val_videos, settings):
    model = tiny_net()
    paths = [video.path for video in val_videos.videos]
    named = InputProtocol.of({"classes": val_videos.classes}, mark="given").over(settings.protocol_of(model))
    found = predict(model, paths, replace(settings, protocol=named), k=2)
    seen = evaluate(model, val_videos, clip=settings.clip, views=settings.views)
    for prediction, path, scores in zip(found, paths, seen.scores, strict=True):
        assert prediction.video == str(path)
        assert [guess.label for guess in prediction.classes] == np.argsort(-scores).tolist()
        assert [guess.probability for guess in prediction.classes] == pytest.approx(sorted(scores, reverse=True))
        assert prediction.classes[0].name == val_videos.classes[prediction.classes[0].label]
        assert len(prediction.views) == 4


def test_an_unreadable_video_keeps_its_row(tiny_net, damaged_videos, tmp_path, settings):
    good, bad = damaged_videos.videos[0].path, damaged_videos.videos[3].path
    found = predict(tiny_net(), [bad, good, tmp_path / "not there.mp4", good], settings)
    assert [prediction.error is None for prediction in found] == [False, True, False, True]
    assert found[1].classes == found[3].classes
    assert found[1].classes[0].name.startswith("class ")


def test_no_video_is_an_error(tiny_net, settings):
    with pytest.raises(InputError, match="no video is given"):
        predict(tiny_net(), [], settings)


def test_reading_features_leaves_no_hook_behind(tiny_net, clip):
    model = tiny_net()
    FeatureReader(model)(torch.zeros(1, 3, clip.frames, clip.height, clip.width))
    assert not model.fc._forward_pre_hooks


def test_a_model_without_a_classifier_has_no_features():
    with pytest.raises(InputError, match="no linear layer or convolution"):
        FeatureReader(nn.ReLU())
