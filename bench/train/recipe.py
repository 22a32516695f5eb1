"""A recipe: how a network is trained, with its source, read from YAML; every mistake is told with its place."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from bench.core.errors import BenchError, Problem, SuiteError, suggest
from bench.core.schema import Frozen, Json, MemoryFormat, TorchCompileMode, digest
from bench.core.validation import plain_message, spelling_hint
from bench.core.yaml_tree import Place, Tree, read_yaml
from bench.data.sampling import Short, ViewSampling, view_sampling
from bench.data.transforms import Augmentation
from bench.train.schedule import Constant, Cosine, Multistep, Plateau, Positive, Share

Pixels = Annotated[int, Field(ge=1)]


class SGD(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    lr: Positive
    momentum: Share = 0.9
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
    """How a network is trained. `batch` is the number of clips of one optimizer step, over all ranks.

    `accumulate` splits such a step into that many passes, to save memory; it does not change the step.
    `dropout` sets the probability of every dropout layer; None leaves the network's own. `ema` is the decay of the
    average of weights that is evaluated in place of the weights. `ft_begin_module` trains from that module on.
    `validate_every` counts epochs; 0 means never. `augmentation` is what `bench.data.transforms.Augmentation` takes;
    `evaluation_resize` is what frames are scaled to in evaluation (short side or H and W), by default the
    augmentation's `resize`, else just enough for the clip; its clips are taken as the augmentation's `sampling` and
    `short` say: blocks spread over the video, or sections where it is `uniform` or `segments`. `memory_format` is that
    of clips and weights in training.
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
    evaluation_resize: Pixels | tuple[Pixels, Pixels] | None = None
    augmentation: dict[str, Json] = Field(default_factory=dict)

    @property
    def augmenting(self) -> Augmentation:
        """The augmentation, checked when the recipe was read."""
        return Augmentation.from_mapping(self.augmentation)

    @property
    def resize(self) -> int | tuple[int, int] | None:
        """What frames are scaled to in evaluation; None covers the clip."""
        return self.evaluation_resize or self.augmenting.resize

    @property
    def view_sampling(self) -> ViewSampling:
        """How the clips of an evaluation are taken, as the augmentation's `sampling` takes those of training."""
        return view_sampling(self.augmenting.sampling)

    @property
    def view_short(self) -> Short:
        """What fills a clip that is longer than its video; dense blocks wrap round the end whatever is said."""
        return "loop" if self.augmenting.sampling == "dense" else self.augmenting.short

    @property
    def hash(self) -> str:
        """12 hex digits over everything that changes the training; the words of `source` do not."""
        return digest(self.model_dump(mode="json", exclude={"source", "recipe"}))


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file; SuiteError with every problem, one `file:line:column: message` a line."""
    tree = read_yaml(Path(path))
    if not isinstance(tree.data, Mapping):
        raise SuiteError(str(path), [tree.problem((), "a recipe is a mapping, such as `epochs: 12`")])
    try:
        recipe = Recipe.model_validate(tree.data)
    except ValidationError as error:
        raise SuiteError(str(path), [_invalid(tree, dict(found)) for found in error.errors()]) from None
    problems = [tree.problem(place, message) for place, message in _contradictions(recipe)]
    if problems:
        raise SuiteError(str(path), problems)
    return recipe


def _invalid(tree: Tree, found: Mapping[str, Any]) -> Problem:
    """One problem of pydantic's; it puts the chosen optimizer's or schedule's name into the location."""
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
    """Settings that are right one by one and wrong together, each with its place."""
    schedule, optimizer = recipe.schedule, recipe.optimizer
    if schedule.warmup_epochs >= recipe.epochs:
        yield ("schedule", "warmup_epochs"), f"the warm-up must be shorter than the {recipe.epochs} epochs"
    if isinstance(schedule, Multistep) and schedule.milestones[-1] >= recipe.epochs:
        yield ("schedule", "milestones"), f"a milestone lies beyond the last of {recipe.epochs} epochs"
    if isinstance(schedule, Plateau) and recipe.validate_every != 1:
        yield ("validate_every",), "a plateau schedule needs validate_every: 1"
    if recipe.batch % recipe.accumulate:
        yield ("accumulate",), f"batch {recipe.batch} cannot be split into {recipe.accumulate} equal passes"
    if isinstance(optimizer, SGD) and optimizer.nesterov and not optimizer.momentum:
        yield ("optimizer", "nesterov"), "nesterov needs momentum"
    try:
        _ = recipe.augmenting
    except BenchError as error:
        yield ("augmentation",), str(error)
