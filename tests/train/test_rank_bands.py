"""Ranks as bands, on models whose differences are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.stats import holm
from bench.train.predictions import Predictions
from bench.train.rank_bands import ensemble, rank_models

VIDEOS = 400


def model(right, *, seed=0, protocol=None, name=""):
    """Predictions of a model that gets the first `right` videos right, its scores drawn around that."""
    labels = np.arange(VIDEOS) % 4
    predicted = np.where(np.arange(VIDEOS) < right, labels, (labels + 1) % 4)
    noise = np.random.default_rng(seed).random((VIDEOS, 4)) * 0.2
    scores = (np.eye(4)[predicted] * 0.8 + noise).astype(np.float32)
    return Predictions(
        videos=tuple(f"v{number}" for number in range(VIDEOS)),
        labels=labels,
        scores=scores,
        classes=("a", "b", "c", "d"),
        protocol={"averaging": "softmax"} if protocol is None else protocol,
        model=name,
    )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        assert p <= corrected + 1e-12
        assert corrected <= min(1.0, len(p_values) * max(p, min(p_values))) + 1e-12 or corrected >= p
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_models_that_cannot_be_separated_share_a_rank():
    found = rank_models([model(200), model(381), model(380)])
    assert [band.place for band in found.bands] == [1, 2, 0]
    assert [band.text for band in found.bands] == ["1–2", "1–2", "3"]


def test_clearly_different_models_have_ranks_of_their_own():
    assert [band.text for band in rank_models([model(100), model(200), model(300)]).bands] == ["1", "2", "3"]


def test_equal_models_all_share_the_first_rank():
    assert {band.text for band in rank_models([model(300, seed=seed) for seed in range(4)]).bands} == {"1–4"}


def test_a_false_rank_is_given_at_most_once_in_twenty():
    """Ten models of one accuracy, each right on videos of its own."""
    random, alarms = np.random.default_rng(7), 0
    labels = np.zeros(200, dtype=np.int64)
    for _ in range(60):
        models = [
            Predictions(
                videos=tuple(f"v{number}" for number in range(200)),
                labels=labels,
                scores=np.eye(2, dtype=np.float32)[(random.random(200) > 0.7).astype(int)],
                classes=("a", "b"),
                protocol={},
            )
            for _ in range(10)
        ]
        alarms += any(band.text != "1–10" for band in rank_models(models).bands)
    assert alarms <= 6  # of 60; a binomial of 0.05 exceeds 6 once in a hundred


def test_the_ensemble_is_the_mean_of_all_scores():
    members = [model(200, seed=1, name="a"), model(250, seed=2, name="b"), model(300, seed=3)]
    found = ensemble(members)
    assert np.allclose(found.scores, np.mean([each.scores for each in members], axis=0), atol=1e-6)
    assert (found.model, found.protocol["averaging"]) == ("a + b + a model", "softmax")
    assert len(found.protocol["ensemble"]) == 3


def test_scores_of_different_kinds_are_not_averaged():
    with pytest.raises(InputError, match="those of file 2 are means of raw scores"):
        ensemble([model(200), model(200, protocol={"averaging": "score"})])


def test_other_videos_cannot_be_ranked():
    other = model(200)
    other = Predictions(**{**other.__dict__, "videos": tuple(f"w{number}" for number in range(VIDEOS))})
    with pytest.raises(InputError, match="different videos"):
        rank_models([model(200), other])
