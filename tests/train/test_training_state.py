"""One step after another, against the same step written out by hand."""

import copy

import pytest
import torch
from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.data.clip_batches import Batch
from bench.train import training_state as training_module
from bench.train.checkpointing import read_weights
from bench.train.evaluating import evaluate
from bench.train.fitting import fit
from bench.train.ranks import Ranks
from bench.train.training_state import MixedBatch, TrainingState

LR, CLASSES = 0.05, 2
PLAIN = {"optimizer": {"name": "sgd", "lr": LR, "momentum": 0.0}}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(6, 3, 4, 12, 12, generator=generator)
    return Batch(clips=(clips,), labels=torch.tensor([0, 1, 1, 0, 1, 0]), videos=torch.arange(6), views=1)


@pytest.fixture
def begin(recipe_of, tiny_net):
    """A training of the tiny network without batch norm, and a copy of the network as it begins."""

    def make(*, steps_per_epoch=1, **changes):
        model = tiny_net(norm=False)
        recipe = recipe_of(**{**PLAIN, **changes})
        before = copy.deepcopy(model)
        return TrainingState(
            model, recipe, seed=0, device="cpu", steps_per_epoch=steps_per_epoch, ranks=Ranks()
        ), before

    return make


def descended(model, loss, *, lr=LR):
    """`model` after one plain step down the gradient of `loss`, written out."""
    grads = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter -= lr * grad
    return model


def assert_same(model, expected):
    for (name, value), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def cross_entropy(logits, targets):
    """Against a distribution over the classes for each clip."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def one_hot(labels):
    return torch.eye(CLASSES)[labels]


def test_batch_norm_over_a_single_value_is_refused_with_the_cause(recipe_of, batch):
    model = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(3, CLASSES))
    recipe = recipe_of(**{**PLAIN, "batch": 6, "accumulate": 6})
    training = TrainingState(model, recipe, seed=0, device="cpu", steps_per_epoch=1, ranks=Ranks())
    with pytest.raises(InputError, match="passes of one clip; a batch of 6 is split over 1 processes in 6 passes"):
        training.step(batch)


def test_label_smoothing_gives_every_class_its_share(begin, batch):
    training, before = begin(label_smoothing=0.2)
    training.step(batch)
    targets = 0.8 * one_hot(batch.labels) + 0.2 / CLASSES
    assert_same(training.model, descended(before, cross_entropy(before(batch.clips[0]), targets)))


def test_mixed_clips_are_held_against_both_labels_by_their_share(begin, batch, monkeypatch):
    seen = {}

    def mixed(clips, *, mixup, cutmix, rng):
        seen.update(mixup=mixup, cutmix=cutmix)
        return MixedBatch(clips=tuple(0.3 * clip + 0.7 * clip.flip(0) for clip in clips), share=0.3)

    monkeypatch.setattr(training_module, "mix", mixed)
    training, before = begin(mixup=0.8)
    training.step(batch)
    clips = 0.3 * batch.clips[0] + 0.7 * batch.clips[0].flip(0)
    targets = 0.3 * one_hot(batch.labels) + 0.7 * one_hot(batch.labels.flip(0))
    assert_same(training.model, descended(before, cross_entropy(before(clips), targets)))
    assert seen == {"mixup": 0.8, "cutmix": 0.0}


def test_mixing_draws_new_values_each_step_and_the_same_after_a_restart(begin, batch, monkeypatch):
    shares = []
    mix = training_module.mix
    monkeypatch.setattr(training_module, "mix", lambda *a, **k: shares.append(mix(*a, **k).share) or mix(*a, **k))
    for _ in range(2):
        training, _ = begin(mixup=0.4, cutmix=0.4)
        for _ in range(4):
            training.step(batch)
    assert shares[:4] == shares[4:]
    assert len(set(shares[:4])) == 4


def test_gradients_are_clipped_by_their_norm_over_all_weights(begin, batch):
    training, before = begin(clip_grad=0.01)
    training.step(batch)
    moved = [new - old for new, old in zip(training.model.parameters(), before.parameters(), strict=True)]
    assert float(torch.cat([each.flatten() for each in moved]).norm().detach()) == pytest.approx(LR * 0.01, rel=1e-3)


def test_the_average_of_the_weights_is_evaluated_and_kept(
    recipe_of, tiny_net, train_videos, val_videos, clip, tmp_path
):
    recipe = recipe_of(ema=0.999, validate_every=1)
    model = tiny_net(norm=False)
    fitted = fit(model, recipe, train_videos, val=val_videos, clip=clip, seed=1, folder=tmp_path / "with")
    plain = tiny_net(norm=False)
    fit(plain, recipe_of(), train_videos, val=val_videos, clip=clip, seed=1, folder=tmp_path / "without")
    kept = read_weights(fitted.last)["state_dict"]
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(kept["fc.weight"], plain.state_dict()["fc.weight"])
    start = tiny_net(norm=False).state_dict()["fc.weight"]
    assert (kept["fc.weight"] - start).norm() < (plain.fc.weight - start).norm(), "it lags behind"
    best = tiny_net(norm=False)
    best.load_state_dict(kept)
    rows = (tmp_path / "with" / "curves.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    seen = evaluate(best, val_videos, clip=clip, protocol=InputProtocol(resize=recipe.resize))
    assert float(last["val_top1"]) == pytest.approx(100 * seen.top(1).value, rel=1e-4)


def test_training_starts_at_a_module_and_freezes_those_before(begin, batch):
    training, before = begin(ft_begin_module="fc")
    for _ in range(3):
        training.step(batch)
    assert torch.equal(training.model.conv.weight, before.conv.weight)
    assert torch.equal(training.model.conv.bias, before.conv.bias)
    assert not torch.equal(training.model.fc.weight, before.fc.weight)


def test_the_head_learns_faster_by_its_factor_and_both_follow_the_schedule(begin, batch):
    training, before = begin(
        head_lr_scale=10, schedule={"name": "multistep", "milestones": [1], "factor": 0.1}, steps_per_epoch=1
    )
    grads = torch.autograd.grad(nn.functional.cross_entropy(before(batch.clips[0]), batch.labels), before.fc.weight)
    training.step(batch)
    torch.testing.assert_close(training.model.fc.weight, before.fc.weight - 10 * LR * grads[0], rtol=1e-4, atol=1e-6)
    training.step(batch)
    rates = {group["name"]: group["lr"] for group in training.optimizer.param_groups}
    assert rates == {"body": pytest.approx(0.1 * LR), "head": pytest.approx(LR)}


def test_the_learning_rate_falls_if_the_validation_loss_stalls(begin, batch):
    training, _ = begin(schedule={"name": "plateau", "patience": 1, "factor": 0.5})
    rates = []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1):
        training.step(batch)
        rates.append(training.optimizer.param_groups[0]["lr"] / LR)
        training.note_epoch(validation_loss=loss)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.25]


def test_an_epoch_that_was_not_validated_does_not_count_as_one_without_progress(begin, batch):
    training, _ = begin(schedule={"name": "plateau", "patience": 0, "factor": 0.5})
    training.note_epoch(validation_loss=1.0)
    for _ in range(3):
        training.note_epoch(validation_loss=None)
    training.step(batch)
    assert training.optimizer.param_groups[0]["lr"] == LR


def test_dampening_slows_the_momentum_as_in_torchs_formula(tiny_net, recipe_of):
    """v = momentum * v + (1 - dampening) * gradient: with one dampened step after the first, by hand."""
    recipe = recipe_of(optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.5, "dampening": 0.25})
    state = TrainingState(tiny_net(), recipe, seed=0, device="cpu", steps_per_epoch=4, ranks=Ranks())
    weight = state.model.fc.bias
    start = weight.detach().clone()
    for gradient in ([1.0, -1.0], [2.0, 0.0]):
        state.optimizer.zero_grad()
        weight.grad = torch.tensor(gradient)
        state.optimizer.step()
    first = torch.tensor([1.0, -1.0])  # the first step is not dampened
    second = 0.5 * first + 0.75 * torch.tensor([2.0, 0.0])
    assert torch.allclose(weight, start - 0.1 * first - 0.1 * second)
