"""Effects of changed input, on predictions small enough to count by hand."""

import numpy as np
import pytest

from bench.core.errors import InputError
from bench.train.change_effects import change_effects
from bench.train.predictions import Predictions

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def predicting(classes, labels=LABELS):
    scores = np.eye(3, dtype=np.float32)[list(classes)]
    videos = tuple(f"v{number}" for number in range(len(labels)))
    return Predictions(videos=videos, labels=labels, scores=scores, classes=("a", "b", "c"), protocol={})


PLAIN = predicting([0, 0, 0, 0, 1, 1, 1, 2])  # 7 of 8


def test_a_change_is_compared_video_by_video_and_class_by_class():
    found = change_effects({"none": PLAIN, "reversed": predicting([0, 0, 0, 0, 0, 0, 0, 1])})
    (effect,) = found.effects
    assert (found.unchanged.value, effect.top1.value) == (7 / 8, 5 / 8)
    assert (effect.agreement.only_a, effect.agreement.only_b) == (3, 1)
    assert effect.difference.value == -2 / 8
    assert effect.p == pytest.approx(2 * (1 + 4) / 16)
    worst, best = effect.classes
    assert (worst.name, worst.unchanged, worst.changed, worst.videos) == ("b", 0.75, 0.25, 4)
    assert (best.name, best.difference, best.p) == ("a", 0, 1)


def test_use_of_time_is_the_share_that_is_lost_without_order_and_kept_by_one_frame():
    found = change_effects(
        {
            "none": PLAIN,
            "reversed": predicting([2] * 8),
            "shuffled": predicting([0, 0, 2, 2, 1, 2, 2, 2]),
            "single_frame": predicting([0, 2, 2, 2, 2, 2, 2, 2]),
        }
    ).use_of_time
    assert found.without_order == "shuffled"
    assert found.lost.value == pytest.approx(4 / 7)
    assert found.one_frame.value == pytest.approx(1 / 7)
    assert found.lost.low < 4 / 7 < found.lost.high
    assert "57 % (" in found.sentences[0]


def test_a_model_without_a_right_answer_has_no_share_to_lose():
    wrong = predicting([2] * 8)
    assert change_effects({"none": wrong, "shuffled": wrong}).use_of_time.lost is None


def test_the_interval_of_a_lost_share_covers_it_at_95_percent():
    """Of many samples from known shares; each interval is of resampled videos."""
    random, covered = np.random.default_rng(5), 0
    for _ in range(200):
        cell = random.choice(3, size=300, p=(0.5, 0.3, 0.2))  # right in both, in the unchanged only, in neither
        labels = np.zeros(300, dtype=np.int64)
        plain, changed = predicting(np.where(cell < 2, 0, 1), labels), predicting(np.where(cell < 1, 0, 1), labels)
        lost = change_effects({"none": plain, "shuffled": changed}).use_of_time.lost
        covered += lost.low <= 0.3 / 0.8 <= lost.high
    assert 0.91 <= covered / 200 <= 0.99


def test_curves_run_from_mild_to_hard_and_their_errors_are_averaged():
    half, quarter = predicting([0, 0, 0, 0, 2, 2, 2, 2]), predicting([0, 0, 2, 2, 2, 2, 2, 2])
    found = change_effects({"none": PLAIN, "jpeg:5": quarter, "jpeg:80": half, "noise:0.3": half, "noise:0.02": PLAIN})
    curves = {curve.name: [severity for severity, _ in curve.points] for curve in found.curves}
    assert curves == {"jpeg": [80, 5], "noise": [0.02, 0.3]}
    jpeg, noise = (0.5 + 0.75) / 2, (1 / 8 + 0.5) / 2
    assert found.mean_corruption_error == pytest.approx((jpeg + noise) / 2)


def test_a_change_of_a_plug_in_that_is_not_loaded_has_no_curve():
    found = change_effects({"none": PLAIN, "own_change:3": PLAIN})
    assert (found.curves, found.mean_corruption_error, found.effects[0].name) == ((), None, "own_change:3")


def test_without_changes_there_is_nothing_to_tell():
    assert change_effects({"none": PLAIN}) is None


def test_other_videos_are_an_error():
    fewer = predicting([0], np.array([0]))
    with pytest.raises(InputError, match="7 videos have a score for the unchanged or the changed input only"):
        change_effects({"none": PLAIN, "bitrate:0.1": fewer})
