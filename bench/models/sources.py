"""Models of other packages by `source:name.tag`: torchvision, timm, Hugging Face folders, the user's code.

Nothing is downloaded unless a tag asks for published weights (`torchvision:r3d_18.kinetics400_v1`).
"""

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, ClipError, InputError, MissingPackageError, UnknownNameError, WeightsError
from bench.core.file_modules import import_file
from bench.core.model_name import is_file_name
from bench.core.registry import MODELS, ModelEntry
from bench.models.backbones import Backbone, FrameModel, frames_of
from bench.models.base import InputSpec, belongs_to, head_name_of, modality_of
from bench.models.huggingface import huggingface_entry
from bench.models.weights.checkpoint import Checkpoint
from bench.models.weights.load_report import LoadReport
from bench.models.weights.matching import copy_weights

FACTORY_NAMES = ("create_model", "build_model", "get_model", "model")


def source_entry(name: str) -> ModelEntry:
    """Return the entry of a name with a colon, or of a file; raises InputError or UnknownNameError if there is none."""
    source, _, rest = name.partition(":")
    return SOURCES.get(source, user_entry)(name, rest)


def source_names(source: str) -> list[str]:
    """Return the names that `source` offers; those of Hugging Face and of the user's code are not known in advance."""
    if source == "torchvision":
        return [f"torchvision:{name}" for name in _torchvision_names()]
    if source == "timm":
        return [f"timm:{name}" for name in _timm("timm:NAME").list_models()]
    return []


def source_weights(name: str) -> list[str]:
    """Return the names with a tag under which a source has published weights of `name`."""
    source, _, rest = name.partition(":")
    if source == "torchvision":
        from torchvision import models

        return [f"{name}.{member.name.lower()}" for member in models.get_model_weights(rest)]
    if source == "timm":
        return [f"timm:{full}" for full in _timm(name).list_pretrained(f"{rest}.*")]
    return []


def models_with_weights(source: str) -> set[str]:
    """Return the names of the models of torchvision or timm that have published weights, without tags."""
    if source == "timm":
        return {f"timm:{full.partition('.')[0]}" for full in _timm("timm:NAME").list_pretrained()}
    return {name for name in source_names(source) if source_weights(name)}


def pretrained_name(name: str) -> str:
    """Return `name` with the tag of the published weights that its source prefers, unless it has a tag.

    Raises InputError for models whose weights are files: they are given as `weights`.
    """
    source, colon, rest = name.partition(":")
    if colon and source == "hf":
        return name  # a folder's weights are beside its config.json
    if source not in ("torchvision", "timm") or not colon:
        raise InputError(
            f"no published weights of {name} are fetched when it is built; `vbench weights find` lists files, and "
            "create_model takes one as `weights`"
        )
    if "." in rest:
        return name
    if source == "torchvision":
        from torchvision import models

        torchvision_entry(name, rest)  # an unknown name raises the error that lists the known ones
        return f"{name}.{models.get_model_weights(rest).DEFAULT.name.lower()}"
    timm_entry(name, rest)
    return f"{name}.{_timm(name).get_pretrained_cfg(rest).tag}"


def user_entry(name: str, factory: str) -> ModelEntry:
    """Return the entry of `package.module:factory`, `file.py:factory` or `file.py`.

    The factory returns a model and may take `num_classes`. A file needs no name of a factory if it has only one, or
    one that is called `create_model`, `build_model`, `get_model` or `model`. Models that the file registers can be
    named too. The default clip is the attribute `clip` of the factory, if it has one.
    """
    module_name = name.partition(":")[0]
    try:
        module = _user_module(module_name)
    except InputError as error:
        allowed = ", ".join(f"{source}:NAME" for source in SOURCES)
        raise InputError(
            f"unknown model {name!r}: {error}; allowed: {allowed}, package.module:factory, file.py:factory"
        ) from error
    if is_file_name(name):
        registered = {entry.name: entry for entry in MODELS if entry.function.__module__ == module.__name__}
        factory = factory or _only_factory(module, registered, name)
        if factory in registered:
            return replace(registered[factory], name=name)
    if not hasattr(module, factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError("factory", factory, public, where=module_name)
    function = getattr(module, factory)
    if isinstance(function, nn.Module) or not callable(function):
        raise InputError(f"{name} is a {type(function).__name__}; a function that returns an nn.Module is needed")
    return ModelEntry(name=name, family=module_name, function=function, clip=str(getattr(function, "clip", "16x1x112")))


def _only_factory(module: ModuleType, registered: Mapping[str, ModelEntry], name: str) -> str:
    """Return the name of the one factory of a file; raises InputError if there is none, or several to choose from."""
    families = sorted({entry.family for entry in registered.values()})
    own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    public = {key: value for key, value in own.items() if not key.startswith("_") and _is_factory(value)}
    functions = [key for key, value in public.items() if not inspect.isclass(value)]
    usual = [key for key in FACTORY_NAMES if key in functions]
    # Classes last: a file with a function has that function build them.
    candidates = families or usual[:1] or functions or sorted(public)
    if len(candidates) != 1:
        found = f"it has {', '.join(candidates)}" if candidates else "it has none that needs no arguments"
        raise InputError(f"{name} needs one function or class that returns a model, and {found}; name one: {name}:NAME")
    return candidates[0]


def _is_factory(value: Any) -> bool:
    """Whether a value can be called without arguments to build a model."""
    if not (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module))):
        return False
    parameters = inspect.signature(value).parameters.values()
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {each.name for each in parameters if each.default is each.empty and each.kind not in many}
    return needed <= {"num_classes"}


def torchvision_entries() -> Iterator[ModelEntry]:
    """Yield the video models of torchvision."""
    for name in _torchvision_names():
        yield torchvision_entry(f"torchvision:{name}", name)


def torchvision_entry(name: str, rest: str) -> ModelEntry:
    """Return the entry of a video model of torchvision; a tag, as in `r3d_18.kinetics400_v1`, names its weights."""
    from torchvision import models

    model_name, _, tag = rest.partition(".")
    if model_name not in _torchvision_names():
        raise UnknownNameError("model", name, source_names("torchvision"))
    published = models.get_model_weights(model_name)
    tags = {member.name.lower(): member for member in published}
    if tag and tag.lower() not in tags:
        raise UnknownNameError("tag", tag, tags, where=name)
    transforms = published.DEFAULT.transforms()

    def build(num_classes: int = 400, **arguments: Any) -> nn.Module:
        model: nn.Module = models.get_model(model_name, weights=None, num_classes=num_classes, **arguments)
        facts = {"inputs": (InputSpec(),), "mean": tuple(transforms.mean), "std": tuple(transforms.std)}
        model.__dict__.update(facts, head_name=head_name_of(model))
        _limit_clips(model, model_name)
        if tag and not _is_meta():
            model.__dict__["weights_report"] = _load_published(model, tags[tag.lower()], name=name)
        return model

    build.__doc__ = f"torchvision's {model_name}."
    stride = 4 if model_name.startswith("mvit") else 2
    paper = re.search(r"arxiv\.org/abs/([\d.]+\d)", models.get_model_builder(model_name).__doc__ or "")
    return ModelEntry(
        name=name,
        family="torchvision",
        function=build,
        clip=f"16x{stride}x{transforms.crop_size[0]}",
        paper=f"arXiv:{paper[1]}" if paper else "",
    )


def timm_entry(name: str, rest: str) -> ModelEntry:
    """Return the entry of a 2D model of timm that runs on every frame; logits are averaged. A tag names weights."""
    timm = _timm(name)
    model_name, _, tag = rest.partition(".")
    if not timm.is_model(model_name):
        raise UnknownNameError("model", name, source_names("timm"))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{model_name}.*")]
    if tag and tag not in tags:
        raise UnknownNameError("tag", tag, tags, where=name)

    def build(num_classes: int = 400, in_channels: int = 3, **arguments: Any) -> nn.Module:
        with _fetching(name) if tag else contextlib.nullcontext():
            image_model = timm.create_model(
                rest,
                pretrained=bool(tag) and not _is_meta(),
                num_classes=num_classes,
                in_chans=in_channels,
                **arguments,
            )
        model = FrameAverage(image_model, in_channels=in_channels, only_px=arguments.get("img_size"))
        if tag and not _is_meta():
            model.__dict__["weights_report"] = _timm_report(image_model, name=name)
        return model

    size = timm.get_pretrained_cfg(rest).input_size[-1]
    return ModelEntry(name=name, family="timm", function=build, clip=f"8x8x{size}", paper="arXiv:1608.00859")


class FrameAverage(FrameModel):
    """Mean over the frames of a 2D model's logits, the consensus of Wang et al., 2016, arXiv:1608.00859."""

    def __init__(self, image_model: Any, *, in_channels: int, only_px: int | None) -> None:
        about = image_model.pretrained_cfg
        if only_px is None and about.get("fixed_input_size"):
            only_px = about["input_size"][-1]
        super().__init__(
            Backbone(
                model=image_model,
                width=image_model.num_features,
                smallest_px=only_px or 32,
                only_px=only_px,
                mean=tuple(about["mean"]),
                std=tuple(about["std"]),
            )
        )
        self.inputs = (InputSpec(channels=in_channels, modality=modality_of(in_channels)),)
        self.backbone = image_model
        self.head_name = head_name_of(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean over the frames of the input of the 2D model's classifier, `(B, features)`."""
        (clip_BCTHW,) = clips
        maps = self.backbone.forward_features(frames_of(clip_BCTHW))
        return _mean_over_frames(self.backbone.forward_head(maps, pre_logits=True), batch=len(clip_BCTHW))

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`, the mean over the frames."""
        self.check(*clips)
        (clip_BCTHW,) = clips
        return _mean_over_frames(self.backbone(frames_of(clip_BCTHW)), batch=len(clip_BCTHW))


SOURCES: Mapping[str, Callable[[str, str], ModelEntry]] = {
    "torchvision": torchvision_entry,
    "timm": timm_entry,
    "hf": huggingface_entry,
}


def _user_module(name: str) -> ModuleType:
    what = f"file {name}" if is_file_name(name) else f"module {name!r}"
    try:
        return import_file(name) if is_file_name(name) else importlib.import_module(name)
    except BenchError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise InputError(f"there is no module {name!r}, here or among the installed packages") from error
        raise InputError(f"{what} cannot be imported: it needs {error.name}, which is not installed") from error
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error


def _mean_over_frames(values: Tensor, *, batch: int) -> Tensor:
    return values.reshape(batch, -1, *values.shape[1:]).mean(1)


def _is_meta() -> bool:
    """Return whether models are being built without memory, so that fetching weights would be useless."""
    return torch.get_default_device().type == "meta"


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models.video))


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingPackageError("timm", needed_for=name, install="pip install timm") from error
    return timm


def _limit_clips(model: nn.Module, name: str) -> None:
    """Let the model refuse clips that it cannot take, because the error of torch is less clear."""
    if name == "s3d":  # its last pooling is 2x7x7, after time is halved three times and space five times
        check = partial(_check_clip, smallest=(13, 224), is_only=False)
    elif name.startswith("mvit"):  # position embeddings
        check = partial(_check_clip, smallest=(16, 224), is_only=True)
    else:
        return
    model.__dict__["smallest_clip"] = check.keywords["smallest"]
    model.register_forward_pre_hook(check)


def _check_clip(model: nn.Module, clips: tuple[Tensor, ...], *, smallest: tuple[int, int], is_only: bool) -> None:
    frames, *pixels = (int(n) for n in clips[0].shape[2:])
    least_frames, least_pixels = smallest
    fits = frames >= least_frames and min(pixels) >= least_pixels
    if is_only:
        fits = frames == least_frames and set(pixels) == {least_pixels}
    if not fits:
        raise ClipError(
            f"{type(model).__name__} takes no {'other' if is_only else 'smaller'} clip than "
            f"{least_frames}x{least_pixels}x{least_pixels} (frames x H x W), "
            f"found {'x'.join(map(str, (frames, *pixels)))}"
        )


def _load_published(model: nn.Module, weights: Any, *, name: str) -> LoadReport:
    """Load torchvision's weights; a head with another number of classes keeps its random weights."""
    with _fetching(name):
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    stem = Path(weights.url).stem  # ends in the beginning of its hash, which torchvision has checked
    return copy_weights(
        model,
        Checkpoint(path=Path(name), sha256=stem.rpartition("-")[2], n_bytes=0, container="torchvision", state=state),
    )


def _timm_report(model: Any, *, name: str) -> LoadReport:
    """Return what timm loaded: everything except a head whose number of classes differs from the published one."""
    head, published = head_name_of(model), model.pretrained_cfg.get("num_classes")
    is_fresh = published != model.num_classes
    keys = list(model.state_dict())
    fresh = tuple(f"backbone.{key}" for key in keys if is_fresh and belongs_to(key, head))
    return LoadReport(
        path=Path(name),
        sha256="",
        container="timm",
        loaded=len(keys) - len(fresh),
        fresh=fresh,
        file_classes=published or None,
        model_classes=model.num_classes,
    )


@contextlib.contextmanager
def _fetching(name: str) -> Iterator[None]:
    try:
        yield
    except BenchError:
        raise
    except (OSError, RuntimeError) as error:  # no connection, a wrong hash
        raise WeightsError(f"the weights of {name} could not be fetched: {error}") from error
