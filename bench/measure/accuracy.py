"""Accuracy: trains by a recipe, or takes given weights, and evaluates on a data set; the whole protocol is recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench.core.errors import InputError
from bench.core.registry import DATASETS, register_measure
from bench.core.schema import Clip, Json, Metric, Pretraining, Views, views_from_text
from bench.measure.axes import ACCURACY_AXES
from bench.measure.context import DEFAULT_SEED, LoadedCase

if TYPE_CHECKING:
    from torch import nn

    from bench.core.stats import Estimate
    from bench.data.collection import VideoSet
    from bench.models.weights.load_report import LoadReport
    from bench.train.energy import Meter
    from bench.train.evaluating import Evaluation
    from bench.train.fitting import Fitted
    from bench.train.progress import Progress
    from bench.train.ranks import Ranks
    from bench.train.recipe import Recipe

Role = Literal["trained", "evaluated"]
ROLES: tuple[Role, Role] = ("trained", "evaluated")
Averaging = Literal["softmax", "sigmoid", "score"]
Checkpoint = Literal["last", "best"]
Resize = int | tuple[int, int]
Sampling = Literal["blocks", "sections"]
Short = Literal["loop", "clamp"]


@register_measure("accuracy", depends_on=ACCURACY_AXES, version=5, is_shared=True)
def accuracy(
    case: LoadedCase,
    *,
    root: str | None = None,
    options: dict[str, Json] | None = None,
    resize: Resize | None = None,
    sampling: Sampling | None = None,
    short: Short | None = None,
    batch: int = 16,
    workers: int = 0,
    averaging: Averaging | None = None,
    checkpoint: Checkpoint = "last",
    excludes_unread: bool = False,
    allow_leaks: list[str] | None = None,
    ranks: Annotated[int, Field(ge=1)] | None = None,
    tensorboard: bool = False,
    reach: list[Annotated[float, Field(gt=0, le=100)]] | None = None,
    country: str | None = None,
) -> list[Metric]:
    """Top-1, top-5, clip and mean per-class accuracy in percent; `root` and `options` (`flow` too) go to the data set.

    With a recipe the network is trained first, from the case's weights if it names any; a training of the same recipe,
    videos, clip and seed that stands beside this case already is reused. `batch` counts clips of one evaluating pass.
    `resize`, `sampling` (blocks of frames spread over the video, or one frame of each of equal sections of it) and what
    fills clips of `short` videos are those of the recipe where the suite does not say, without one blocks that loop.
    `averaging` is the mean over the views of `softmax`, of `sigmoid` or of the raw `score`; where the suite does not
    say it is `sigmoid` for networks that were trained here on several labels a video, else `softmax`.
    `checkpoint: best` takes the epoch that did best on these very videos, which flatters; the record says so. Videos
    that cannot be read count as wrong unless `excludes_unread`. Videos that share material with those trained on are
    refused, but for what `allow_leaks` names. `ranks` processes share the work, one a GPU, with the recipe's batch
    divided among them; under torchrun there are as many as it started. `tensorboard` writes the curves of the training
    for that program, too. `reach: [50, 80]` tells the time and energy until the validated top-1 was as good;
    `country: FRA` tells the training's energy, and its CO2e with the electricity of that country, by codecarbon.
    """
    from bench.train.evaluating import require_whole_frames
    from bench.train.ranks import joined

    with joined(case.device) as here:
        if ranks not in (None, here.world):
            raise InputError(f"the suite wants {ranks} ranks, and {here.world} were started; leave `ranks` to torchrun")
        job = _Job(
            case=case,
            root=root,
            options=options or {},
            workers=workers,
            allow_leaks=tuple(allow_leaks or ()),
            ranks=here,
            tensorboard=tensorboard,
            country=country,
        )
        test = job.videos("evaluated")
        _require_classes(case.point.args.get("num_classes"), test, exactly=test.is_multi_label)
        job.pretrain(test)
        model = case.build_model(num_classes=len(test.classes))
        if views_of(case)[1] == "full":
            require_whole_frames(model, case.point.clip)
        trained = job.train(model, test, checkpoint=checkpoint, val_decides=checkpoint == "best" or bool(reach))
        look = _Look.of(trained, resize=resize, sampling=sampling, short=short, averaging=averaging)
        seen = job.evaluate(model, test, look, batch=batch, excludes_unread=excludes_unread)
        if here.is_first:
            job.record(model, test, seen, look)
    fitted = None if trained is None else trained.fitted
    return [*_metrics(seen, fitted), *_costs(fitted, reach=reach or [])]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A training of this case, and what the outputs of a network so trained mean."""

    recipe: "Recipe"
    fitted: "Fitted"
    averaging: Averaging


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How an evaluation takes the frames of its clips, to what size, and what it takes the mean of."""

    resize: Resize | None
    sampling: Sampling
    short: Short
    averaging: Averaging

    @classmethod
    def of(
        cls,
        trained: _Trained | None,
        *,
        resize: Resize | None,
        sampling: Sampling | None,
        short: Short | None,
        averaging: Averaging | None,
    ) -> "_Look":
        """What is given, else what the training says."""
        if trained is None:
            return cls(
                resize=resize,
                sampling=sampling or "blocks",
                short=short or "loop",
                averaging=averaging or "softmax",
            )
        recipe = trained.recipe
        return cls(
            resize=recipe.resize if resize is None else resize,
            sampling=sampling or recipe.view_sampling,
            short=short or recipe.view_short,
            averaging=averaging or trained.averaging,
        )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the training and the evaluation of one case share."""

    case: LoadedCase
    root: str | None
    options: dict[str, Any]
    workers: int
    allow_leaks: tuple[str, ...]
    ranks: "Ranks"
    tensorboard: bool
    country: str | None
    leaked: dict[str, int] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return DEFAULT_SEED if self.case.point.seed is None else self.case.point.seed

    def videos(self, role: Role) -> "VideoSet":
        """The case's videos to train on or to evaluate on."""
        point = self.case.point
        if point.dataset is None:
            raise InputError("accuracy needs a data set; name one in the suite, such as `dataset: ucf101`")
        return self._opened(point.dataset, role, split=point.split, root=self.root, options=self.options)

    def pretrain(self, test: "VideoSet") -> None:
        """Train the weights to begin with, where the case wants some, on a data set found without `root`.

        They are trained once for all cases of a results folder that begin with the same.
        """
        from bench.train.accuracy_protocol import describe_training
        from bench.train.recipe import read_recipe

        wanted = Pretraining.of(self.case.point.weights)
        if wanted is None:
            return
        videos, val = (self._opened(wanted.dataset, role, split=None, root=None, options={}) for role in ROLES)
        _require_classes(self.case.point.args.get("num_classes"), videos, exactly=True)
        self._guard(videos, test)
        recipe = read_recipe(self.case.recipe_path(wanted.recipe))
        model = self.case.build_model(num_classes=len(videos.classes))
        clip = self.case.point.clip
        if wanted.is_inflated:
            clip = Clip(frames=1, height=clip.height, width=clip.width)
        fitted = self._fit(model, recipe, videos, val=val, clip=clip)
        found = describe_training(recipe, fitted, seed=self.seed, checkpoint="last")
        weights = self._inflated(model, fitted) if wanted.is_inflated else fitted.last
        self.case.weights = str(weights)
        self.case.keep("pretrained_weights", weights)
        self.case.note("pretraining", {"dataset": videos.name, "is_inflated": wanted.is_inflated, **found})

    def _inflated(self, model: "nn.Module", fitted: "Fitted") -> Path:
        """The weights of a network trained on single frames, inflated, in a file beside them."""
        from bench.models.inflation import inflate_single_frames
        from bench.train.checkpointing import write_weights

        path = fitted.last.with_name("inflated.pt")
        if self.ranks.is_first and not path.is_file():
            inflated = inflate_single_frames(model)
            write_weights(path, model.state_dict(), about={"identity": fitted.identity, "inflated": list(inflated)})
        self.ranks.wait()
        return path

    def _opened(
        self, dataset: str, role: Role, *, split: int | str | None, root: str | None, options: dict[str, Any]
    ) -> "VideoSet":
        from bench.data.collection import open_dataset
        from bench.train.accuracy_protocol import evaluated_split, trained_split

        choose = trained_split if role == "trained" else evaluated_split
        name = choose(split, known=DATASETS.get(dataset).splits, dataset=dataset)
        self.case.progress(f"opening {dataset} {name}")
        with self.ranks.in_turn():
            videos = open_dataset(dataset, root=root, split=name, **options)
        if videos.missing_warning and videos.missing_warning not in {warning.what for warning in self.case.warnings}:
            self.case.warn(videos.missing_warning, "vbench data verify names the missing videos")
        return videos

    def train(
        self, model: "nn.Module", test: "VideoSet", *, checkpoint: Checkpoint, val_decides: bool
    ) -> _Trained | None:
        """Train `model` by the case's recipe; without one it keeps the weights that the case names."""
        from bench.models.weights.load_report import require_trained
        from bench.train.accuracy_protocol import describe_training, file_hash
        from bench.train.checkpointing import read_weights
        from bench.train.evaluating import averaging_of
        from bench.train.recipe import read_recipe

        point = self.case.point
        if point.recipe is None:
            report: LoadReport | None = model.__dict__.get("weights_report")
            if report is None:
                raise InputError("accuracy needs a recipe to train by, or weights to evaluate; the suite names neither")
            require_trained(model)
            found = file_hash(report.path) or report.sha256 or None
            named = point.weights or str(report.path)
            self.case.note("training", {"recipe": None, "weights": named, "weights_hash": found})
            return None
        recipe, videos = read_recipe(self.case.recipe_path(point.recipe)), self.videos("trained")
        self._guard(videos, test)
        fitted = self._fit(model, recipe, videos, val=test, val_decides=val_decides, clip=point.clip)
        self._keep(fitted)
        self.case.note("training", describe_training(recipe, fitted, seed=self.seed, checkpoint=checkpoint))
        if checkpoint == "best" and fitted.best is not None:
            model.load_state_dict(read_weights(fitted.best)["state_dict"])
        return _Trained(recipe=recipe, fitted=fitted, averaging=averaging_of(videos))

    def _guard(self, videos: "VideoSet", test: "VideoSet") -> None:
        """DatasetError where the two share material that is not allowed by name; what is allowed is remembered."""
        from bench.data.leakage import guard_leakage

        with self.ranks.in_turn():
            leaks = guard_leakage(videos, test, allowed=self.allow_leaks)
        self.leaked[videos.name] = len({leak.test for leak in leaks})
        if leaks:
            self.case.warn(
                f"{self.leaked[videos.name]} of {len(test)} test videos share material with the training set, which "
                f"flatters; the suite allows it by name: {leaks[0].shared}, …"
            )

    def _fit(
        self,
        model: "nn.Module",
        recipe: "Recipe",
        videos: "VideoSet",
        *,
        val: "VideoSet",
        val_decides: bool = False,
        clip: Clip,
    ) -> "Fitted":
        """Train, or find trained, in a folder beside the case's own that is named after the training."""
        from bench.train.accuracy_protocol import training_notes
        from bench.train.fitting import fit, identity

        case, point = self.case, self.case.point
        about = training_notes(model, name=point.model, arguments=point.args, weights=case.weights)
        what: dict[str, Any] = {"val": val, "val_decides": val_decides, "clip": clip, "seed": self.seed, "about": about}
        folder = case.artifacts.parent / f"training_{identity(model, recipe, videos, **what)}"
        with self._sole(folder):
            fitted = fit(
                model,
                recipe,
                videos,
                **what,
                device=case.device,
                folder=folder,
                workers=self.workers,
                report=self._report,
                tensorboard=self.tensorboard,
                meter=self._meter(),
            )
        for warning in fitted.warnings:
            case.warn(warning)
        return fitted

    @contextmanager
    def _sole(self, folder: Path) -> Iterator[None]:
        """The first rank holds `folder` for itself, and keeps what the training in it used, unless it is known."""
        from bench.measure.training_cost import FILE, carbon_kept
        from bench.train.checkpointing import locked

        if not self.ranks.is_first:
            yield
            return
        with locked(folder):
            is_known = (folder / FILE).is_file() or (folder / "last.pt").is_file()
            with carbon_kept(folder, country=None if is_known else self.country):
                yield

    def _meter(self) -> "Meter | None":
        """The counter of this rank's GPU; that of the processors is read by one rank of each machine."""
        import torch

        from bench.measure.energy import counter_of

        device = torch.device(self.case.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        counter = counter_of(str(device)) if device.type == "cuda" or self.ranks.local == 0 else None
        return None if counter is None else counter.joules

    def _keep(self, fitted: "Fitted") -> None:
        for key, path in (("weights", fitted.last), ("best_weights", fitted.best), ("curves", fitted.curves)):
            if path is not None:
                self.case.keep(key, path)

    def evaluate(
        self,
        model: "nn.Module",
        test: "VideoSet",
        look: _Look,
        *,
        batch: int,
        excludes_unread: bool,
    ) -> "Evaluation":
        from bench.train.evaluating import evaluate

        return evaluate(
            model,
            test,
            clip=self.case.point.clip,
            views=views_of(self.case),
            device=self.case.device,
            batch=batch,
            workers=self.workers,
            averaging=look.averaging,
            resize=look.resize,
            sampling=look.sampling,
            short=look.short,
            excludes_unread=excludes_unread,
            report=self._report,
        )

    def record(self, model: "nn.Module", test: "VideoSet", seen: "Evaluation", look: _Look) -> None:
        """Put the protocol into the record and every video's scores beside it."""
        from bench.train.accuracy_protocol import describe_evaluation
        from bench.train.predictions import FILE, write_predictions

        case = self.case
        protocol = describe_evaluation(
            model,
            test,
            seen,
            clip=case.point.clip,
            views=views_of(case),
            resize=look.resize,
            sampling=look.sampling,
            short=look.short,
            averaging=look.averaging,
        )
        protocol |= {"shared_with_training": self.leaked or None, "leaks_allowed": list(self.allow_leaks)}
        case.note("protocol", protocol)
        file = write_predictions(case.artifacts / FILE, seen, test, protocol=protocol, network=case.case.title)
        case.keep("predictions", file)
        if seen.is_multi_label and look.averaging == "softmax" and case.point.recipe is None:
            case.warn(
                "the network's outputs were taken as probabilities among all classes, of videos with several labels",
                "say `averaging: sigmoid` where it was trained with a binary loss for each class",
            )
        if seen.unread:
            case.warn(
                f"{len(seen.unread)} of {seen.counted} videos could not be read and are {protocol['unread_are']}",
                "see `vbench data verify`; the record's protocol names the first of them",
            )

    def _report(self, progress: "Progress") -> None:
        self.case.progress(str(progress), progress.fraction)


def _require_classes(num_classes: Json, videos: "VideoSet", *, exactly: bool) -> None:
    """InputError where the case names fewer classes than `videos` has, or not `exactly` as many."""
    needed = len(videos.classes)
    if isinstance(num_classes, int) and (num_classes < needed or (exactly and num_classes != needed)):
        raise InputError(
            f"num_classes is {num_classes}, but {videos.name} has {needed} classes; leave it out, "
            "so that each training has the classes of its data set"
        )


def views_of(case: LoadedCase) -> Views:
    """Temporal and spatial views of a case; one each where it does not say."""
    return views_from_text(case.point.views or "1x1")


def _metrics(seen: "Evaluation", fitted: "Fitted | None") -> list[Metric]:
    metrics = [_percent("top1", seen.top(1)), *_few_classes_aside(seen)]
    metrics.append(Metric(name="accuracy.clip_top1", value=100 * seen.clip_top(1), unit="%", better="higher"))
    if seen.is_multi_label:
        value = 100 * seen.mean_average_precision
        metrics.append(Metric(name="accuracy.map", value=value, unit="%", better="higher"))
    else:
        metrics.append(Metric(name="accuracy.mean_class", value=100 * seen.mean_class, unit="%", better="higher"))
    if fitted is not None:
        metrics.append(Metric(name="accuracy.train_seconds", value=fitted.seconds, unit="s", better="lower"))
    metrics.append(Metric(name="accuracy.evaluation_seconds", value=seen.seconds, unit="s", better="lower"))
    return metrics


def _costs(fitted: "Fitted | None", *, reach: list[float]) -> list[Metric]:
    """What the training cost, where there was one."""
    from bench.measure.training_cost import carbon_metrics, cost_to_reach
    from bench.train.curves import read_curves

    if fitted is None:
        return []
    return [*cost_to_reach(read_curves(fitted.curves), reach), *carbon_metrics(fitted.curves.parent)]


def _few_classes_aside(seen: "Evaluation") -> list[Metric]:
    """Top-5 says nothing of five classes or fewer."""
    return [_percent("top5", seen.top(5))] if seen.scores.shape[1] > 5 else []


def _percent(name: str, share: "Estimate") -> Metric:
    return Metric(
        name=f"accuracy.{name}",
        value=100 * share.value,
        unit="%",
        better="higher",
        interval=(100 * share.low, 100 * share.high),
    )
