"""Videos to look at, on scores worked out by hand."""

import numpy as np
import pytest

from bench.core.errors import InputError
from bench.train.predictions import Predictions
from bench.train.suspicious import confident_errors, probable_label_errors

CLASSES = ("jump", "run", "sit")


def found(rows, labels):
    scores = np.array(rows, dtype=np.float32)
    videos = tuple(f"v{number}" for number in range(len(labels)))
    return Predictions(videos=videos, labels=np.array(labels), scores=scores, classes=CLASSES, protocol={})


SEEN = found(
    [[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.05, 0.9, 0.05], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]],
    [0, 0, 0, 1, 1],
)


def test_errors_are_listed_from_the_most_confident_one():
    assert [each.video for each in confident_errors(SEEN)] == ["v2", "v1", "v4"]
    first = confident_errors(SEEN)[0]
    assert (first.label, first.predicted) == ("jump", "run")
    assert (first.label_score, first.predicted_score) == pytest.approx((0.05, 0.9))


def test_a_cell_of_the_confusion_matrix_has_its_videos():
    assert [each.video for each in confident_errors(SEEN, true="jump", predicted="run")] == ["v2", "v1"]
    assert [each.video for each in confident_errors(SEEN, predicted="sit")] == ["v4"]
    assert [each.video for each in confident_errors(SEEN, true="jump", predicted="jump")] == ["v0"]


def test_a_label_is_probably_wrong_if_another_class_is_as_sure_as_on_its_own_videos():
    """Class thresholds: jump (0.9 + 0.2 + 0.05) / 3 = 0.383, run (0.8 + 0.1) / 2 = 0.45, sit has no videos."""
    assert [each.video for each in probable_label_errors(SEEN)] == ["v2", "v1"]
    assert probable_label_errors(SEEN, true="run") == []
    assert [each.predicted for each in probable_label_errors(SEEN, predicted="run")] == ["run", "run"]


def test_wrong_labels_that_were_planted_are_ranked_first():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    scores = 0.1 + 0.7 * np.eye(3)[labels] + 0.05 * random.random((300, 3))
    planted = set(range(0, 300, 30))
    given = np.where(np.isin(np.arange(300), list(planted)), (labels + 1) % 3, labels)
    listed = probable_label_errors(found(scores, given))
    found_places = {int(each.video[1:]) for each in listed}
    assert found_places <= planted
    assert len(found_places) >= 9


def test_an_unknown_class_has_a_hint():
    with pytest.raises(InputError, match="unknown class 'jmp'; did you mean: jump"):
        confident_errors(SEEN, true="jmp")
