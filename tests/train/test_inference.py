import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from bench.core.errors import InputError, TrainingError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip
from bench.models.c3d_search import c3d_search
from bench.models.feature_readers import FeatureReader
from bench.train.evaluating import evaluate
from bench.train.inference import InferenceSettings, features, predict, write_features


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


def test_features_are_the_input_of_the_head(tiny_net, val_videos, settings):
    model = tiny_net().eval()
    found = features(model, val_videos, InferenceSettings(clip=settings.clip))
    scores = model.fc(torch.from_numpy(found.vectors)).softmax(1).detach().numpy()
    np.testing.assert_allclose(scores, evaluate(model, val_videos, clip=settings.clip).scores, atol=1e-6)
    assert found.labels.tolist() == [video.labels[0] for video in val_videos.videos]


def test_features_of_our_models_come_from_forward_features(val_videos):
    model = c3d_search(num_classes=2, width=0.0625).eval()
    found = features(model, val_videos, InferenceSettings(clip=Clip.model_validate("4x1x32"), views=(2, 1)))
    assert found.vectors.shape == (12, 128)
    assert FeatureReader(model)(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 128)


def test_reading_features_leaves_no_hook_behind(tiny_net, clip):
    model = tiny_net()
    FeatureReader(model)(torch.zeros(1, 3, clip.frames, clip.height, clip.width))
    assert not model.fc._forward_pre_hooks


def test_a_model_without_a_classifier_has_no_features():
    with pytest.raises(InputError, match="no linear layer or convolution"):
        FeatureReader(nn.ReLU())


def test_features_of_a_set_without_a_readable_video_are_an_error(tiny_net, damaged_videos, settings):
    only = replace(damaged_videos, videos=(damaged_videos.videos[3],))
    with pytest.raises(TrainingError, match="none of the 1 videos can be read"):
        features(tiny_net(), only, settings)


def test_features_are_written_with_ids_labels_and_classes(tiny_net, val_videos, settings, tmp_path):
    found = features(tiny_net(), val_videos, settings)
    table = pq.read_table(write_features(tmp_path / "f.parquet", found, classes=val_videos.classes))
    assert table["video"].to_pylist() == list(found.videos)
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), found.vectors)
    assert json.loads(table.schema.metadata[b"classes"]) == list(val_videos.classes)
