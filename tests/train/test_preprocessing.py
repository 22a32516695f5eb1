"""Which input protocol is in force for a model, and that clips are prepared and outputs read by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol, parse_protocol
from bench.core.schema import Clip
from bench.data.clips import ClipReader
from bench.data.frame_sampling import sample_views
from bench.data.geometry import Covering, Scaling, resize, upright_size
from bench.models.factory import create_model
from bench.train.evaluating import NO_OUTPUT, evaluate, ordered
from bench.train.fitting import fit
from bench.train.preprocessing import (
    checkpoint_protocol,
    default_protocol,
    evaluation_protocol,
    normalisation,
)


class Recorder(nn.Module):
    """Keeps the clips that it is given, and votes for the first class."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def forward(self, clip):
        self.clips.append(clip.clone())
        return torch.tensor([[1.0, 0.0]]).repeat(len(clip), 1)


def frames_of(video, clip):
    """The uint8 frames (T, H, W, C) of the middle clip, scaled to cover it, read without the loader."""
    reader = ClipReader(modalities=("rgb",), size=Covering(height=clip.height, width=clip.width), backend="auto")
    [decoded] = reader.read(video, lambda part: sample_views(part, clip, views=1, short="loop"))
    frames = decoded["rgb"]
    top, left = (frames.shape[1] - clip.height) // 2, (frames.shape[2] - clip.width) // 2
    return frames[:, top : top + clip.height, left : left + clip.width]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channels=rgb,scale=1,mean=0,std=1", lambda rgb: rgb / 255),
        ("channels=bgr,scale=255,mean=90/98/102,std=1", lambda rgb: rgb[..., ::-1] - np.array([90, 98, 102.0])),
        ("channels=rgb,scale=255,mean=127.5,std=127.5", lambda rgb: rgb / 127.5 - 1),
        (
            "channels=bgr,scale=1,mean=0.1/0.2/0.3,std=0.4/0.5/0.6",
            lambda rgb: (rgb[..., ::-1] / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6]),
        ),
    ],
)
def test_pixels_are_prepared_by_the_protocol(text, expected, val_videos):
    clip = Clip.model_validate("4x1x32")
    model = Recorder()
    evaluate(model, val_videos, clip=clip, protocol=parse_protocol(text), batch=len(val_videos.videos))
    seen = torch.cat(model.clips).numpy()
    for clip_CTHW, video in zip(seen, val_videos.videos, strict=True):
        frames = expected(frames_of(video, clip).astype(np.float64))
        np.testing.assert_allclose(clip_CTHW, frames.transpose(3, 0, 1, 2), atol=2e-4)


@pytest.mark.parametrize(
    ("text", "scaled"),
    [
        ("resize=short:20", Scaling(size=20)),
        ("resize=short:20,rounding=round", Scaling(size=20, rounding="round")),
        (
            "resize=20x28,interpolation=bicubic,antialias=false",
            Scaling(size=(20, 28), interpolation="bicubic", antialias=False),
        ),
        ("resize=none", Scaling(size=None)),
        ("antialias=false", Scaling(size=Covering(height=12, width=12), antialias=False)),
    ],
)
def test_frames_are_scaled_by_the_protocol(text, scaled, val_videos):
    clip, model = Clip.model_validate("4x1x12"), Recorder()
    given = parse_protocol(f"{text},mean=0,std=1,scale=255")
    evaluate(model, val_videos, clip=clip, protocol=given, batch=len(val_videos.videos))
    for clip_CTHW, video in zip(torch.cat(model.clips).numpy(), val_videos.videos, strict=True):
        reader = ClipReader(modalities=("rgb",), size=None)
        [decoded] = reader.read(video, lambda part: sample_views(part, clip, views=1, short="loop"))
        frames = [resize(frame, upright_size(frame.shape[:2], scaled), scaled) for frame in decoded["rgb"]]
        top, left = (frames[0].shape[0] - 12) // 2, (frames[0].shape[1] - 12) // 2
        expected = np.stack(frames)[:, top : top + 12, left : left + 12].transpose(3, 0, 1, 2)
        np.testing.assert_allclose(clip_CTHW, expected, atol=1e-4)


def test_a_mean_for_two_channels_is_refused():
    with pytest.raises(InputError, match="mean has 2 values"):
        normalisation(parse_protocol("mean=1/2"))


@pytest.mark.parametrize(
    ("name", "mean"), [("i3d_flow", (0.5,)), ("i3d_rgb", (0.5,) * 3), ("two_stream_i3d", (0.5,) * 3)]
)
def test_a_model_of_flow_alone_has_one_mean_and_can_be_normalised(name, mean, clip):
    found = default_protocol(create_model(name, device="meta"), clip)
    assert (found.mean, found.std) == (mean, mean)
    assert normalisation(found).of("flow") == ((0.5, 0.5), (0.5, 0.5))


def test_mean_and_std_of_a_users_model_are_its_default(tiny_net, clip):
    model = tiny_net()
    model.mean, model.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    found = default_protocol(model, clip)
    assert (found.mean, found.std, found.mark("mean")) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "assumed")
    model.input_protocol = {"channels": "bgr", "scale": 255}
    found = default_protocol(model, clip)
    assert (found.channels, found.scale, found.mean) == ("bgr", 255, (0.1, 0.2, 0.3))


def test_a_clip_counts_as_given_only_if_it_differs_from_checkpoint_and_default(tiny_net):
    default, other = Clip.model_validate("16x1x112"), Clip.model_validate("8x1x112")
    model = tiny_net()
    found = evaluation_protocol(model, InputProtocol(), clip=default, default_clip=default)
    assert (found.mark("clip"), found.mark("crop")) == ("assumed", "assumed")
    found = evaluation_protocol(model, InputProtocol(), clip=other, default_clip=default)
    assert (found.clip, found.mark("clip"), found.mark("crop")) == ("8x1", "given", "assumed")


# What a training stores -----------------------------------------------------------------------------------------------


@pytest.fixture
def trained(recipe_of, train_videos, val_videos, tmp_path):
    """A small C3D trained for BGR clips, and its file of weights."""
    clip = Clip.model_validate("4x2x32")
    model = create_model("c3d_search", width=0.0625, num_classes=2)
    augmentation = {"sampling": "random", "resize": 34, "short": "clamp"}
    recipe = recipe_of(augmentation=augmentation, epochs=1, optimizer={"name": "sgd", "lr": 1e-5})
    given = parse_protocol("channels=bgr,scale=255,mean=90/98/102,std=1/1/1")
    result = fit(model, recipe, train_videos, val=val_videos, clip=clip, given=given, seed=1, folder=tmp_path)
    return model, result


def test_weights_trained_here_are_evaluated_as_they_were_trained(trained, val_videos):
    model, result = trained
    again = create_model("c3d_search", width=0.0625, weights=result.last)
    found = evaluation_protocol(
        again,
        InputProtocol(),
        clip=checkpoint_protocol(again).clip_over(Clip.model_validate("16x1x112")),
        default_clip=Clip.model_validate("16x1x112"),
    )
    assert {name: found.mark(name) for name in found.parts} == dict.fromkeys(found.parts, "stored")
    assert (found.clip, found.crop, found.channels, found.scale) == ("4x2", "32", "bgr", 255)
    assert (found.resize, found.short, found.averaging) == ("short:34", "clamp", "softmax")
    assert found.classes == val_videos.classes
    assert found.sources["clip"].origin == "last.pt"
    clip = Clip.model_validate("4x2x32")
    with_protocol = evaluate(model, val_videos, clip=clip, protocol=result.protocol).scores
    np.testing.assert_array_equal(evaluate(again, val_videos, clip=clip).scores, with_protocol)
    as_rgb = evaluate(again, val_videos, clip=clip, protocol=parse_protocol("channels=rgb,scale=1,mean=0.45,std=0.225"))
    assert not np.allclose(as_rgb.scores, with_protocol, atol=1e-3)


def test_other_pixels_are_another_training(trained, recipe_of, train_videos, tmp_path):
    model, _ = trained
    with pytest.raises(InputError, match="holds another training"):
        fit(model, recipe_of(), train_videos, clip=Clip.model_validate("4x2x32"), seed=1, folder=tmp_path)


def test_a_checkpoint_names_its_source(trained, train_videos):
    content = torch.load(trained[1].last, weights_only=True)
    assert content["dataset_hash"] == train_videos.hash
    assert (content["dataset"], content["split"]) == ("motions", "train")
    assert content["recipe_settings"]["epochs"] == 1
    assert content["vbench_version"]


# The order of the outputs ---------------------------------------------------------------------------------------------


class Votes(nn.Module):
    """Votes for output `best` of three."""

    def __init__(self, best):
        super().__init__()
        self.best = best

    def forward(self, clip):
        return nn.functional.one_hot(torch.tensor(self.best), 3).float().repeat(len(clip), 1)


@pytest.mark.parametrize("best", [0, 1, 2])
def test_outputs_are_matched_with_the_classes_by_their_names(best, val_videos, clip):
    first, second = val_videos.classes
    outputs = (second.upper().replace(" ", "_"), "something else", first)
    seen = evaluate(Votes(best), val_videos, clip=clip, protocol=InputProtocol(classes=outputs))
    expected = {0: val_videos.classes.index(second), 1: 2, 2: val_videos.classes.index(first)}[best]
    assert seen.scores.shape == (12, 3)
    assert set(seen.scores.argmax(axis=1)) == {expected}


def test_a_class_that_the_model_does_not_know_is_never_predicted(val_videos, clip):
    outputs = (val_videos.classes[0], "x", "y")
    seen = evaluate(Votes(1), val_videos, clip=clip, protocol=InputProtocol(classes=outputs))
    assert (seen.scores[:, 1] == 0).all()
    assert seen.scores.shape == (12, 4)


def test_a_model_that_knows_no_class_of_the_data_set_is_refused(val_videos, clip):
    with pytest.raises(InputError, match=r"knows none of the data set's 2 classes .* --labels FILE"):
        evaluate(Votes(0), val_videos, clip=clip, protocol=InputProtocol(classes=("x", "y", "z")))


def test_outputs_move_with_their_columns():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert ordered(logits, [2, None]).tolist() == [[3.0, NO_OUTPUT, 1.0, 2.0]]
    assert ordered(logits, [0, 1]) is logits
    with pytest.raises(InputError, match="has 3 outputs"):
        ordered(logits, [3, 0])


# Averaging over views -------------------------------------------------------------------------------------------------


class ByView(nn.Module):
    """Gives each of two views of a video other logits."""

    def forward(self, clip):
        return torch.tensor([[0.0, 2.0], [3.0, 0.0]]).repeat(len(clip) // 2, 1)


def test_views_are_averaged_by_the_protocol(val_videos, clip):
    logits = np.array([[0.0, 2.0], [3.0, 0.0]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = {
        "score": logits.mean(axis=0),
        "softmax": softmax.mean(axis=0),
        "sigmoid": (1 / (1 + np.exp(-logits))).mean(axis=0),
        "max": softmax.max(axis=0),
    }
    for averaging, scores in expected.items():
        seen = evaluate(ByView(), val_videos, clip=clip, views=(2, 1), protocol=InputProtocol(averaging=averaging))
        np.testing.assert_allclose(seen.scores, np.tile(scores, (12, 1)), atol=1e-6)


def test_the_maximum_for_several_labels_is_of_sigmoids(val_videos, clip):
    many = replace(val_videos, is_multi_label=True)
    seen = evaluate(ByView(), many, clip=clip, views=(2, 1), protocol=InputProtocol(averaging="max"))
    np.testing.assert_allclose(seen.scores[0], 1 / (1 + np.exp([-3.0, -2.0])), atol=1e-6)


def test_scores_of_single_views_are_kept_on_request(val_videos, clip):
    assert evaluate(ByView(), val_videos, clip=clip, views=(2, 1)).clip_scores is None
    seen = evaluate(ByView(), val_videos, clip=clip, views=(2, 1), keeps_clip_scores=True)
    assert seen.clip_scores.shape == (12, 2, 2)
    np.testing.assert_allclose(seen.clip_scores.mean(axis=1), seen.scores, atol=1e-6)
