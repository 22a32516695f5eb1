"""Writes a checkpoint for another code base, so that a training of vbench goes on there.

The weights are loaded into the model here first, so that a file which does not fit is never exported. What the other
code base would read is checked by reading the new names back.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bench.core.errors import InputError, MissingPackageError, WeightsError, suggest
from bench.core.input_protocol import InputProtocol
from bench.core.registry import ModelEntry
from bench.models.factory import create_model, find_model
from bench.models.groups import parameter_groups
from bench.models.sources import torchvision_entries
from bench.models.weights.checkpoint import Checkpoint, read_checkpoint
from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint
from bench.models.weights.identification import fits_of, undecided
from bench.models.weights.mmaction_export import to_mmaction2
from bench.models.weights.safe_pickle import read_torch
from bench.models.weights.translations import names_for, rows_of
from bench.train.checkpointing import save_torch, written_whole
from bench.train.recipe import SGD, Recipe
from bench.train.schedule import Multistep

Target = Literal["3d-resnets", "torchvision", "mmaction2", "safetensors"]
TARGETS: tuple[Target, ...] = get_args(Target)

# Families of 3D-ResNets-PyTorch by their names here, and the options of its opts.py for their arguments.
HARA_MODELS = {
    "resnet3d": "resnet",
    "r2plus1d": "resnet2p1d",
    "preact_resnet3d": "preresnet",
    "wide_resnet3d": "wideresnet",
    "resnext3d": "resnext",
    "densenet3d": "densenet",
}
HARA_OPTIONS = {
    "shortcut": "--resnet_shortcut",
    "widen_factor": "--resnet_widen_factor",
    "k": "--wide_resnet_k",
    "cardinality": "--resnext_cardinality",
    "stem_kernel_t": "--conv1_t_size",
    "stem_stride_t": "--conv1_t_stride",
}
STATE_ENTRY = "training.model"
"""Where the weights are in the state of an unfinished training."""


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A written file, the model in it, and what a user must know to go on with it."""

    path: Path
    target: Target
    model: str
    arguments: Mapping[str, Any]
    tensors: int
    epoch: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A checkpoint with the model that it was loaded into; `arguments` include the number of classes."""

    checkpoint: Checkpoint
    entry: ModelEntry
    model: nn.Module
    arguments: Mapping[str, Any]
    about: Mapping[str, Any]
    protocol: InputProtocol
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> dict[str, Tensor]:
        return {key: value.detach().clone().contiguous() for key, value in self.model.state_dict().items()}

    @property
    def epoch(self) -> int | None:
        found = self.about.get("epoch")
        return int(found) if isinstance(found, int | float) else None


def export_weights(
    path: str | PathLike[str], *, to: str, out: str | PathLike[str] | None = None, entry: str | None = None
) -> ExportedFile:
    """Write the weights of `path` as `to` reads them, to `out` or next to the file, and return what was written.

    `3d-resnets` takes also the state of an unfinished training here (`state_*.pt`), with the momentum of its optimizer.
    Raises UnknownNameError for an unknown target, WeightsError if the file fits no model or the target has none such,
    and InputError if `out` is the file itself.
    """
    if to not in TARGETS:
        raise InputError(f"unknown target {to!r}; {suggest(to, TARGETS)}")
    target: Target = next(name for name in TARGETS if name == to)
    source = _read(Path(path), entry=entry)
    ending = ".safetensors" if target == "safetensors" else ".pth"
    written = Path(out) if out is not None else Path(path).with_name(f"{Path(path).stem}_{target}{ending}")
    if written.exists() and written.samefile(path):
        raise InputError(f"{written} is the file to export; give another one with --out")
    content, notes = _CONTENTS[target](source)
    with written_whole(written) as part:
        if target == "safetensors":
            _save_safetensors(content, part)
        else:
            save_torch(content, part)
    return ExportedFile(
        path=written,
        target=target,
        model=source.entry.name,
        arguments=source.arguments,
        tensors=len(source.state),
        epoch=source.epoch,
        notes=(*notes, *source.notes),
    )


def _read(path: Path, *, entry: str | None) -> _Source:
    checkpoint = read_checkpoint(path, entry=entry)
    if STATE_ENTRY in (checkpoint.entry, *checkpoint.other_entries) and entry is None:
        checkpoint = read_checkpoint(path, entry=STATE_ENTRY)
    about = {**checkpoint.facts, **checkpoint.metadata}
    if isinstance(about.get("notes"), Mapping):  # of an unfinished training
        rows = about.get("curves") or [{}]
        about |= {**about["notes"], "epoch": rows[-1].get("epoch", 0)}
    name, arguments, notes = _model_of(checkpoint, about)
    model = create_model(name, weights=path, entry=checkpoint.entry or None, **arguments)
    head = getattr(model, "head_name", "") or ""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    classes = rows_of(shapes, head)
    return _Source(
        checkpoint=checkpoint,
        entry=find_model(name),
        model=model,
        arguments={**arguments, **({} if classes is None else {"num_classes": classes})},
        about=about,
        protocol=protocol_of_checkpoint(checkpoint),
        notes=notes,
    )


def _model_of(checkpoint: Checkpoint, about: Mapping[str, Any]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Name and arguments of the model: those that a training here stored, else of the first model that fits.

    If several models fit, a note names the arguments in which they differ.
    """
    if isinstance(about.get("model"), str) and isinstance(about.get("arguments"), Mapping):
        return about["model"], {key: v for key, v in about["arguments"].items() if not key.endswith("_weights")}, ()
    fits = [fit for fit in fits_of(checkpoint) if fit.has_head]
    if not fits:
        raise WeightsError(f"{checkpoint.path} fits no model here with its classifier, so it cannot be exported")
    chosen, *others = fits
    differences = ", ".join(undecided(fits))
    note = f"the weights also fit {', '.join(fit.model for fit in others)}, which differ in {differences}"
    return chosen.model, dict(chosen.arguments), (note,) if others and differences else ()


def _for_3d_resnets(source: _Source) -> tuple[dict[str, Any], list[str]]:
    """What main.py of 3D-ResNets-PyTorch saves: epoch, arch, state_dict, optimizer and scheduler, as far as known."""
    family = HARA_MODELS.get(source.entry.family)
    if family is None:
        raise WeightsError(
            f"{source.entry.name} is no model of 3D-ResNets-PyTorch; it has {', '.join(HARA_MODELS)} (names here)"
        )
    given = {**source.entry.arguments, **source.arguments}
    epoch = source.epoch or 0
    content: dict[str, Any] = {"epoch": epoch, "arch": f"{family}-{given['depth']}", "state_dict": source.state}
    content["input_protocol"] = source.protocol.as_stored()  # ignored there, and read here
    training, notes = _training_state(source, epoch=epoch)
    options = [f"--model {family} --model_depth {given['depth']} --n_classes {given['num_classes']}"]
    options += [f"{flag} {given[name]}" for name, flag in HARA_OPTIONS.items() if name in given]
    options += ["--no_max_pool"] if given.get("no_max_pool") else []
    return {**content, **training}, [f"go on there: python main.py --resume_path FILE {' '.join(options)}", *notes]


def _training_state(source: _Source, *, epoch: int) -> tuple[dict[str, Any], list[str]]:
    """Optimizer and scheduler in the form of main.py, and what does not carry over."""
    settings = source.about.get("recipe_settings")
    if not isinstance(settings, Mapping):
        return {}, ["no optimizer state: the file is not of a training here, so give the learning rate of your own"]
    recipe = Recipe.model_validate(settings)
    plan = recipe.optimizer
    if not isinstance(plan, SGD) or recipe.ft_begin_module or recipe.layer_decay or recipe.head_lr_scale != 1:
        return {}, ["no optimizer state: main.py trains by SGD with one learning rate, and this recipe does not"]
    optimizer = torch.optim.SGD(
        source.model.parameters(),
        lr=plan.lr,
        momentum=plan.momentum,
        dampening=plan.dampening,
        weight_decay=plan.weight_decay,
        nesterov=plan.nesterov,
    )
    notes = []
    momentum = _momentum(source)
    for name, parameter in source.model.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name]
    if not momentum:
        notes.append("no momentum: a finished training keeps its weights only, so it starts at zero there")
    state: dict[str, Any] = {}
    if isinstance(recipe.schedule, Multistep) and not recipe.schedule.warmup_epochs:
        milestones = [int(each) for each in recipe.schedule.milestones]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=recipe.schedule.factor)
        for _ in range(epoch):
            optimizer.step()  # without gradients it changes nothing; the scheduler wants it to come first
            scheduler.step()
        state["scheduler"] = scheduler.state_dict()
        notes.append(f"its schedule: --multistep_milestones {' '.join(map(str, milestones))}")
    else:
        notes.append(f"no scheduler state: main.py has no schedule {recipe.schedule.name!r} of this form")
    return {"optimizer": optimizer.state_dict(), **state}, notes


def _momentum(source: _Source) -> dict[str, Tensor]:
    """The momentum of every weight by its name, if the file is the state of an unfinished training."""
    if source.checkpoint.entry != STATE_ENTRY:
        return {}
    stored = read_torch(source.checkpoint.path)["training"]["optimizer"]
    groups = parameter_groups(source.model, lr=1.0, weight_decay=0.0)  # in the order of the training
    names = {id(parameter): name for name, parameter in source.model.named_parameters()}
    in_order = [names[id(parameter)] for group in groups for parameter in group["params"]]
    buffers = {int(index): state.get("momentum_buffer") for index, state in stored["state"].items()}
    return {name: buffer for index, name in enumerate(in_order) if (buffer := buffers.get(index)) is not None}


def _for_torchvision(source: _Source) -> tuple[dict[str, Any], list[str]]:
    """A bare state_dict under the names of torchvision's own models."""
    own = {key: tuple(value.shape) for key, value in source.state.items()}
    classes = source.arguments.get("num_classes")
    for entry in torchvision_entries():
        with torch.device("meta"):
            try:
                model = entry.function(**({"num_classes": classes} if classes else {}))
            except (TypeError, ValueError):
                continue
        theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        names = names_for(theirs, own)
        if {names[key]: shape for key, shape in theirs.items()} == own and list(names) == list(theirs):
            call = f"torchvision.models.video.{entry.name.partition(':')[2]}(num_classes={classes})"
            return {key: source.state[names[key]] for key in theirs}, [f"load it into {call} by load_state_dict"]
    raise WeightsError(f"torchvision has no model with the weights of {source.entry.name}")


def _for_mmaction2(source: _Source) -> tuple[dict[str, Any], list[str]]:
    """`{meta, state_dict}` under the names of MMAction2's recognizers; MMEngine loads it by `load_from`."""
    own = {key: tuple(value.shape) for key, value in source.state.items()}
    try:
        names = to_mmaction2(source.entry.family, own, {**source.entry.arguments, **source.arguments})
    except WeightsError as error:
        raise WeightsError(f"{source.entry.name} cannot be exported to MMAction2: {error}") from None
    back = names_for({names[key]: shape for key, shape in own.items()}, own)
    if len(back) != len(own) or any(back[names[key]] != key for key in own):
        raise WeightsError(f"the weights of {source.entry.name} with {source.arguments} have no names in MMAction2")
    classes = source.protocol.classes
    meta: dict[str, Any] = {"epoch": source.epoch, "exported_by": "vbench"}
    meta |= {"dataset_meta": {"classes": list(classes)}} if classes else {}
    state = {names[key]: value for key, value in source.state.items()}
    content = {"meta": meta, "state_dict": state, "input_protocol": source.protocol.as_stored()}
    return content, ["load it there by `load_from = FILE`; optimizer and schedule start from the beginning"]


def _for_safetensors(source: _Source) -> tuple[dict[str, Any], list[str]]:
    """The weights under their names here; model, epoch and input protocol as text in the header."""
    header = {
        "format": "pt",
        "model": source.entry.name,
        "arguments": json.dumps(dict(source.arguments)),
        "input_protocol": json.dumps(source.protocol.as_stored()),
    }
    header |= {} if source.epoch is None else {"epoch": str(source.epoch)}
    return {"state": source.state, "header": header}, []


def _save_safetensors(content: Mapping[str, Any], path: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingPackageError(
            "safetensors", needed_for="--to safetensors", install="pip install safetensors"
        ) from error
    mode = path.stat().st_mode
    save_file(dict(content["state"]), path, metadata=dict(content["header"]))
    path.chmod(mode)  # the library makes a file that only its owner can read, whatever the umask


_CONTENTS: Mapping[Target, Callable[[_Source], tuple[dict[str, Any], list[str]]]] = {
    "3d-resnets": _for_3d_resnets,
    "torchvision": _for_torchvision,
    "mmaction2": _for_mmaction2,
    "safetensors": _for_safetensors,
}
