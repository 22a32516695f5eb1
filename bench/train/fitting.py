"""Training by a recipe: epochs, validation, checkpoints and curves. A training killed at any step can be resumed."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bench
from bench.core.errors import InputError, TrainingError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip, Json, digest
from bench.data.clip_batches import Batch, UnreadVideo, steps_per_epoch, train_batches
from bench.data.collection import VideoSet
from bench.models.base import inputs_of, takes_flow
from bench.train.checkpointing import read_state, read_weights, remove_states, write_state, write_weights
from bench.train.curves import EpochRow, EventFile, write_curves
from bench.train.evaluating import Evaluation, evaluate, rounding_of
from bench.train.preprocessing import PIXEL_PARTS, SCALING_PARTS, normalisation, scaled_as, training_protocol
from bench.train.progress import Progress, ProgressClock, ProgressReport, silent
from bench.train.ranks import Ranks, current_ranks
from bench.train.recipe import Recipe
from bench.train.schedule import Plateau
from bench.train.training_energy import JouleCounter, TrainingEnergy
from bench.train.training_state import LossAndTop1, TrainingState

TRAINER = 2  # raised when the same recipe comes to train differently; 1 trained in evaluation mode
CHEAP_SHARE = 0.02  # of the time since the last checkpoint: an epoch ends with a checkpoint if writing takes no more


@dataclass(frozen=True, kw_only=True)
class CheckpointInterval:
    """A checkpoint is written after this many steps or minutes, whichever comes first."""

    steps: int = 1000
    minutes: float = 10.0


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A finished training. `last` and `best` are files of weights; `best` is None if nothing was validated.

    `was_done` says that the folder held the finished training already; `resumed_at` is the step that it resumed from.
    `batch_norm` says over which clips batch norm took its statistics. `validated_on` is the split that the curves and
    `best` refer to; `rounding` is what float32 was rounded to, see `rounding_of`. `protocol` is how clips were
    prepared.
    """

    last: Path
    best: Path | None
    curves: Path
    steps: int
    seconds: float
    identity: str
    protocol: InputProtocol
    processes: int = 1
    batch_norm: str | None = None
    validated_on: str | None = None
    rounding: str | None = None
    was_done: bool = False
    resumed_at: int | None = None
    warnings: tuple[str, ...] = ()


class TrainingInterrupted(KeyboardInterrupt):
    """The user stopped a training, and its state was saved; the message says where it stopped."""


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: VideoSet,
    *,
    val: VideoSet | None = None,
    val_decides: bool = False,
    clip: Clip,
    given: InputProtocol | None = None,
    seed: int,
    device: str | torch.device = "cpu",
    folder: Path,
    about: Mapping[str, Json] | None = None,
    workers: int = 0,
    interval: CheckpointInterval | None = None,
    report: ProgressReport = silent,
    tensorboard: bool = False,
    counter: JouleCounter | None = None,
) -> TrainingResult:
    """Train `model` in place on `train` by `recipe`, and leave weights, checkpoints and curves in `folder`.

    If the folder holds the same training, it is resumed, or read if it is finished. `given` are the parts of the input
    protocol that the user gives. `about` (the model's name and arguments, the weights it starts from) tells trainings
    apart and is stored with the weights. `val_decides` says that results on `val` are used, such as which epoch was
    best: another `val` is then another training, as it is with a plateau schedule.
    At the end `model` holds the weights that count. `tensorboard` also writes the curves for TensorBoard, into a folder
    of that name; `counter` reads joules for the curves.

    Raises InputError if the folder holds another training, TrainingError if the loss is not finite, and
    TrainingInterrupted after Ctrl-C, once the state is saved.
    """
    given = given or InputProtocol()
    name = identity(
        model, recipe, train, val=val, val_decides=val_decides, clip=clip, given=given, seed=seed, about=about or {}
    )
    protocol = training_protocol(model, recipe, train, given=given, clip=clip)
    ranks = current_ranks()
    done: TrainingResult | None = ranks.share(_finished(folder, name, protocol=protocol) if ranks.is_first else None)
    if done is not None:
        if ranks.is_first:
            remove_states(folder)
        model.load_state_dict(read_weights(done.last)["state_dict"])
        model.to(device)
        return done
    loading = _Batches(train, recipe, model, protocol=protocol, clip=clip, seed=seed, workers=workers, ranks=ranks)
    state = TrainingState(model, recipe, seed=seed, device=device, steps_per_epoch=loading.steps_per_epoch, ranks=ranks)
    notes: dict[str, Json] = {**(about or {}), "recipe": recipe.recipe, "identity": name}
    notes |= {"processes": ranks.world, "batch_norm": state.batch_norm, **_origin(recipe, train, protocol=protocol)}
    run = _TrainingRun(
        state,
        loading,
        val=val,
        folder=folder,
        notes=notes,
        interval=interval or CheckpointInterval(),
        report=report,
        counter=counter,
    )
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
    given: InputProtocol | None = None,
    seed: int,
    about: Mapping[str, Json],
) -> str:
    """12 hex digits that tell this training from any other; `val` counts if it decides something."""
    flow = takes_flow(model)
    parts: dict[str, Json] = {"recipe": recipe.hash, "clip": str(clip), "seed": seed, "about": dict(about)}
    parts |= {"trainer": TRAINER, **_content(train, with_flow=flow)}
    if val is not None and (val_decides or isinstance(recipe.schedule, Plateau)):
        parts["val"] = _content(val, with_flow=flow)
    pixels = (
        {}
        if given is None
        else {name: v for name, v in given.as_stored().items() if name in (*PIXEL_PARTS, *SCALING_PARTS)}
    )
    if pixels:  # only then, so that trainings from before this option keep their identity
        parts["preprocess"] = pixels
    return digest(parts)


def _content(videos: VideoSet, *, with_flow: bool) -> dict[str, Json]:
    """What decides which frames a model is shown of `videos`."""
    parts: dict[str, Json] = {"videos": videos.hash}
    if videos.backend != "auto":
        parts["decoded_by"] = videos.backend
    return {**parts, "flow": videos.flow_hash} if with_flow else parts


def _origin(recipe: Recipe, train: VideoSet, *, protocol: InputProtocol) -> dict[str, Json]:
    """What a checkpoint says of its origin, so that it can be evaluated as it was trained."""
    return {
        "input_protocol": protocol.as_stored(),
        "recipe_settings": recipe.model_dump(mode="json"),
        "dataset": train.name,
        "split": train.split,
        "dataset_hash": train.hash,
        "vbench_version": bench.__version__,
    }


def _finished(folder: Path, name: str, *, protocol: InputProtocol) -> TrainingResult | None:
    """The training that `folder` holds complete, or None."""
    last, best = folder / "last.pt", folder / "best.pt"
    if not last.is_file():
        return None
    content = read_weights(last)
    _require_same(folder, name, found=content.get("identity"))
    return TrainingResult(
        last=last,
        best=best if best.is_file() else None,
        curves=folder / "curves.csv",
        steps=content["steps"],
        seconds=content["seconds"],
        identity=name,
        protocol=protocol,
        processes=content.get("processes", 1),
        batch_norm=content.get("batch_norm"),
        validated_on=content.get("validated_on"),
        rounding=content.get("rounding"),
        was_done=True,
    )


def _require_same(folder: Path, name: str, *, found: Any) -> None:
    if found != name:
        raise InputError(
            f"{folder} holds another training (identity {found}, this one is {name}); "
            "give another folder, or delete that one"
        )


class _Batches:
    """The batches of a training, and the videos that could not be read so far."""

    def __init__(
        self,
        videos: VideoSet,
        recipe: Recipe,
        model: nn.Module,
        *,
        protocol: InputProtocol,
        clip: Clip,
        seed: int,
        workers: int,
        ranks: Ranks,
    ) -> None:
        self.videos, self.recipe, self.ranks, self.protocol = videos, recipe, ranks, protocol
        self.clip, self.seed, self.workers = clip, seed, workers
        self.inputs, self.normalisation = inputs_of(model), normalisation(protocol)
        self.unread: list[UnreadVideo] = []
        self.batch, rest = divmod(recipe.batch, ranks.world)
        if rest:
            raise InputError(f"a batch of {recipe.batch} clips cannot be split evenly over {ranks.world} processes")
        self.steps_per_epoch = steps_per_epoch(videos, batch=self.batch, world=ranks.world)
        if not self.steps_per_epoch:
            raise InputError(
                f"{len(videos)} videos do not fill one batch of {recipe.batch}; give the recipe a smaller batch, "
                f"such as --set batch={max(1, len(videos) // 2)}"
            )

    def of_epoch(self, epoch: int, *, start: int) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on."""
        return train_batches(
            self.videos,
            clip=self.clip,
            inputs=self.inputs,
            augmentation=self.recipe.augmenting,
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            channels=self.normalisation.channels,
            scaling=scaled_as(self.protocol, None),
            batch=self.batch,
            seed=self.seed,
            epoch=epoch,
            workers=self.workers,
            start=start,
            rank=self.ranks.rank,
            world=self.ranks.world,
            failures=self.unread,
        )


class _TrainingRun:
    """One call of `fit`: a training state, its folder, and the results so far."""

    def __init__(
        self,
        state: TrainingState,
        loading: _Batches,
        *,
        val: VideoSet | None,
        folder: Path,
        notes: dict[str, Json],
        interval: CheckpointInterval,
        report: ProgressReport,
        counter: JouleCounter | None,
    ) -> None:
        self.state, self.loading, self.recipe, self.ranks = state, loading, state.recipe, state.ranks
        self.val, self.folder, self.notes, self.interval, self.report = val, folder, notes, interval, report
        self.curves: list[EpochRow] = []
        self.events: EventFile | None = None
        self.best_top1 = -1.0
        self.damaged: list[str] = []
        self.unsaved: str | None = None
        self.seconds_before = 0.0
        self.energy = TrainingEnergy(counter, ranks=self.ranks)
        self.resumed_at: int | None = None
        self.saved_step, self.saved_at, self.save_seconds = 0, time.monotonic(), 0.0
        self.is_stopped = threading.Event()
        self.began_at = time.monotonic()
        self._resume()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including those before an interruption as far as they were saved."""
        return self.seconds_before + time.monotonic() - self.began_at

    @property
    def fraction(self) -> float:
        return self.state.step_count / (self.recipe.epochs * self.loading.steps_per_epoch)

    @property
    def validated_on(self) -> str | None:
        return f"{self.val.name} {self.val.split}" if self.val is not None and self.recipe.validate_every else None

    def go(self) -> TrainingResult:
        """Train to the end."""
        self.clock = ProgressClock(fraction=self.fraction)
        if self.resumed_at is not None:
            self._say(f"going on from {self._place()}")
        with _interrupts_set(self.is_stopped):
            for epoch in range(self.state.step_count // self.loading.steps_per_epoch, self.recipe.epochs):
                self._run_epoch(epoch)
        return self._finish()

    def _resume(self) -> None:
        restored = self.ranks.share(read_state(self.folder) if self.ranks.is_first else None)
        if restored is None:
            return
        saved = restored.state
        _require_same(self.folder, str(self.notes["identity"]), found=saved["identity"])
        self.state.load_state_dict(saved["training"])
        self.curves, self.best_top1, self.seconds_before = saved["curves"], saved["best_top1"], saved["seconds"]
        self.energy.before_j = saved["joules"]
        self.resumed_at = self.saved_step = self.state.step_count
        self.damaged = [f"{path.name} is damaged; resumed from {restored.path.name}" for path in restored.damaged]

    def _run_epoch(self, epoch: int) -> None:
        state, per_epoch = self.state, self.loading.steps_per_epoch
        started, first = time.monotonic(), state.step_count
        for batch in self.loading.of_epoch(epoch, start=state.step_count - epoch * per_epoch):
            state.step(batch)
            if self.clock.count(len(batch.labels) * self.ranks.world):
                self._report_step(epoch)
            if self.is_stopped.is_set():
                self._stop()
            if state.step_count % per_epoch and self._is_save_due():
                self._save()
        clips = (state.step_count - first) * self.recipe.batch
        self._end_epoch(epoch, clips_per_s=clips / (time.monotonic() - started))

    def _end_epoch(self, epoch: int, *, clips_per_s: float) -> None:
        state = self.state
        counts = self._checked(state.statistics.read(self.ranks))
        state.statistics.reset()
        state.spread_buffers()
        validation = self._validate(epoch)
        state.note_epoch(validation_loss=None if validation is None else validation.loss)
        row: EpochRow = {"epoch": epoch + 1, "step": state.step_count, "lr": state.lr, "loss": counts.loss}
        row |= {
            "top1": 100 * counts.top1,
            "clips_per_s": clips_per_s,
            "seconds": self.seconds,
            "energy_j": self.energy.total(),
        }
        if validation is not None:
            row |= {
                "val_loss": validation.loss,
                "val_top1": 100 * validation.top(1).value,
                "val_top5": 100 * validation.top(5).value,
            }
            self._keep_best(validation, epoch=epoch)
        self.curves.append(row)
        if self.ranks.is_first:
            write_curves(self.folder / "curves.csv", self.curves)
        if self.events is not None:
            self.events.write(row)
        if self.recipe.keep_every and (epoch + 1) % self.recipe.keep_every == 0:
            self._write_weights(f"epoch_{epoch + 1}.pt", epoch=epoch + 1, seconds=self.seconds)
        if epoch + 1 < self.recipe.epochs and (self._is_save_due() or self._is_save_cheap()):
            self._save()
        if self.is_stopped.is_set():
            self._stop()

    def _validate(self, epoch: int) -> Evaluation | None:
        every = self.recipe.validate_every
        if self.val is None or not every or ((epoch + 1) % every and epoch + 1 < self.recipe.epochs):
            return None
        return evaluate(
            self.state.evaluated,
            self.val,
            clip=self.loading.clip,
            views=(self.recipe.validation_clips, 1),
            protocol=self.loading.protocol,
            device=self.state.device,
            batch=max(1, self.loading.batch // self.recipe.accumulate),
            workers=self.loading.workers,
            amp=self.recipe.amp,
        )

    def _keep_best(self, validation: Evaluation, *, epoch: int) -> None:
        if validation.top(1).value > self.best_top1:
            self.best_top1 = validation.top(1).value
            self._write_weights("best.pt", epoch=epoch + 1, seconds=self.seconds)

    def _report_step(self, epoch: int) -> None:
        counts = self._checked(self.state.statistics.read())
        step = self.state.step_count - epoch * self.loading.steps_per_epoch
        what = f"epoch {epoch + 1}/{self.recipe.epochs} step {step}/{self.loading.steps_per_epoch}"
        values = {"loss": f"{counts.loss:.3f}", "top-1": f"{100 * counts.top1:.1f} %"}
        self.report(self.clock.progress(what, self.fraction, values=values))

    def _checked(self, counts: LossAndTop1) -> LossAndTop1:
        if not math.isfinite(counts.loss):
            epoch, step = divmod(self.state.step_count, self.loading.steps_per_epoch)
            raise TrainingError(
                f"the loss became {counts.loss} in epoch {epoch + 1}, by step {step} (lr {self.state.lr:.3g}, amp "
                f"{self.recipe.amp}); lower lr, warm up longer, set clip_grad, or train without amp"
            )
        return counts

    def _stop(self) -> None:
        """Save the state and raise TrainingInterrupted; called between steps, when the state is consistent."""
        if self.saved_step != self.state.step_count:
            self._save()
        text = f"stopped in {self._place()}; the same command goes on"
        if self.unsaved is not None:
            text = f"stopped in {self._place()}, but {self.unsaved}"
        self._say(text)
        raise TrainingInterrupted(text)

    def _place(self) -> str:
        """The epoch of the next step, in words."""
        epoch = min(self.state.step_count // self.loading.steps_per_epoch + 1, self.recipe.epochs)
        return f"epoch {epoch} of {self.recipe.epochs}"

    def _say(self, text: str) -> None:
        self.report(Progress(what=text, fraction=self.fraction))

    def _is_save_due(self) -> bool:
        waited = time.monotonic() - self.saved_at
        return self.state.step_count - self.saved_step >= self.interval.steps or waited >= 60 * self.interval.minutes

    def _is_save_cheap(self) -> bool:
        """Whether a checkpoint, at the cost of the last one, takes a small share of the time since then.

        The first one is written in any case, since its cost is not known before. All ranks must agree, and the clocks
        of several do not: there only the interval counts.
        """
        waited = time.monotonic() - self.saved_at
        return self.ranks.world == 1 and self.save_seconds <= CHEAP_SHARE * waited

    def _save(self) -> None:
        """Write a checkpoint; a full disk costs the checkpoint and a warning, not the training."""
        self._checked(self.state.statistics.read())
        started = time.monotonic()
        self.saved_step, self.saved_at = self.state.step_count, started
        if not self.ranks.is_first:
            return
        saved = {
            "identity": self.notes["identity"],
            "notes": self.notes,
            "training": self.state.state_dict(),
            "curves": self.curves,
            "best_top1": self.best_top1,
            "seconds": self.seconds,
            "joules": self.energy.estimate,
        }
        try:
            write_state(self.folder, saved, step=self.state.step_count)
            self.unsaved = None
        except TrainingError as error:
            self.unsaved = f"{error}; a resumed training would start from an earlier step"
        self.save_seconds = time.monotonic() - started

    def _write_weights(self, name: str, *, epoch: int, seconds: float) -> Path:
        path = self.folder / name
        if self.ranks.is_first:
            notes = {**self.notes, "validated_on": self.validated_on, "rounding": rounding_of(self.state.device)}
            notes |= {"epoch": epoch, "steps": self.state.step_count, "seconds": seconds}
            write_weights(path, self.state.evaluated.state_dict(), about=notes)
        return path

    @property
    def warnings(self) -> Iterator[str]:
        """What a reader of the result must know."""
        yield from self.damaged
        if self.unsaved is not None:
            yield self.unsaved
        unread = {video.position: video for of_rank in self.ranks.gather(self.loading.unread) for video in of_rank}
        if unread:
            first = next(iter(unread.values()))
            yield f"{len(unread)} training videos could not be read; the first: {first.reason}"

    def _finish(self) -> TrainingResult:
        """Leave the weights that count in the model and in `last.pt`; that file marks the training as finished."""
        state, best, seconds = self.state, self.folder / "best.pt", self.seconds
        last = self._write_weights("last.pt", epoch=self.recipe.epochs, seconds=seconds)
        if self.ranks.is_first:
            remove_states(self.folder)
        if state.average is not None:
            state.model.load_state_dict(state.average.module.state_dict())
        self.ranks.wait()
        return TrainingResult(
            last=last,
            best=best if self.best_top1 >= 0 else None,
            curves=self.folder / "curves.csv",
            steps=state.step_count,
            seconds=seconds,
            identity=str(self.notes["identity"]),
            protocol=self.loading.protocol,
            processes=self.ranks.world,
            batch_norm=state.batch_norm,
            validated_on=self.validated_on,
            rounding=rounding_of(state.device),
            resumed_at=self.resumed_at,
            warnings=tuple(self.warnings),
        )


@contextmanager
def _interrupts_set(is_stopped: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C during the block set `is_stopped`, so that a step is finished first; a second one raises.

    Only the main thread can do so; in another one, Ctrl-C raises at once as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        is_stopped.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
