import contextlib
import math
import multiprocessing.forkserver
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.core.errors import InputError, TrainingError
from bench.train.checkpointing import read_state, read_weights
from bench.train.curves import read_curves
from bench.train.evaluating import evaluate
from bench.train.fitting import CheckpointInterval, TrainingInterrupted, fit
from bench.train.training_state import TrainingState

EVERYTHING = {
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema": 0.9,
    "clip_grad": 1.0,
    "accumulate": 2,
    "label_smoothing": 0.1,
}


@pytest.fixture
def run(train_videos, val_videos, clip, tiny_net):
    """Trains the tiny network; `dies_at` raises before that step, as a kill would end it."""

    def go(recipe, folder, *, model=None, dies_at=None, interval=None, **options):
        model = model or tiny_net(dropout=0.3)
        options = {"val": val_videos, "clip": clip, "seed": 1, "folder": folder, "interval": interval, **options}
        with pytest.MonkeyPatch.context() as patch:
            if dies_at is not None:
                step = TrainingState.step

                def mortal(training, batch):
                    if training.step_count == dies_at:
                        raise KeyboardInterrupt
                    step(training, batch)

                patch.setattr(TrainingState, "step", mortal)
            return model, fit(model, recipe, train_videos, **options)

    return go


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"schedule": {"name": "plateau", "patience": 0}}])
def test_a_training_that_was_killed_ends_with_the_same_weights_to_the_bit(tmp_path, run, recipe_of, changes):
    recipe, every = recipe_of(**changes), CheckpointInterval(steps=1)
    whole, fitted = run(recipe, tmp_path / "whole")
    for step in (2, 4, 7, 11):
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "killed", dies_at=step, interval=every)
    resumed, again = run(recipe, tmp_path / "killed", interval=every)
    assert again.resumed_at == 11
    assert same_weights(whole, resumed)
    curves = [read_curves(each.curves) for each in (fitted, again)]
    for row, other in zip(*curves, strict=True):
        assert {k: row[k] for k in ("loss", "val_top1", "lr")} == {k: other[k] for k in ("loss", "val_top1", "lr")}


def test_a_torn_checkpoint_falls_back_to_the_previous_one_with_a_warning(tmp_path, run, recipe_of):
    whole, _ = run(recipe_of(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(recipe_of(), tmp_path / "killed", dies_at=7, interval=CheckpointInterval(steps=1))
    newest = max((tmp_path / "killed").glob("state_*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed, fitted = run(recipe_of(), tmp_path / "killed", interval=CheckpointInterval(steps=1))
    assert fitted.resumed_at == 6
    assert fitted.warnings == (f"{newest.name} is damaged; resumed from " + fitted.warnings[0].split()[-1],)
    assert same_weights(whole, resumed)


def test_a_finished_training_is_not_trained_again(tmp_path, run, recipe_of):
    model, first = run(recipe_of(), tmp_path)
    again, second = run(recipe_of(), tmp_path, dies_at=0)
    assert second.was_done
    assert (second.identity, second.steps, second.seconds) == (first.identity, first.steps, first.seconds)
    assert same_weights(model, again)
    assert not list(tmp_path.glob("state_*"))


def test_a_folder_with_another_training_is_refused(tmp_path, run, recipe_of):
    run(recipe_of(), tmp_path / "done")
    with pytest.raises(KeyboardInterrupt):
        run(recipe_of(), tmp_path / "begun", dies_at=3, interval=CheckpointInterval(steps=1))
    for folder in ("done", "begun"):
        with pytest.raises(InputError, match="holds another training"):
            run(recipe_of(batch=8), tmp_path / folder)


def test_weights_describe_themselves_and_load_without_pickle(tmp_path, run, recipe_of):
    model, fitted = run(recipe_of(), tmp_path, about={"model": "tiny"})
    content = read_weights(fitted.last)
    assert {content[key] for key in ("model", "recipe")} == {"tiny"}
    assert (content["epoch"], content["steps"]) == (3, 12)
    assert all(torch.equal(content["state_dict"][name], value) for name, value in model.state_dict().items())


def test_a_loss_that_is_not_finite_stops_the_training_before_a_checkpoint(tmp_path, run, recipe_of):
    recipe = recipe_of(optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch \d, by step \d \(lr 1e\+30"):
        run(recipe, tmp_path, interval=CheckpointInterval(steps=1))
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_loader_worker_killed_in_an_epoch_ends_the_training_and_the_state_stays(
    tmp_path, run, recipe_of, monkeypatch
):
    def kill(_progress):
        for pid in loader_workers():
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr("bench.train.progress.ProgressClock.count", lambda watch, clips: True)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"a worker process that reads videos died \(.+\); the kernel"):
        run(recipe_of(epochs=40), tmp_path, workers=1, interval=CheckpointInterval(steps=1), report=kill)
    assert time.monotonic() - began < 90
    assert read_state(tmp_path).state["training"]["step"] >= 1


def loader_workers():
    """The processes that the fork server of this one has started."""
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    children = Path(f"/proc/{server}/task/{server}/children")
    return [int(pid) for pid in children.read_text().split()] if server else []


def test_accumulation_takes_the_same_steps(tmp_path, run, recipe_of, tiny_net):
    plain, _ = run(recipe_of(), tmp_path / "plain", model=tiny_net(norm=False))
    split, _ = run(recipe_of(accumulate=3), tmp_path / "split", model=tiny_net(norm=False))
    for a, b in zip(plain.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_validation_takes_no_more_clips_at_once_than_a_step_does(tmp_path, run, recipe_of, tiny_net):
    """Its share of a batch, in `accumulate` passes, is what is known to fit into the memory."""
    model, seen = tiny_net(), {True: set(), False: set()}
    model.register_forward_pre_hook(lambda module, clips: seen[module.training].add(len(clips[0])))
    run(recipe_of(accumulate=3), tmp_path, model=model)
    assert seen == {True: {2}, False: {2}}


def test_curves_have_a_row_an_epoch(tmp_path, run, recipe_of):
    _, fitted = run(recipe_of(validate_every=2), tmp_path)
    rows = read_curves(fitted.curves)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["val_top1"] is None for row in rows] == [True, False, False]
    assert all(math.isfinite(row["loss"]) and 0 <= row["top1"] <= 100 for row in rows)


def test_curves_show_the_learning_rate_of_the_recipe_not_of_the_head(tmp_path, run, recipe_of):
    recipe = recipe_of(head_lr_scale=10, schedule={"name": "multistep", "milestones": [2], "factor": 0.1})
    _, fitted = run(recipe, tmp_path)
    assert [row["lr"] for row in read_curves(fitted.curves)] == pytest.approx([0.05, 0.05, 0.005])


def test_without_validation_no_epoch_is_best(tmp_path, run, recipe_of):
    _, fitted = run(recipe_of(), tmp_path, val=None)
    assert fitted.best is None
    assert fitted.last.is_file()


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path, run, recipe_of, monkeypatch):
    def full(folder, state, *, step):
        raise TrainingError("state cannot be written: No space left on device")

    monkeypatch.setattr("bench.train.fitting.write_state", full)
    _, fitted = run(recipe_of(), tmp_path, interval=CheckpointInterval(steps=5))
    (warning,) = fitted.warnings
    assert warning.startswith("state cannot be written: No space left on device")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 400 kB, and a file that fills it; skips where nothing can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "vbench-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder, folder / "ballast"
    subprocess.run(["umount", str(folder)], check=True)


def fill(ballast):
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_disk_that_fills_up_leaves_a_checkpoint_to_go_on_from(tmp_path, run, recipe_of, small_disk, monkeypatch):
    whole, _ = run(recipe_of(), tmp_path / "whole")
    folder, ballast = small_disk[0] / "training", small_disk[1]
    step = TrainingState.step

    def filling(self, batch):
        if self.step_count == 6:
            fill(ballast)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "step", filling)
        with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
            run(recipe_of(), folder, interval=CheckpointInterval(steps=2))
    assert read_state(folder).state["training"]["step"] == 6
    assert not list(folder.glob(".unfinished-*"))
    ballast.unlink()
    resumed, fitted = run(recipe_of(), folder, interval=CheckpointInterval(steps=2))
    assert fitted.resumed_at == 6
    assert same_weights(whole, resumed)


def test_a_set_smaller_than_a_batch_is_refused(tmp_path, run, recipe_of):
    with pytest.raises(InputError, match="24 videos do not fill one batch of 25"):
        run(recipe_of(batch=25), tmp_path)


def test_dropout_of_the_recipe_needs_a_layer_to_set(tmp_path, run, recipe_of, tiny_net):
    model = tiny_net()
    run(recipe_of(dropout=0.7, epochs=1), tmp_path / "a", model=model)
    assert model.dropout.p == 0.7
    with pytest.raises(InputError, match="no dropout layer"):
        run(recipe_of(dropout=0.7), tmp_path / "b", model=torch.nn.Sequential(torch.nn.Linear(1, 1)))


def test_progress_shows_epoch_loss_and_time_left(tmp_path, run, recipe_of, monkeypatch):
    monkeypatch.setattr("bench.train.progress.ProgressClock.count", lambda watch, clips: True)
    said = []
    run(recipe_of(), tmp_path, report=said.append)
    training = [p for p in said if p.what.startswith("epoch")]
    assert len(training) == 12
    assert training[-1].fraction == 1.0
    assert all(p.seconds_left >= 0 for p in training)
    assert str(training[0]).startswith("epoch 1/3 step 1/4 · loss ")


def test_ctrl_c_finishes_the_step_saves_and_names_the_command_to_resume(run, recipe_of, tmp_path):
    """The first Ctrl-C comes in the middle of a step; the result is that of a training that nobody stopped."""
    whole, _ = run(recipe_of(), tmp_path / "whole")
    step, told = TrainingState.step, []

    def interrupted(self, batch):
        if self.step_count == 5:
            signal.raise_signal(signal.SIGINT)
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "step", interrupted)
        with pytest.raises(TrainingInterrupted, match="stopped in epoch 2 of 3; the same command goes on"):
            run(recipe_of(), tmp_path / "cut", report=lambda progress: told.append(str(progress)))
    assert told[-1].startswith("stopped in epoch 2 of 3")
    assert read_state(tmp_path / "cut").state["training"]["step"] == 6
    model, result = run(recipe_of(), tmp_path / "cut", report=lambda progress: told.append(str(progress)))
    assert result.resumed_at == 6
    assert any(text.startswith("going on from epoch 2 of 3") for text in told)
    assert same_weights(model, whole)


def test_a_second_ctrl_c_stops_at_once(run, recipe_of, tmp_path):
    step = TrainingState.step

    def interrupted_twice(self, batch):
        if self.step_count == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        step(self, batch)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background may ignore SIGINT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "step", interrupted_twice)
        with pytest.raises(KeyboardInterrupt) as error:
            run(recipe_of(), tmp_path)
    assert not isinstance(error.value, TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_epoch_ends_with_a_checkpoint_if_that_is_cheap(run, recipe_of, tmp_path):
    """Killed without a warning in the third epoch, a training loses that epoch at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.train.fitting.CHEAP_SHARE", 1e9)
        with pytest.raises(KeyboardInterrupt):
            run(recipe_of(), tmp_path, dies_at=9)
    assert read_state(tmp_path).state["training"]["step"] == 8


def test_weights_of_every_second_epoch_are_kept_on_request(run, recipe_of, tmp_path):
    run(recipe_of(keep_every=2, epochs=4), tmp_path)
    kept = {path.name: read_weights(path)["epoch"] for path in tmp_path.glob("epoch_*.pt")}
    assert kept == {"epoch_2.pt": 2, "epoch_4.pt": 4}


def test_validations_use_the_number_of_clips_of_the_recipe(run, recipe_of, tmp_path, monkeypatch):
    views = []

    def evaluated(*arguments, **options):
        views.append(options["views"])
        return evaluate(*arguments, **options)

    monkeypatch.setattr("bench.train.fitting.evaluate", evaluated)
    run(recipe_of(validation_clips=3, epochs=1), tmp_path)
    assert views == [(3, 1)]
