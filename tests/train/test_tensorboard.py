"""What TensorBoard reads is what the CSV file of the curves says."""

import sys

import pytest

from bench.core.errors import MissingPackageError
from bench.train.curves import EventFile, read_curves
from bench.train.fitting import CheckpointInterval, fit
from bench.train.training_state import TrainingState

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def scalars(folder):
    """`{tag: [(step, value), …]}` as TensorBoard itself reads them."""
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def assert_says_the_same(folder):
    rows, seen = read_curves(folder / "curves.csv"), scalars(folder / "tensorboard")
    for name, tag in {"loss": "loss/train", "val_top1": "top1/val", "lr": "rate/lr"}.items():
        assert seen[tag] == [(row["step"], pytest.approx(row[name], rel=1e-4)) for row in rows], name


def test_each_epoch_is_at_its_step(train_videos, val_videos, clip, recipe_of, tiny_net, tmp_path):
    options = {"val": val_videos, "clip": clip, "seed": 1}
    fit(tiny_net(), recipe_of(), train_videos, folder=tmp_path / "a", tensorboard=True, **options)
    assert_says_the_same(tmp_path / "a")
    fit(tiny_net(), recipe_of(), train_videos, folder=tmp_path / "b", **options)
    assert not (tmp_path / "b" / "tensorboard").exists()


def test_unmeasured_values_are_left_out(train_videos, clip, recipe_of, tiny_net, tmp_path):
    fit(tiny_net(), recipe_of(), train_videos, clip=clip, seed=1, folder=tmp_path, tensorboard=True)
    assert set(scalars(tmp_path / "tensorboard")) == {"loss/train", "top1/train", "rate/lr", "speed/clips_per_s"}


def test_an_epoch_that_is_repeated_after_a_kill_is_written_once(
    train_videos, val_videos, clip, recipe_of, tiny_net, tmp_path, monkeypatch
):
    options = {"val": val_videos, "clip": clip, "seed": 1, "folder": tmp_path, "tensorboard": True}
    monkeypatch.setattr("bench.train.fitting.CHEAP_SHARE", -1.0)  # checkpoints at the interval only
    step = TrainingState.step

    def mortal(self, batch):
        if self.step_count == 9:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(TrainingState, "step", mortal)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), recipe_of(), train_videos, interval=CheckpointInterval(steps=7), **options)
    monkeypatch.setattr(TrainingState, "step", step)
    again = fit(tiny_net(), recipe_of(), train_videos, interval=CheckpointInterval(steps=7), **options)
    assert again.resumed_at == 7
    assert_says_the_same(tmp_path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match="pip install tensorboard"):
        EventFile(tmp_path, from_step=0)
