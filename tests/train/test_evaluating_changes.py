"""Evaluation on changed input: each change scores as if it were alone, and a killed evaluation goes on."""

import numpy as np
import pytest

from bench.core.errors import InputError
from bench.core.input_change import read_changes
from bench.models.base import InputSpec
from bench.train import evaluating
from bench.train.evaluating import evaluate, evaluate_changes

NAMES = ["reversed", "noise:0.2", "resize:nearest", "bitrate:0.5"]


def test_every_change_scores_as_if_it_were_alone(tiny_net, val_videos, clip):
    model = tiny_net()
    found = evaluate_changes(model, val_videos, changes=read_changes(NAMES), clip=clip, views=(2, 1), batch=6)
    assert list(found) == ["none", *NAMES]
    assert (found["none"].scores == evaluate(model, val_videos, clip=clip, views=(2, 1), batch=6).scores).all()
    for name in NAMES:
        alone = evaluate_changes(model, val_videos, changes=read_changes([name]), clip=clip, views=(2, 1), batch=50)
        assert np.allclose(alone[name].scores, found[name].scores, atol=1e-6), name
        assert (found[name].scores != found["none"].scores).any(), name


def test_reversed_clips_are_clips_of_the_opposite_class(tiny_net, val_videos, clip):
    """`motions` has every scene in both directions, and one direction is the other one backwards."""
    found = evaluate_changes(tiny_net(), val_videos, changes=read_changes(["reversed"]), clip=clip)
    forwards, backwards = found["none"].scores, found["reversed"].scores
    opposite = np.arange(len(val_videos)).reshape(-1, 2)[:, ::-1].ravel()
    assert np.abs(forwards[opposite] - backwards).max() < 1e-3


class Killed(BaseException):
    pass


def test_a_killed_evaluation_scores_the_rest_only(tiny_net, val_videos, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "SAVE_EVERY_S", 0.0)
    model, changes = tiny_net(), read_changes(NAMES)
    whole = evaluate_changes(model, val_videos, changes=changes, clip=clip, batch=6)
    seen = []

    def count(module, clips, output, *, most):
        if len(seen) == most:
            raise Killed
        seen.append(len(clips[0]))

    for most in (2, 5):
        hook = model.register_forward_hook(lambda *each, most=most: count(*each, most=most))
        with pytest.raises(Killed):
            evaluate_changes(model, val_videos, changes=changes, clip=clip, batch=6, unfinished=tmp_path)
        hook.remove()
    model.register_forward_hook(lambda *each: count(*each, most=None))
    again = evaluate_changes(model, val_videos, changes=changes, clip=clip, batch=6, unfinished=tmp_path)
    assert sum(seen) == len(val_videos) * (1 + len(NAMES))
    for name in ["none", *NAMES]:
        assert np.allclose(again[name].scores, whole[name].scores, atol=1e-6), name


def test_other_weights_do_not_go_on_with_what_was_scored(tiny_net, val_videos, clip, tmp_path):
    model, changes = tiny_net(), read_changes(["reversed"])
    first = evaluate_changes(model, val_videos, changes=changes, clip=clip, unfinished=tmp_path)
    model.fc.weight.data.mul_(2)
    second = evaluate_changes(model, val_videos, changes=changes, clip=clip, unfinished=tmp_path)
    assert (first["none"].scores != second["none"].scores).any()


def test_an_unread_video_is_unread_under_every_change_and_after_a_kill(tiny_net, damaged_videos, clip, tmp_path):
    for _ in range(2):
        found = evaluate_changes(
            tiny_net(), damaged_videos, changes=read_changes(["reversed"]), clip=clip, unfinished=tmp_path
        )
        for evaluation in found.values():
            assert [video.position for video in evaluation.unread] == [3]
            assert evaluation.counted == len(damaged_videos)


def test_progress_is_of_all_changes_together(tiny_net, val_videos, clip, monkeypatch):
    monkeypatch.setattr("bench.train.progress.EVERY_S", 0.0)
    seen = []
    evaluate_changes(tiny_net(), val_videos, changes=read_changes(NAMES), clip=clip, batch=6, report=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert "left" in str(seen[0])
    assert str(seen[0]).startswith("evaluating 3 of 5 changes")


def test_models_that_take_flow_are_refused(tiny_net, val_videos, clip):
    model = tiny_net()
    model.inputs = (InputSpec(modality="flow", channels=2),)
    with pytest.raises(InputError, match="takes optical flow"):
        evaluate_changes(model, val_videos, changes=read_changes(["reversed"]), clip=clip)
