import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import TrainingError
from bench.train.scoring import (
    average_precision,
    confused_pairs,
    confusion_matrix,
    find_relabelling,
    label_ranks,
    mean_average_precision,
    mean_per_class,
)

scores_and_labels = st.tuples(st.integers(1, 30), st.integers(2, 9), st.integers(0, 2**32 - 1))


def drawn(shape):
    rows, classes, seed = shape
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, classes)).astype(np.float32), rng.integers(0, classes, rows)


@given(scores_and_labels)
def test_ranks_agree_with_topk_of_torch(shape):
    scores, labels = drawn(shape)
    for k in (1, 2):
        best = torch.from_numpy(scores).topk(k, dim=1).indices.numpy()
        assert ((label_ranks(scores, labels) < k) == (best == labels[:, None]).any(1)).all()


@given(scores_and_labels)
def test_diagonal_of_the_confusion_matrix_is_top1_even_with_ties(shape):
    scores, labels = drawn(shape)
    scores = scores.round()
    matrix = confusion_matrix(scores, labels)
    assert np.trace(matrix) == (label_ranks(scores, labels) == 0).sum()
    assert (matrix.sum(axis=1) == np.bincount(labels, minlength=scores.shape[1])).all()


def test_pairs_are_in_the_order_of_their_counts_then_of_their_share():
    matrix = np.array([[9, 2, 0], [2, 1, 3], [0, 0, 0]])
    assert confused_pairs(matrix, 9) == [(1, 2, 3), (1, 0, 2), (0, 1, 2)]
    assert confused_pairs(matrix, 1) == [(1, 2, 3)]
    assert confused_pairs(np.diag([3, 4]), 9) == []


def test_a_constant_output_is_right_for_one_class_only():
    assert label_ranks(np.zeros((4, 4)), np.arange(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = np.ones((3, 2))
    scores[1, 0] = bad
    with pytest.raises(TrainingError, match="1 of 3 rows"):
        label_ranks(scores, np.zeros(3, dtype=int))


def test_mean_per_class_leaves_out_absent_classes():
    hits = np.array([True, True, True, False, False])
    labels = np.array([0, 0, 0, 5, 5])
    assert mean_per_class(hits, labels) == pytest.approx(0.5)
    assert np.isnan(mean_per_class(hits[:0], labels[:0]))


def test_average_precision_by_hand():
    # positives at ranks 1, 3 and 5: (1/1 + 2/3 + 3/5) / 3
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    positive = np.array([True, False, True, False, True])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_average_precision_does_not_depend_on_the_order_of_ties():
    scores = np.array([0.5, 0.5, 0.5, 0.5])
    for positive in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert average_precision(scores, np.array(positive, dtype=bool)) == pytest.approx(0.25)


def test_mean_average_precision_leaves_out_classes_without_a_positive():
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4]])
    targets = np.array([[True, False, False], [False, True, False]])
    assert mean_average_precision(scores, targets) == pytest.approx(1.0)


# Another order of the classes -----------------------------------------------------------------------------------------


def predictions_of(classes, per_class, *, accuracy, order, seed):
    """Scores of a model that is right with probability `accuracy`, under another order of the classes, and labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    is_right = random.random(len(labels)) < accuracy
    predicted = np.where(is_right, labels, random.integers(classes, size=len(labels)))
    return np.eye(classes, dtype=np.float32)[np.asarray(order)[predicted]], labels


@pytest.mark.parametrize(("classes", "per_class", "accuracy"), [(2, 6, 1.0), (5, 8, 0.8), (101, 6, 0.6)])
def test_a_wrong_order_of_the_classes_is_found(classes, per_class, accuracy):
    order = np.roll(np.arange(classes), 1)
    scores, labels = predictions_of(classes, per_class, accuracy=accuracy, order=order, seed=0)
    found = find_relabelling(scores, labels)
    assert found is not None
    assert found.top1_as_is < 0.2
    assert found.top1_relabelled > accuracy - 0.25
    right = np.asarray(found.mapping)[order] == np.arange(classes)
    assert right.mean() > 0.9
    assert "another order of the classes" in str(found)


@pytest.mark.parametrize("classes", [2, 5, 20])
@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.9])
def test_a_right_order_raises_no_alarm(classes, accuracy):
    """A model without skill (accuracy 0: it guesses) must not be explained by an order that fits its noise."""
    alarms = 0
    for seed in range(60):
        scores, labels = predictions_of(classes, 10, accuracy=accuracy, order=range(classes), seed=seed)
        alarms += find_relabelling(scores, labels) is not None
    assert alarms <= 1


def test_two_swapped_classes_of_many_are_too_little_for_a_warning():
    order = [1, 0, *range(2, 20)]
    scores, labels = predictions_of(20, 10, accuracy=1.0, order=order, seed=0)
    assert find_relabelling(scores, labels) is None
