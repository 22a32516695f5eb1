"""Training by a recipe: epochs, validation, checkpoints, curves. Killed at any step, it goes on where it was."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.core.errors import InputError, TrainingError
from bench.core.schema import Clip, Json, digest
from bench.data.collection import VideoSet
from bench.data.loading import Batch, UnreadVideo, steps_per_epoch, train_batches
from bench.models.base import inputs_of, takes_flow
from bench.train.checkpointing import read_state, read_weights, remove_states, write_state, write_weights
from bench.train.curves import EventFile, Row, write_curves
from bench.train.energy import Energy, Meter
from bench.train.evaluating import Evaluation, averaging_of, evaluate, normalisation_of, rounding_of
from bench.train.progress import Report, Watch, silent
from bench.train.ranks import Ranks, current_ranks
from bench.train.recipe import Recipe
from bench.train.schedule import Plateau
from bench.train.training_state import Counts, Training

TRAINER = 2  # raised where the same recipe comes to train otherwise; 1 trained in evaluation mode


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A checkpoint is written after this many steps or minutes, whichever comes first."""

    steps: int = 1000
    minutes: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A finished training. `last` and `best` are weights; `best` is None where nothing was validated.

    `was_done` says that the folder held the finished training already; `resumed_at` the step that it went on from.
    `processes` shared it, and `batch_norm` says over what each normalisation of a batch was taken. `validated_on` is
    the split that its curves and `best` speak of; `rounding` is what float32 was rounded to, see `rounding_of`.
    """

    last: Path
    best: Path | None
    curves: Path
    steps: int
    seconds: float
    identity: str
    processes: int = 1
    batch_norm: str | None = None
    validated_on: str | None = None
    rounding: str | None = None
    was_done: bool = False
    resumed_at: int | None = None
    warnings: tuple[str, ...] = ()


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: VideoSet,
    *,
    val: VideoSet | None = None,
    val_decides: bool = False,
    clip: Clip,
    seed: int,
    device: str | torch.device = "cpu",
    folder: Path,
    about: Mapping[str, Json] | None = None,
    workers: int = 0,
    pace: Pace | None = None,
    report: Report = silent,
    tensorboard: bool = False,
    meter: Meter | None = None,
) -> Fitted:
    """Train `model` in place on `train`, by `recipe`, and leave weights, checkpoints and curves in `folder`.

    A folder with the same training is gone on with, or read where it is finished; one with another is an InputError.
    `about` (the model's name and arguments, the weights it began with) tells trainings apart and goes into the weights.
    `val_decides` says that figures of `val` are used, such as which epoch was best: with another `val` it is another
    training then, as it is with a plateau schedule.
    At the end `model` holds the weights that count. `tensorboard` writes the curves for that program as well, into a
    folder of its name; `meter` reads a counter of joules, for the curves. TrainingError where the loss is not finite.
    """
    name = identity(model, recipe, train, val=val, val_decides=val_decides, clip=clip, seed=seed, about=about or {})
    ranks = current_ranks()
    done: Fitted | None = ranks.share(_finished(folder, name) if ranks.is_first else None)
    if done is not None:
        if ranks.is_first:
            remove_states(folder)
        model.load_state_dict(read_weights(done.last)["state_dict"])
        model.to(device)
        return done
    loading = _Loading(train, recipe, model, clip=clip, seed=seed, workers=workers, ranks=ranks)
    training = Training(model, recipe, seed=seed, device=device, steps_per_epoch=loading.steps_per_epoch, ranks=ranks)
    notes = {**(about or {}), "recipe": recipe.recipe, "identity": name}
    notes |= {"processes": ranks.world, "batch_norm": training.batch_norm}
    run = _Run(training, loading, val=val, folder=folder, notes=notes, pace=pace or Pace(), report=report, meter=meter)
    if not (tensorboard and ranks.is_first):
        return run.go()
    with EventFile(folder / "tensorboard", from_step=run.saved_step) as run.events:
        return run.go()


def identity(
    model: nn.Module,
    recipe: Recipe,
    train: VideoSet,
    *,
    val: VideoSet | None = None,
    val_decides: bool = False,
    clip: Clip,
    seed: int,
    about: Mapping[str, Json],
) -> str:
    """12 hex digits that tell this training from any other; `val` counts where it decides something."""
    flow = takes_flow(model)
    told: dict[str, Json] = {"recipe": recipe.hash, "clip": str(clip), "seed": seed, "about": dict(about)}
    told |= {"trainer": TRAINER, **_content(train, with_flow=flow)}
    if val is not None and (val_decides or isinstance(recipe.schedule, Plateau)):
        told["val"] = _content(val, with_flow=flow)
    return digest(told)


def _content(videos: VideoSet, *, with_flow: bool) -> dict[str, Json]:
    """What a network is shown of `videos`."""
    told: dict[str, Json] = {"videos": videos.hash}
    if videos.backend != "auto":
        told["decoded_by"] = videos.backend
    return {**told, "flow": videos.flow_hash} if with_flow else told


def _finished(folder: Path, name: str) -> Fitted | None:
    """The training that `folder` holds complete, or None."""
    last, best = folder / "last.pt", folder / "best.pt"
    if not last.is_file():
        return None
    content = read_weights(last)
    _refuse_other(folder, name, found=content.get("identity"))
    return Fitted(
        last=last,
        best=best if best.is_file() else None,
        curves=folder / "curves.csv",
        steps=content["steps"],
        seconds=content["seconds"],
        identity=name,
        processes=content.get("processes", 1),
        batch_norm=content.get("batch_norm"),
        validated_on=content.get("validated_on"),
        rounding=content.get("rounding"),
        was_done=True,
    )


def _refuse_other(folder: Path, name: str, *, found: Any) -> None:
    if found != name:
        raise InputError(
            f"{folder} holds another training (identity {found}, this one is {name}); "
            "name another folder, or delete that one"
        )


class _Loading:
    """Where a training's batches come from, and which videos could not be read so far."""

    def __init__(
        self, videos: VideoSet, recipe: Recipe, model: nn.Module, *, clip: Clip, seed: int, workers: int, ranks: Ranks
    ) -> None:
        self.videos, self.recipe, self.ranks = videos, recipe, ranks
        self.clip, self.seed, self.workers = clip, seed, workers
        self.inputs, self.normalisation = inputs_of(model), normalisation_of(model)
        self.unread: list[UnreadVideo] = []
        self.batch, rest = divmod(recipe.batch, ranks.world)
        if rest:
            raise InputError(f"a batch of {recipe.batch} clips cannot be shared evenly by {ranks.world} processes")
        self.steps_per_epoch = steps_per_epoch(videos, batch=self.batch, world=ranks.world)
        if not self.steps_per_epoch:
            raise InputError(
                f"{len(videos)} videos do not fill one batch of {recipe.batch}; give the recipe a smaller one"
            )

    def batches(self, epoch: int, *, start: int) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on."""
        return train_batches(
            self.videos,
            clip=self.clip,
            inputs=self.inputs,
            augmentation=self.recipe.augmenting,
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            batch=self.batch,
            seed=self.seed,
            epoch=epoch,
            workers=self.workers,
            start=start,
            rank=self.ranks.rank,
            world=self.ranks.world,
            failures=self.unread,
        )


class _Run:
    """One call of `fit`: a training, its folder, and what has been seen of it so far."""

    def __init__(
        self,
        training: Training,
        loading: _Loading,
        *,
        val: VideoSet | None,
        folder: Path,
        notes: dict[str, Json],
        pace: Pace,
        report: Report,
        meter: Meter | None,
    ) -> None:
        self.training, self.loading, self.recipe, self.ranks = training, loading, training.recipe, training.ranks
        self.val, self.folder, self.notes, self.pace, self.report = val, folder, notes, pace, report
        self.curves: list[Row] = []
        self.events: EventFile | None = None
        self.best_top1 = -1.0
        self.damaged: list[str] = []
        self.unsaved: str | None = None
        self.seconds_before = 0.0
        self.energy = Energy(meter, ranks=self.ranks)
        self.resumed_at: int | None = None
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.began_at = time.monotonic()
        self._resume()

    @property
    def seconds(self) -> float:
        """Of training so far, those before a kill included as far as they were saved."""
        return self.seconds_before + time.monotonic() - self.began_at

    @property
    def fraction(self) -> float:
        return self.training.step_count / (self.recipe.epochs * self.loading.steps_per_epoch)

    @property
    def validated_on(self) -> str | None:
        return f"{self.val.name} {self.val.split}" if self.val is not None and self.recipe.validate_every else None

    def go(self) -> Fitted:
        """Train to the end."""
        self.watch = Watch(fraction=self.fraction)
        for epoch in range(self.training.step_count // self.loading.steps_per_epoch, self.recipe.epochs):
            self._run_epoch(epoch)
        return self._finish()

    def _resume(self) -> None:
        restored = self.ranks.share(read_state(self.folder) if self.ranks.is_first else None)
        if restored is None:
            return
        _refuse_other(self.folder, str(self.notes["identity"]), found=restored.state["identity"])
        state = restored.state
        self.training.load_state_dict(state["training"])
        self.curves, self.best_top1, self.seconds_before = state["curves"], state["best_top1"], state["seconds"]
        self.energy.before_j = state["joules"]
        self.resumed_at = self.saved_step = self.training.step_count
        self.damaged = [f"{path.name} is damaged; went on from {restored.path.name}" for path in restored.damaged]

    def _run_epoch(self, epoch: int) -> None:
        training, per_epoch = self.training, self.loading.steps_per_epoch
        started, first = time.monotonic(), training.step_count
        for batch in self.loading.batches(epoch, start=training.step_count - epoch * per_epoch):
            training.step(batch)
            if self.watch.count(len(batch.labels) * self.ranks.world):
                self._speak(epoch)
            if training.step_count % per_epoch and self._is_save_due():
                self._save()
        clips = (training.step_count - first) * self.recipe.batch
        self._end_epoch(epoch, clips_per_s=clips / (time.monotonic() - started))

    def _end_epoch(self, epoch: int, *, clips_per_s: float) -> None:
        training = self.training
        counts = self._checked(training.tally.read(self.ranks))
        training.tally.reset()
        training.agree()
        seen = self._validate(epoch)
        training.note_epoch(validation_loss=None if seen is None else seen.loss)
        row: Row = {"epoch": epoch + 1, "step": training.step_count, "lr": training.lr, "loss": counts.loss}
        row |= {
            "top1": 100 * counts.top1,
            "clips_per_s": clips_per_s,
            "seconds": self.seconds,
            "energy_j": self.energy.take(),
        }
        if seen is not None:
            row |= {"val_loss": seen.loss, "val_top1": 100 * seen.top(1).value, "val_top5": 100 * seen.top(5).value}
            self._keep_best(seen, epoch=epoch)
        self.curves.append(row)
        if self.ranks.is_first:
            write_curves(self.folder / "curves.csv", self.curves)
        if self.events is not None:
            self.events.write(row)
        if self._is_save_due():
            self._save()

    def _validate(self, epoch: int) -> Evaluation | None:
        every = self.recipe.validate_every
        if self.val is None or not every or ((epoch + 1) % every and epoch + 1 < self.recipe.epochs):
            return None
        return evaluate(
            self.training.evaluated,
            self.val,
            clip=self.loading.clip,
            device=self.training.device,
            batch=max(1, self.loading.batch // self.recipe.accumulate),
            workers=self.loading.workers,
            averaging=averaging_of(self.loading.videos),
            amp=self.recipe.amp,
            resize=self.recipe.resize,
            sampling=self.recipe.view_sampling,
            short=self.recipe.view_short,
        )

    def _keep_best(self, seen: Evaluation, *, epoch: int) -> None:
        if seen.top(1).value > self.best_top1:
            self.best_top1 = seen.top(1).value
            self._write_weights("best.pt", epoch=epoch + 1, seconds=self.seconds)

    def _speak(self, epoch: int) -> None:
        counts = self._checked(self.training.tally.read())
        step = self.training.step_count - epoch * self.loading.steps_per_epoch
        what = f"epoch {epoch + 1}/{self.recipe.epochs} step {step}/{self.loading.steps_per_epoch}"
        figures = {"loss": f"{counts.loss:.3f}", "top-1": f"{100 * counts.top1:.1f} %"}
        self.report(self.watch.progress(what, self.fraction, figures=figures))

    def _checked(self, counts: Counts) -> Counts:
        if not math.isfinite(counts.loss):
            epoch, step = divmod(self.training.step_count, self.loading.steps_per_epoch)
            raise TrainingError(
                f"the loss became {counts.loss} in epoch {epoch + 1}, by step {step} (lr {self.training.lr:.3g}, amp "
                f"{self.recipe.amp}); lower lr, warm up longer, set clip_grad, or train without amp"
            )
        return counts

    def _is_save_due(self) -> bool:
        waited = time.monotonic() - self.saved_at
        return self.training.step_count - self.saved_step >= self.pace.steps or waited >= 60 * self.pace.minutes

    def _save(self) -> None:
        """Write a checkpoint; a full disk costs the checkpoint and a warning, not the training."""
        self._checked(self.training.tally.read())
        self.saved_step, self.saved_at = self.training.step_count, time.monotonic()
        if not self.ranks.is_first:
            return
        state = {
            "identity": self.notes["identity"],
            "training": self.training.state_dict(),
            "curves": self.curves,
            "best_top1": self.best_top1,
            "seconds": self.seconds,
            "joules": self.energy.so_far,
        }
        try:
            write_state(self.folder, state, step=self.training.step_count)
        except TrainingError as error:
            self.unsaved = f"{error}; had it been killed, it would have gone on from an earlier step"

    def _write_weights(self, name: str, *, epoch: int, seconds: float) -> Path:
        path = self.folder / name
        if self.ranks.is_first:
            notes = {**self.notes, "validated_on": self.validated_on, "rounding": rounding_of(self.training.device)}
            notes |= {"epoch": epoch, "steps": self.training.step_count, "seconds": seconds}
            write_weights(path, self.training.evaluated.state_dict(), about=notes)
        return path

    @property
    def warnings(self) -> Iterator[str]:
        """What whoever reads the result must know."""
        yield from self.damaged
        if self.unsaved is not None:
            yield self.unsaved
        unread = {video.position: video for of_rank in self.ranks.gather(self.loading.unread) for video in of_rank}
        if unread:
            first = next(iter(unread.values()))
            yield f"{len(unread)} training videos could not be read; the first: {first.reason}"

    def _finish(self) -> Fitted:
        """Leave the weights that count in the model and in `last.pt`, whose presence says that all is done."""
        training, best, seconds = self.training, self.folder / "best.pt", self.seconds
        last = self._write_weights("last.pt", epoch=self.recipe.epochs, seconds=seconds)
        if self.ranks.is_first:
            remove_states(self.folder)
        if training.average is not None:
            training.model.load_state_dict(training.average.module.state_dict())
        self.ranks.wait()
        return Fitted(
            last=last,
            best=best if self.best_top1 >= 0 else None,
            curves=self.folder / "curves.csv",
            steps=training.step_count,
            seconds=seconds,
            identity=str(self.notes["identity"]),
            processes=self.ranks.world,
            batch_norm=training.batch_norm,
            validated_on=self.validated_on,
            rounding=rounding_of(self.training.device),
            resumed_at=self.resumed_at,
            warnings=tuple(self.warnings),
        )
