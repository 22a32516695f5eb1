"""Trains the model of an accuracy case, after pretraining its weights if the suite asks for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.core.recipe_choice import RecipeChoice
from bench.core.registry import DATASETS
from bench.core.schema import Clip, Json, Pretraining
from bench.measure.context import DEFAULT_SEED, CaseContext

if TYPE_CHECKING:
    from torch import nn

    from bench.data.collection import VideoSet
    from bench.models.weights.load_report import LoadReport
    from bench.train.fitting import TrainingResult
    from bench.train.progress import Progress
    from bench.train.ranks import Ranks
    from bench.train.recipe import Recipe
    from bench.train.training_energy import JouleCounter

Role = Literal["trained", "evaluated"]
ROLES: tuple[Role, Role] = ("trained", "evaluated")
Checkpoint = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class CaseTraining:
    """The data sets and trainings of one case. `given` holds the parts of the input protocol that the user gives.

    `leaked` has the number of test videos that share material with the training set, by data set.
    """

    case: CaseContext
    root: str | None
    options: dict[str, Any]
    workers: int
    given: InputProtocol
    allow_leaks: tuple[str, ...]
    ranks: "Ranks"
    tensorboard: bool
    country: str | None
    leaked: dict[str, int] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return DEFAULT_SEED if self.case.point.seed is None else self.case.point.seed

    def videos(self, role: Role) -> "VideoSet":
        """The videos of the case to train on or to evaluate on. Raises InputError if the suite names no data set."""
        point = self.case.point
        if point.dataset is None:
            raise InputError("no data set is given; name one in the suite, such as `dataset: ucf101`")
        return self._open(point.dataset, role, split=point.split, root=self.root, options=self.options)

    def pretrain(self, test: "VideoSet") -> None:
        """Train the weights that the case starts from, if it asks for pretraining.

        Their data set is found without `root`. Cases of one results folder that start from the same weights share one
        training.
        """
        from bench.train.accuracy_protocol import describe_training
        from bench.train.recipe import read_recipe

        wanted = Pretraining.of(self.case.point.weights)
        if wanted is None:
            return
        videos, val = (self._open(wanted.dataset, role, split=None, root=None, options={}) for role in ROLES)
        require_classes(self.case.point.args.get("num_classes"), videos, exactly=True)
        self.guard(videos, test)
        recipe = read_recipe(self.case.recipe_path(wanted.recipe))
        model = self.case.build_model(num_classes=len(videos.classes))
        clip = self.case.point.clip
        if wanted.is_inflated:
            clip = Clip(frames=1, height=clip.height, width=clip.width)
        result = self._fit(model, recipe, videos, val=val, clip=clip)
        described = describe_training(recipe, result, seed=self.seed, checkpoint="last")
        weights = self._inflated(model, result) if wanted.is_inflated else result.last
        self.case.weights = str(weights)
        self.case.keep("pretrained_weights", weights)
        self.case.note("pretraining", {"dataset": videos.name, "is_inflated": wanted.is_inflated, **described})

    def train(
        self, model: "nn.Module", test: "VideoSet", *, checkpoint: Checkpoint, val_decides: bool
    ) -> "TrainingResult | None":
        """Train `model` by the case's recipe and return the result; without a recipe it keeps its weights.

        Raises InputError if the case has neither a recipe nor weights.
        """
        from bench.data.leakage import hold_out
        from bench.train.accuracy_protocol import describe_training
        from bench.train.checkpointing import read_weights
        from bench.train.recipe import read_recipe

        point = self.case.point
        if point.recipe is None:
            self._note_weights(model)
            return None
        choice = RecipeChoice.parse(point.recipe)
        recipe = read_recipe(self.case.recipe_path(point.recipe), choice=choice)
        videos = self.videos("trained")
        self.guard(videos, test)
        val = test
        if recipe.val_ratio:
            videos, val = hold_out(videos, share=recipe.val_ratio)
        result = self._fit(model, recipe, videos, val=val, val_decides=val_decides, clip=point.clip)
        for key, path in (("weights", result.last), ("best_weights", result.best), ("curves", result.curves)):
            if path is not None:
                self.case.keep(key, path)
        described = describe_training(recipe, result, seed=self.seed, checkpoint=checkpoint, changes=choice.changes)
        self.case.note("training", described)
        if checkpoint == "best" and result.best is not None:
            model.load_state_dict(read_weights(result.best)["state_dict"])
        return result

    def report(self, progress: "Progress") -> None:
        """Show the progress of a training or evaluation."""
        self.case.progress(str(progress), progress.fraction)

    def _note_weights(self, model: "nn.Module") -> None:
        from bench.models.weights.load_report import require_trained
        from bench.train.accuracy_protocol import file_hash

        point = self.case.point
        report: LoadReport | None = model.__dict__.get("weights_report")
        if report is None:
            raise InputError("accuracy needs a recipe to train with, or weights to evaluate; the suite names neither")
        require_trained(model)
        found = file_hash(report.path) or report.sha256 or None
        named = point.weights or str(report.path)
        self.case.note("training", {"recipe": None, "weights": named, "weights_hash": found})

    def _inflated(self, model: "nn.Module", result: "TrainingResult") -> Path:
        """The file of the weights that were trained on single frames, after they are inflated to 3D kernels."""
        from bench.models.inflation import inflate_single_frames
        from bench.train.checkpointing import write_weights

        path = result.last.with_name("inflated.pt")
        if self.ranks.is_first and not path.is_file():
            inflated = inflate_single_frames(model)
            # Pixels are prepared as in the training; its clip of one frame and its classes do not carry over.
            protocol = result.protocol.without("clip").without("classes").as_stored()
            about = {"identity": result.identity, "inflated": list(inflated), "input_protocol": protocol}
            write_weights(path, model.state_dict(), about=about)
        self.ranks.wait()
        return path

    def _open(
        self, dataset: str, role: Role, *, split: int | str | None, root: str | None, options: dict[str, Any]
    ) -> "VideoSet":
        from bench.data.collection import open_dataset
        from bench.data.split_names import evaluated_split, trained_split

        choose = trained_split if role == "trained" else evaluated_split
        name = choose(split, known=DATASETS.get(dataset).splits, dataset=dataset)
        self.case.progress(f"opening {dataset} {name}")
        with self.ranks.in_turn():
            videos = open_dataset(dataset, root=root, split=name, **options)
        if videos.missing_warning and videos.missing_warning not in {warning.what for warning in self.case.warnings}:
            self.case.warn(videos.missing_warning, "vbench data verify names the missing videos")
        return videos

    def guard(self, videos: "VideoSet", test: "VideoSet") -> None:
        """Raise DatasetError if the two sets share material that `allow_leaks` does not name; note what it allows."""
        from bench.data.leakage import guard_leakage

        with self.ranks.in_turn():
            leaks = guard_leakage(videos, test, allowed=self.allow_leaks)
        self.leaked[videos.name] = len({leak.test for leak in leaks})
        if leaks:
            self.case.warn(
                f"{self.leaked[videos.name]} of {len(test)} test videos share material with the training set, so the "
                f"accuracy is too high; the suite allows it by name: {leaks[0].shared}, …"
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
    ) -> "TrainingResult":
        """Train in a folder next to the case's own, named after the training; a finished training there is reused."""
        from bench.train.accuracy_protocol import training_notes
        from bench.train.fitting import fit, identity

        case, point = self.case, self.case.point
        entry = point.entry if case.weights == point.weights else None
        about = training_notes(model, name=point.model, arguments=point.args, weights=case.weights, entry=entry)
        what: dict[str, Any] = {"val": val, "val_decides": val_decides, "clip": clip, "given": self.given}
        what |= {"seed": self.seed, "about": about}
        folder = case.artifacts.parent / f"training_{identity(model, recipe, videos, **what)}"
        with self._locked(folder):
            result = fit(
                model,
                recipe,
                videos,
                **what,
                device=case.device,
                folder=folder,
                workers=self.workers,
                report=self.report,
                tensorboard=self.tensorboard,
                counter=self.joule_counter(),
            )
        for warning in result.warnings:
            case.warn(warning)
        return result

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Lock `folder` for the first rank, and measure the energy of a training in it that is not finished yet."""
        from bench.measure.training_cost import FILE, carbon_kept
        from bench.train.checkpointing import locked

        if not self.ranks.is_first:
            yield
            return
        with locked(folder):
            is_known = (folder / FILE).is_file() or (folder / "last.pt").is_file()
            with carbon_kept(folder, country=None if is_known else self.country):
                yield

    def joule_counter(self) -> "JouleCounter | None":
        """The energy counter of this rank's GPU; that of the CPUs is read by one rank of each machine."""
        import torch

        from bench.measure.energy_counter import counter_of

        device = torch.device(self.case.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        counter = counter_of(str(device)) if device.type == "cuda" or self.ranks.local == 0 else None
        return None if counter is None else counter.joules


def require_classes(num_classes: Json, videos: "VideoSet", *, exactly: bool) -> None:
    """Raise InputError if the case names fewer classes than `videos` has, or not `exactly` as many."""
    needed = len(videos.classes)
    if isinstance(num_classes, int) and (num_classes < needed or (exactly and num_classes != needed)):
        raise InputError(
            f"num_classes is {num_classes}, but {videos.name} has {needed} classes; leave it out, "
            "so that each training has the classes of its data set"
        )
