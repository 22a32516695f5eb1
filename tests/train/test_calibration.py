"""Calibration, against values worked out by hand, an independent implementation, and known distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from bench.train.calibration import (
    abstain,
    area_under_risk_coverage,
    brier_score,
    calibrate,
    calibration_error_interval,
    expected_calibration_error,
    fit_temperature,
    judge_temperature,
    reliability,
    risk_coverage,
)


def outputs(videos, *, sharpness, seed=0, classes=5):
    """Logits of a model, and labels drawn from the softmax of logits that are `sharpness` times less extreme."""
    random = np.random.default_rng(seed)
    logits = 2 * random.standard_normal((videos, classes))
    labels = np.array([random.choice(classes, p=p) for p in softmax(logits / sharpness, axis=1)])
    return logits, labels


def test_the_error_is_the_mean_gap_of_bins_of_equal_size():
    confidence = np.array([0.9, 0.9, 0.6, 0.6, 0.3, 0.3])
    right = np.array([True, True, True, False, False, False])
    assert expected_calibration_error(confidence, right, bins=3) == pytest.approx((0.1 + 0.1 + 0.3) / 3)
    assert expected_calibration_error(confidence, right, bins=1) == pytest.approx(0.6 - 0.5)


def test_with_bins_of_equal_width_it_is_that_of_torchmetrics():
    """torchmetrics has bins of equal width; evenly spread confidences fall into the same ones."""
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    confidence = (np.arange(600) + 0.5) / 600
    right = np.random.default_rng(1).random(600) < confidence**2
    theirs = functional.binary_calibration_error(torch.tensor(confidence), torch.tensor(right.astype(int)), n_bins=15)
    assert expected_calibration_error(confidence, right) == pytest.approx(float(theirs), abs=1e-4)


def test_with_bins_of_equal_size_it_is_that_of_netcal():
    """The value is that of `netcal.metrics.ECE(bins=15, equal_intervals=False)`, netcal 1.4.0.

    netcal is no test requirement, because it installs pyro, gpytorch, scikit-learn and matplotlib.
    """
    random = np.random.default_rng(2)
    confidence, right = random.beta(5, 2, 300), random.random(300) < 0.6
    assert expected_calibration_error(confidence, right) == pytest.approx(0.1824844450284445, abs=1e-9)


def test_it_is_that_of_a_second_implementation_on_uneven_scores():
    random = np.random.default_rng(2)
    confidence, right = random.beta(5, 2, 307), random.random(307) < 0.6
    order, start, total = sorted(range(307), key=lambda row: confidence[row]), 0, 0.0
    for number in range(15):
        size = 307 // 15 + (number < 307 % 15)
        rows = order[start : start + size]
        total += abs(sum(confidence[row] - right[row] for row in rows))
        start += size
    assert expected_calibration_error(confidence, right) == pytest.approx(total / 307)


@pytest.mark.slow
def test_its_interval_covers_the_error_of_the_model_at_95_percent():
    """The error of a sharpened model in its own bins, known from many more videos."""
    logits, labels = outputs(100_000, sharpness=2.0)
    scores = softmax(logits, axis=1)
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    true = expected_calibration_error(confidence, right, bins=10)
    covered = 0
    for start in range(0, 100_000, 1000):
        rows = slice(start, start + 1000)
        found = calibration_error_interval(confidence[rows], right[rows], bins=10)
        covered += found.low <= true <= found.high
    assert covered >= 89


def test_brier_is_the_squared_distance_to_the_label():
    scores = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert brier_score(scores, np.array([0, 2])) == pytest.approx((0.09 + 0.04 + 0.01 + 2) / 2)


def test_reliability_runs_from_low_to_high_confidence():
    low, high = reliability(np.array([0.9, 0.2, 0.8, 0.3]), np.array([True, False, True, True]), bins=2)
    assert (low.videos, low.confidence, low.right.value) == (2, 0.25, 0.5)
    assert (high.confidence, high.right.value) == (pytest.approx(0.85), 1.0)


def test_risk_and_coverage_by_hand():
    confidence, right = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])
    assert risk_coverage(confidence, right) == ((0.25, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5))
    assert area_under_risk_coverage(confidence, right) == pytest.approx(0.25 * 0 + 0.5 / 3 + 0.25 * 0.5)


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=40))
def test_the_last_risk_is_the_error_and_the_area_lies_between_0_and_1(pairs):
    confidence, right = np.array([score / 20 for score, _ in pairs]), np.array([hit for _, hit in pairs])
    coverage, risk = risk_coverage(confidence, right)[-1]
    assert (coverage, risk) == (1.0, pytest.approx(1 - right.mean()))
    assert 0 <= area_under_risk_coverage(confidence, right) <= 1


def test_the_temperature_is_the_one_that_sharpened_the_scores():
    logits, labels = outputs(4000, sharpness=2.0)
    log_scores = log_softmax(logits, axis=1)
    found = fit_temperature(log_scores, labels)
    theirs = minimize_scalar(
        lambda t: -log_softmax(log_scores / t, axis=1)[np.arange(4000), labels].mean(),
        bounds=(0.1, 10),
        method="bounded",
    )
    assert found == pytest.approx(theirs.x, rel=1e-3)
    assert found == pytest.approx(2.0, rel=0.1)


def test_a_temperature_is_judged_on_the_other_half():
    logits, labels = outputs(4000, sharpness=2.0)
    found = judge_temperature(softmax(logits, axis=1).astype(np.float32), labels)
    assert found.value == pytest.approx(2.0, rel=0.15)
    assert found.error_after < 0.5 * found.error_before
    assert judge_temperature(np.eye(3), np.array([0, 1, 2])) is None
    assert judge_temperature(np.eye(8)[[0, 1] * 4], np.array([0, 1] * 4)) is None  # without errors nothing is fitted


def test_unknown_is_answered_below_the_lowest_threshold_that_is_precise_enough():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    found = abstain(confidence, np.array([True, True, False, True]), precision=0.75)
    assert (found.threshold, found.coverage, found.precision.value) == (0.6, 1.0, 0.75)
    found = abstain(confidence, np.array([True, False, False, False]), precision=0.9)
    assert (found.threshold, found.coverage) == (0.9, 0.25)
    assert abstain(confidence, np.zeros(4, dtype=np.bool_), precision=0.5) is None


def test_a_calibrated_model_has_a_smaller_error_than_a_sharpened_one():
    logits, labels = outputs(2000, sharpness=1.0)
    good, sharp = (calibrate(softmax(factor * logits, axis=1), labels) for factor in (1, 3))
    assert good.error.value < 0.04 < 0.1 < sharp.error.low
    assert good.brier < sharp.brier
    assert good.error.low <= good.error.value <= good.error.high
