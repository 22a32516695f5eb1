"""Heads on frozen features: against scikit-free implementations of their papers, and on data whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.core.errors import InputError, TrainingError
from bench.train.frozen_heads import (
    FeatureSource,
    HeadSettings,
    build_head,
    choose_head,
    few_shots,
    fit_heads,
    knn_scores,
    score,
)

LINEAR = HeadSettings(kind="linear", grid=((0.1, 0.0),), epochs=30, batch=16)
ATTENTIVE = HeadSettings(kind="attentive", grid=((0.003, 0.01),), epochs=30, batch=16, blocks=2, attention_heads=4)


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads only wait for each other on heads as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Features:
    """Features in memory, in the form of a `FeatureSource`."""

    def __init__(self, values, labels):
        self.values, self.labels = torch.as_tensor(values, dtype=torch.float32), np.asarray(labels)
        self.views, self.width = self.values.shape[1], self.values.shape[-1]

    def read(self, rows):
        return self.values[torch.as_tensor(rows)]


def blobs(n, *, classes=3, views=2, seed=0, spread=0.6):
    """Vectors around a corner per class, on axes of very different scale."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    values = np.eye(classes)[labels][:, None] + spread * random.standard_normal((n, views, classes))
    return Features(values * np.array([1, 100, 0.01]) + 5, labels)


def planted(n, *, seed=0, tokens=6, width=8):
    """Tokens of which one at a random place carries the class; the mean of the tokens hides it in noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    values = random.standard_normal((n, 1, tokens, width))
    place = random.integers(0, tokens, n)
    values[np.arange(n), 0, place, 0] = 8
    values[np.arange(n), 0, place, 1] = np.where(labels, 4, -4)
    return Features(values, labels)


def top1(scores, labels):
    return float((scores.argmax(1) == labels).mean())


def choose(settings, train, test, **more):
    rows = np.arange(len(train.labels))
    given = {"rows": rows, "held_out": rows[:0], "refit": None, "classes": 3, "seed": 0} | more
    return choose_head(settings, train, test, **given)


@given(st.integers(1, 30), st.integers(0, 100))
def test_nearest_neighbours_are_those_of_a_loop_over_videos(neighbours, seed):
    random = np.random.default_rng(seed)
    train, labels = random.standard_normal((12, 4)).astype(np.float32), random.integers(0, 3, 12)
    test = random.standard_normal((5, 4)).astype(np.float32)
    found = knn_scores(train, labels, test, classes=3, neighbours=neighbours, temperature=0.07)
    for row, video in enumerate(test):
        near = sorted(
            ((float(video @ other / np.linalg.norm(video) / np.linalg.norm(other)), label)
             for other, label in zip(train, labels, strict=True)),
            reverse=True,
        )[:neighbours]  # fmt: skip
        votes = np.zeros(3)
        for similarity, label in near:
            votes[label] += math.exp(similarity / 0.07)
        np.testing.assert_allclose(found[row], votes / votes.sum(), rtol=2e-3, atol=1e-5)


def test_neighbours_do_not_overflow_at_a_low_temperature():
    train = np.eye(2, dtype=np.float32)
    found = knn_scores(train, np.array([0, 1]), train, classes=2, temperature=1e-4)
    np.testing.assert_allclose(found, np.eye(2), atol=1e-6)


def test_a_linear_head_finds_classes_on_axes_of_any_scale():
    fitted = choose(LINEAR, blobs(90), blobs(60, seed=1))
    assert top1(fitted.scores, blobs(60, seed=1).labels) > 0.85
    np.testing.assert_allclose(fitted.scores.sum(1), 1, rtol=1e-5)
    assert (fitted.lr, fitted.weight_decay, fitted.held_out_top1) == (0.1, 0.0, None)


def test_an_attentive_head_finds_the_token_that_a_mean_hides():
    train, test = planted(160), planted(80, seed=1)
    attentive = choose(ATTENTIVE, train, test, classes=2)
    means = [Features(each.values.mean(2), each.labels) for each in (train, test)]
    linear = choose(LINEAR, *means, classes=2)
    assert top1(attentive.scores, test.labels) > 0.95
    assert top1(attentive.scores, test.labels) > top1(linear.scores, test.labels)


def test_the_normalisation_of_a_linear_head_has_no_parameters():
    head = build_head(LINEAR, width=5, classes=3)
    assert [tuple(each.shape) for each in head.parameters()] == [(3, 5), (3,)]


def attentive_by_hand(head, tokens):
    """V-JEPA 2's classifier from the weights alone: self-attention blocks, then one query that gathers."""
    state, heads = head.state_dict(), ATTENTIVE.attention_heads

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attend(query, key, value):
        out = torch.zeros_like(query)
        size = query.shape[-1] // heads
        for own in (slice(h * size, (h + 1) * size) for h in range(heads)):
            weights = (query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(size)).softmax(-1)
            out[..., own] = weights @ value[..., own]
        return out

    def mlp(x, name):
        return linear(F.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2")

    for block in (f"0.blocks.{number}" for number in range(ATTENTIVE.blocks - 1)):
        query, key, value = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        tokens = tokens + linear(attend(query, key, value), f"{block}.attn.proj")
        tokens = tokens + mlp(norm(tokens, f"{block}.norm2"), f"{block}.mlp")
    last, query = "0.cross_attention_block", state["0.query_tokens"].expand(len(tokens), -1, -1)
    key, value = linear(norm(tokens, f"{last}.norm1"), f"{last}.xattn.kv").chunk(2, dim=-1)
    query = query + attend(linear(query, f"{last}.xattn.q"), key, value)
    query = query + mlp(norm(query, f"{last}.norm2"), f"{last}.mlp")
    return linear(query[:, 0], "1")


def test_the_attentive_head_is_v_jepa_2s():
    torch.manual_seed(0)
    head = build_head(ATTENTIVE, width=8, classes=3).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(4, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(head(tokens), attentive_by_hand(head, tokens), rtol=1e-4, atol=1e-4)


def test_heads_trained_together_are_those_trained_alone():
    train, rows = blobs(40), np.arange(40)
    grid = ((0.01, 0.0), (0.1, 0.01), (1.0, 0.0))
    together = fit_heads(LINEAR, train, rows=rows, grid=grid, classes=3, seed=4)
    for head, pair in zip(together, grid, strict=True):
        (alone,) = fit_heads(LINEAR, train, rows=rows, grid=[pair], classes=3, seed=4)
        for ours, theirs in zip(head.state_dict().values(), alone.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_choice_is_made_on_held_out_training_videos_alone():
    """With wrong labels of all test videos, the good head looks worst on them: it is chosen all the same."""
    train, test = blobs(90), blobs(60, seed=1)
    mislabelled = Features(test.values, (test.labels + 1) % 3)
    settings = HeadSettings(kind="linear", grid=((1e-6, 0.0), (0.1, 0.0)), epochs=20, batch=16)
    rows = np.arange(90)
    more = {"rows": rows[18:], "held_out": rows[:18], "refit": rows}
    found = choose(settings, train, test, **more)
    assert found.lr == 0.1
    assert found.held_out_top1 > 0.8
    np.testing.assert_array_equal(choose(settings, train, mislabelled, **more).scores, found.scores)


def test_a_head_that_diverges_is_not_chosen():
    train, rows = blobs(90), np.arange(90)
    settings = HeadSettings(kind="linear", grid=((1e30, 0.0), (0.1, 0.0)), epochs=5, batch=16)
    found = choose(settings, train, blobs(60, seed=1), rows=rows[18:], held_out=rows[:18])
    assert found.lr == 0.1
    with pytest.raises(TrainingError, match="the loss of every linear head is not finite"):
        choose(HeadSettings(kind="linear", grid=((1e38, 1.0),), epochs=9, batch=16), train, train)


def test_scores_are_the_mean_probability_of_the_views():
    source = blobs(6, views=3)
    head = build_head(LINEAR, width=3, classes=3).eval()
    expected = head(source.values.flatten(0, 1)).softmax(1).view(6, 3, 3).mean(1)
    np.testing.assert_allclose(score(head, source, np.arange(6)), expected.detach().numpy(), rtol=1e-5)


@given(st.integers(1, 4), st.integers(0, 50))
def test_shots_are_as_many_of_each_class_as_it_has(shots, seed):
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    rows = np.arange(1, 10)
    chosen = few_shots(labels, rows, shots=shots, seed=seed)
    assert set(chosen) <= set(rows)
    assert np.bincount(labels[chosen]).tolist() == [min(shots, n) for n in (2, 2, 5)]
    np.testing.assert_array_equal(chosen, few_shots(labels, rows, shots=shots, seed=seed))


def test_shots_of_other_seeds_are_other_videos():
    labels = np.zeros(50, dtype=np.int64)
    draws = {tuple(few_shots(labels, np.arange(50), shots=3, seed=seed)) for seed in range(5)}
    assert len(draws) == 5
    with pytest.raises(InputError, match="shots is 0"):
        few_shots(labels, np.arange(50), shots=0, seed=0)


def test_tokens_of_the_clips_of_one_crop_are_joined():
    """Views are temporal x spatial with the crops of one clip adjacent: 2 clips of 3 crops."""

    class Stored:
        labels = np.array([0])
        sizes = type("Sizes", (), {"views": 6, "token_width": 1, "width": 1})

        def tokens(self, rows):
            return np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)[rows]

        def __len__(self):
            return 1

    source = FeatureSource(Stored(), has_tokens=True, spatial_views=3)
    assert source.views == 3
    assert source.read(np.array([0]))[0, :, :, 0].tolist() == [[0, 3], [1, 4], [2, 5]]
