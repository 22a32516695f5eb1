"""A recipe: how a model is trained, with its source, read from YAML; errors name file, line and column."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from bench.core.errors import BenchError, Problem, SuiteError, suggest
from bench.core.input_protocol import Short, ViewSampling
from bench.core.recipe_choice import RecipeChoice
from bench.core.schema import Frozen, Json, MemoryFormat, TorchCompileMode, digest
from bench.core.validation import plain_message, spelling_hint
from bench.core.yaml_tree import Place, Tree, read_yaml
from bench.data.frame_sampling import view_sampling
from bench.data.transforms import Augmentation
from bench.train.schedule import Constant, Cosine, Multistep, Plateau, Positive, Share

Pixels = Annotated[int, Field(ge=1)]


class SGD(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    lr: Positive
    momentum: Share = 0.9
    dampening: Share = 0.0
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)


class AdamW(Frozen):
    """Adam with decoupled weight decay. Loshchilov and Hutter, 2019, arXiv:1711.05101."""

    name: Literal["adamw"]
    lr: Positive
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)


CHOICES: dict[str, dict[str, type[BaseModel]]] = {
    "optimizer": {"sgd": SGD, "adamw": AdamW},
    "schedule": {"constant": Constant, "multistep": Multistep, "cosine": Cosine, "plateau": Plateau},
}


class Recipe(Frozen):
    """How a model is trained. `batch` is the number of clips of one optimizer step, over all ranks.

    `accumulate` splits a step into that many passes to save memory; the step stays the same.
    `dropout` sets the probability of every dropout layer; None keeps the model's own. `ema` is the decay of the weight
    average that is evaluated instead of the weights. `ft_begin_module` trains from that module on.
    `validate_every` counts epochs; 0 means never. `validation_clips` is the number of clips per video in validations.
    `val_ratio` holds out that share of the training videos, in whole groups, to validate on them instead of on the
    evaluated split.
    `keep_every` keeps the weights of every so many epochs as `epoch_<n>.pt`; 0 keeps the last and best only.
    `augmentation` has the fields of
    `bench.data.transforms.Augmentation`. `evaluation_resize` is the size of frames in evaluation (short side, or H and
    W), by default the augmentation's `resize`, else just enough for the clip. Clips of an evaluation follow the
    augmentation's `sampling` and `short`: blocks spread over the video, or sections for `uniform` and `segments`.
    `memory_format` is that of clips and weights in training.
    """

    recipe: str = Field(pattern=r"^[a-z0-9_]+$")
    source: str = Field(min_length=1)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    schedule: Annotated[Constant | Multistep | Cosine | Plateau, Field(discriminator="name")] = Constant()
    label_smoothing: Share = 0.0
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    dropout: Share | None = None
    ema: Share | None = None
    clip_grad: Positive | None = None
    accumulate: int = Field(default=1, ge=1)
    sync_bn: bool = False
    amp: Literal["off", "fp16", "bf16"] = "off"
    compile: TorchCompileMode = "off"
    head_lr_scale: Positive = 1.0
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    ft_begin_module: str | None = None
    memory_format: MemoryFormat = "contiguous"
    validate_every: int = Field(default=1, ge=0)
    validation_clips: int = Field(default=1, ge=1)
    val_ratio: float = Field(default=0.0, ge=0, lt=1)
    keep_every: int = Field(default=0, ge=0)
    evaluation_resize: Pixels | tuple[Pixels, Pixels] | None = None
    augmentation: dict[str, Json] = Field(default_factory=dict)

    @property
    def augmenting(self) -> Augmentation:
        """The augmentation; it was checked when the recipe was read."""
        return Augmentation.from_mapping(self.augmentation)

    @property
    def resize(self) -> int | tuple[int, int] | None:
        """The size of frames in evaluation; None means just enough for the clip."""
        return self.evaluation_resize or self.augmenting.resize

    @property
    def view_sampling(self) -> ViewSampling:
        """How clips of an evaluation are sampled, to match the augmentation's `sampling`."""
        return view_sampling(self.augmenting.sampling)

    @property
    def view_short(self) -> Short:
        """How a clip longer than its video is filled; dense blocks always wrap around the end."""
        return "loop" if self.augmenting.sampling == "dense" else self.augmenting.short

    @property
    def hash(self) -> str:
        """12 hex digits over everything that changes the training; `source`, the name and `keep_every` do not.

        Settings that were added later count only if they are set, so that older trainings keep their hash.
        """
        settings = self.model_dump(mode="json", exclude={"source", "recipe", "keep_every"})
        if self.validation_clips == 1:
            del settings["validation_clips"]
        if not self.val_ratio:
            del settings["val_ratio"]
        if not settings["optimizer"].get("dampening"):
            settings["optimizer"].pop("dampening", None)
        return digest(settings)


def read_recipe(path: str | Path, *, choice: RecipeChoice | None = None) -> Recipe:
    """Read a recipe from a YAML file, with the changes of `choice`.

    Raises SuiteError with all problems, one `file:line:column: message` per line; those of a changed key name it.
    """
    tree = read_yaml(Path(path))
    if not isinstance(tree.data, Mapping):
        raise SuiteError(str(path), [tree.problem((), "a recipe is a mapping, such as `epochs: 12`")])
    if choice is not None and choice.changes:
        tree = replace(tree, data=choice.changed(tree.data))
    try:
        recipe = Recipe.model_validate(tree.data)
    except ValidationError as error:
        raise SuiteError(str(path), [_invalid(tree, dict(found)) for found in error.errors()]) from None
    problems = [tree.problem(place, message) for place, message in _contradictions(recipe)]
    if problems:
        raise SuiteError(str(path), problems)
    return recipe


def _invalid(tree: Tree, found: Mapping[str, Any]) -> Problem:
    """A problem that pydantic found, with its place in the file.

    pydantic puts the name of the chosen optimizer or schedule into the location, which the file does not have.
    """
    location: Place = found["loc"]
    place = (location[0], *location[2:]) if location[0] in CHOICES else location
    named = ".".join(str(part) for part in place)
    if found["type"] == "extra_forbidden":
        allowed = CHOICES[str(location[0])][str(location[1])] if location[0] in CHOICES else Recipe
        message = f"unknown key {place[-1]!r}; {suggest(str(place[-1]), allowed.model_fields)}"
    elif found["type"] == "missing":
        message = f"{named} is missing"
    elif found["type"].startswith("union_tag"):
        message = (
            f"{named}: unknown name {_name_in(found['input'])!r}; {suggest(_name_in(found['input']), CHOICES[named])}"
        )
        place = (*place, "name")
    else:
        message = f"{named}: {plain_message(found)}, found {found['input']!r}{spelling_hint(found)}"
    return tree.problem(place, message)


def _name_in(value: Any) -> str:
    return str(value.get("name", "")) if isinstance(value, Mapping) else str(value)


def _contradictions(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    """Settings that contradict each other, each with its place."""
    schedule, optimizer = recipe.schedule, recipe.optimizer
    if schedule.warmup_epochs >= recipe.epochs:
        yield ("schedule", "warmup_epochs"), f"the warm-up must be shorter than the {recipe.epochs} epochs"
    if isinstance(schedule, Multistep) and schedule.milestones[-1] >= recipe.epochs:
        yield ("schedule", "milestones"), f"a milestone lies after the last of {recipe.epochs} epochs"
    if isinstance(schedule, Plateau) and recipe.validate_every != 1:
        yield ("validate_every",), "a plateau schedule needs validate_every: 1"
    if recipe.batch % recipe.accumulate:
        yield ("accumulate",), f"batch {recipe.batch} cannot be split into {recipe.accumulate} equal passes"
    if isinstance(optimizer, SGD) and optimizer.nesterov and not optimizer.momentum:
        yield ("optimizer", "nesterov"), "nesterov needs momentum"
    if isinstance(optimizer, SGD) and optimizer.nesterov and optimizer.dampening:
        yield ("optimizer", "dampening"), "nesterov allows no dampening"
    try:
        _ = recipe.augmenting
    except BenchError as error:
        yield ("augmentation",), str(error)
