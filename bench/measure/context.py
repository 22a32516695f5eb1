"""The case context: what a measure can use of its case, and how it adds details, warnings and files to the record."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.recipe_choice import RecipeChoice
from bench.core.schema import Case, Json, Point, Pretraining, RecordWarning, is_weights_argument

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DEFAULT_SEED = 0
DRAWN_AT_ONCE = 16  # by torch.randn: only parts of a multiple of it have the values that the whole would have


class CaseContext:
    """One case while it is measured; a measure reads its point, builds its model, and adds to its record.

    `weights` is the file that the model starts from; if the case asks for pretraining, the training sets it. `session`
    is the same for all cases of one run of a suite, or empty. `logits` are the outputs of timed passes, `(B, classes)`
    by batch, for the parity check.
    """

    def __init__(
        self,
        case: Case,
        *,
        artifacts: Path,
        recipes: tuple[Path, ...] = (),
        session: str = "",
        on_progress: Callable[[str, float | None], None] = lambda text, fraction: None,
    ) -> None:
        self.case = case
        self.artifacts = artifacts
        self.recipes = recipes
        self.weights = None if Pretraining.of(case.point.weights) else case.point.weights
        self.session = session
        self.details: dict[str, Json] = {}
        self.uncounted_operators: dict[str, int] = {}
        self.warnings: list[RecordWarning] = []
        self.kept: dict[str, str] = {}
        self.logits: dict[int, Tensor] = {}
        self._on_progress = on_progress

    @property
    def point(self) -> Point:
        return self.case.point

    @property
    def device(self) -> str:
        """The device of the point; if it names none, `cuda` if torch sees a GPU, else `cpu`."""
        if self.point.device is not None:
            return self.point.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def build_model(
        self, device: str | None = None, *, num_classes: int | None = None, needs_head: bool = True
    ) -> "nn.Module":
        """A new model in eval mode on `device` (default: the case's), with the case's weights, else seeded by its seed.

        `num_classes` is used if the point gives none; see `create_model` for `needs_head`. On `meta` nothing is
        allocated and no weights are read, so that files of weights need not exist.
        """
        import torch

        from bench.models.factory import create_model

        torch.manual_seed(DEFAULT_SEED if self.point.seed is None else self.point.seed)
        target = device or self.device
        arguments: dict[str, Any] = dict(self.point.args)
        given = arguments.pop("num_classes", None)
        weights = None if target == "meta" else self.weights
        # Weights that are trained first lie in a file of our own, which has one entry.
        entry = self.point.entry if weights is not None and weights == self.point.weights else None
        if target == "meta":
            arguments = {name: value for name, value in arguments.items() if not is_weights_argument(name)}
        with torch.device(target if target == "meta" else "cpu"):
            model = create_model(
                self.point.model,
                num_classes=num_classes if given is None else given,
                weights=weights,
                entry=entry,
                needs_head=needs_head,
                **arguments,
            )
        self._note_weights(model)
        built: nn.Module = model.eval() if target == "meta" else model.to(target).eval()
        return built

    def _note_weights(self, model: "nn.Module") -> None:
        """Add the file of the weights and its hash to the record once, and a warning for each part that did not fit."""
        report = model.__dict__.get("weights_report")
        if report is None or "weights" in self.details:
            return
        path, results = Path(report.path), self.artifacts.parent.parent
        shown = path.relative_to(results) if path.is_relative_to(results) else path  # ours may be moved as a whole
        noted: dict[str, Json] = {"path": str(shown), "sha256": report.sha256, "loaded": report.loaded}
        self.note("weights", {**noted, "entry": report.entry} if report.other_entries else noted)
        for warning in report.warnings:
            self.warn(warning)

    def input_shapes(self, model: "nn.Module", *, batch: int = 1) -> tuple[tuple[int, ...], ...]:
        """The shape `(B, C, T, H, W)` of every input of `model` for the clip of this case."""
        from bench.models.base import inputs_of

        inputs = inputs_of(model)
        self.note("input_channels", [spec.channels for spec in inputs])
        return tuple(spec.shape(self.point.clip, batch=batch) for spec in inputs)

    def inputs(
        self, model: "nn.Module", *, batch: int = 1, device: str | None = None, seed: int = DEFAULT_SEED
    ) -> "tuple[Tensor, ...]":
        """A float32 batch `(B, C, T, H, W)` for every input of `model`: standard normal, the same for one `seed`."""
        import torch

        target = torch.device(device or self.device)
        shapes = self.input_shapes(model, batch=batch)
        if target.type == "meta":
            return tuple(torch.empty(shape, device=target) for shape in shapes)
        generator = torch.Generator().manual_seed(seed)
        return tuple(_standard_normal(shape, generator, target) for shape in shapes)

    def recipe_path(self, name: str) -> Path:
        """The file of recipe `name`, see `find_recipe`. Raises InputError if there is none."""
        found = find_recipe(name, self.recipes)
        if found is not None:
            return found
        name = RecipeChoice.parse(name).name
        known = sorted({path.stem for folder in self.recipes for path in folder.glob("*.yaml")})
        raise InputError(f"unknown recipe {name!r}; known: {', '.join(known) or 'none'}")

    def note(self, key: str, value: Json) -> None:
        """Add `value` to the details of the record; a second value of one key replaces the first."""
        self.details[key] = value

    def warn(self, what: str, remedy: str = "") -> None:
        """Add a warning to the record: what a reader must know, and what can be done about it."""
        self.warnings.append(RecordWarning(what=what, remedy=remedy))

    def uncounted(self, operators: dict[str, int]) -> None:
        """Add operators without a formula, and the number of their calls, to the record."""
        for name, calls in operators.items():
            self.uncounted_operators[name] = self.uncounted_operators.get(name, 0) + calls

    def keep(self, name: str, path: Path) -> None:
        """List a file below `artifacts` in the record."""
        self.kept[name] = str(path.relative_to(self.artifacts.parent.parent))

    def progress(self, text: str, fraction: float | None = None) -> None:
        """Show `text` (`epoch 3 of 12`) in the live display, and how much of it is done."""
        self._on_progress(text, fraction)


def find_recipe(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of recipe `name`: `name` itself if it is a YAML file, else the first of that name in `folders`.

    Changes after the name do not matter. Returns None if there is none. The folders of a case are the one next to its
    suite and the one that is installed with vbench.
    """
    name = RecipeChoice.parse(name).name
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    return next((file for folder in folders if (file := folder / f"{name}.yaml").is_file()), None)


def _standard_normal(shape: tuple[int, ...], generator: "torch.Generator", device: "torch.device") -> "Tensor":
    """Values drawn on the CPU, the same for every device, clip by clip: a GPU may hold more clips than main memory."""
    import torch

    if math.prod(shape[1:]) % DRAWN_AT_ONCE:
        return torch.randn(shape, generator=generator).to(device)
    clips = torch.empty(shape, device=device)
    for clip in clips:
        clip.copy_(torch.randn(shape[1:], generator=generator))
    return clips
