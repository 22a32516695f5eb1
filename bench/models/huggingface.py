"""Video transformers of Hugging Face, from a folder or the cache of this machine: VideoMAE, TimeSformer, ViViT.

Tong et al., 2022, arXiv:2203.12602; Bertasius et al., 2021, arXiv:2102.05095; Arnab et al., 2021, arXiv:2103.15691.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError, MissingPackageError, WeightsError
from bench.core.registry import ModelEntry
from bench.models.base import InputSpec, VideoModel, belongs_to
from bench.models.weights.load_report import LoadReport
from bench.reference.huggingface_cache import PAPERS, cache_of_hub, cached_folder, has_weights

HEAD = "classifier"


class HuggingFaceVideo(VideoModel):
    """`(B, C, T, H, W)` in, logits out, around a model of transformers, which takes `(B, T, C, H, W)`."""

    def __init__(self, network: Any, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        config = network.config
        self.network = network
        self.head_name = f"network.{HEAD}"
        self.inputs = (InputSpec(channels=config.num_channels),)
        self.smallest_clip = (config.num_frames, config.image_size)
        self.mean, self.std = mean, std

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the input of the classifier, `(B, features)`."""
        (clip_BCTHW,) = clips
        seen: list[Tensor] = []
        hook = self.network.get_submodule(HEAD).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self._logits(clip_BCTHW)
        finally:
            hook.remove()
        return seen[0]

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`."""
        self.check(*clips)
        return self._logits(*clips)

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError unless the clip has the size of the position embeddings."""
        super().check(*clips)
        frames, pixels = self.smallest_clip
        for clip in clips:
            if tuple(clip.shape[2:]) != (frames, pixels, pixels):
                found = "x".join(str(int(n)) for n in clip.shape[2:])
                raise ClipError(f"this {type(self.network).__name__} takes {frames}x{pixels}x{pixels}, found {found}")

    def _logits(self, clip_BCTHW: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=clip_BCTHW.transpose(1, 2)).logits
        return logits


def huggingface_entry(name: str, path: str) -> ModelEntry:
    """Return the entry of a folder with a `config.json`, or of such a file; weights in its folder are loaded.

    `path` may also be `ORG/NAME` in the local cache of Hugging Face; nothing is downloaded. Raises InputError if there
    is none, or if it does not describe a video classifier.
    """
    file = Path(path).expanduser()
    if not file.exists():
        file = cached_folder(path) or file
    file = file / "config.json" if file.is_dir() else file
    config = _read_config(file, name=name)
    kind = config.get("model_type")
    if kind not in PAPERS:
        raise InputError(f"{file} describes a {kind!r}; allowed: {', '.join(PAPERS)}")

    def build(num_classes: int | None = None, **settings: Any) -> nn.Module:
        given = settings if num_classes is None else {"num_labels": num_classes, **settings}
        mean, std = _normalisation(file.parent)
        inner, report = _build(file, given, name=name)
        model = HuggingFaceVideo(inner, mean=mean, std=std)
        model.__dict__["weights_report"] = report
        return model

    transformers = _transformers(name)
    filled = transformers.AutoConfig.for_model(**config)
    clip = f"{filled.num_frames}x4x{filled.image_size}"
    return ModelEntry(name=name, family="hf", function=build, clip=clip, paper=PAPERS[kind])


def _read_config(file: Path, *, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(
            f"{name} needs a folder with a config.json on this machine, or ORG/NAME in the cache of Hugging Face; "
            f"neither {file} nor {cache_of_hub()} has it (`hf download ORG/NAME` fetches it)"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds a {type(config).__name__}, not the settings of a model")
    return config


def _build(file: Path, settings: dict[str, Any], *, name: str) -> tuple[nn.Module, LoadReport | None]:
    """Return the model, and what was loaded from the folder of `file`; None if it has no weights."""
    transformers = _transformers(str(file))
    config = transformers.AutoConfig.from_pretrained(file, local_files_only=True)
    unknown = [key for key in settings if key != "num_labels" and not hasattr(config, key)]
    if unknown:
        raise InputError(f"{file} has no setting {unknown[0]!r}")
    for key, value in settings.items():
        setattr(config, key, value)
    maker = transformers.AutoModelForVideoClassification
    if not has_weights(file.parent) or torch.get_default_device().type == "meta":
        network: nn.Module = maker.from_config(config)
        return network, None
    with _quiet(transformers):
        network, info = maker.from_pretrained(
            file.parent,
            config=config,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return network.train(), _report(network, info, folder=file.parent, name=name)


def _report(network: nn.Module, info: dict[str, Any], *, folder: Path, name: str) -> LoadReport:
    """Return what was loaded. Raises WeightsError if anything but the head is missing or has another shape."""
    reshaped = {entry[0]: entry[1] for entry in info["mismatched_keys"]}
    fresh = sorted({*info["missing_keys"], *reshaped})
    wrong = [key for key in fresh if not belongs_to(key, HEAD)]
    if wrong:
        raise WeightsError(f"the weights in {folder} do not fit its config.json: {', '.join(wrong[:3])}, …")
    return LoadReport(
        path=Path(name),
        sha256="",
        container="Hugging Face",
        loaded=len(network.state_dict()) - len(fresh),
        fresh=tuple(f"network.{key}" for key in fresh),
        file_classes=next((shape[0] for shape in reshaped.values()), None),
        model_classes=getattr(network.get_submodule(HEAD), "out_features", None),
    )


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the folder's image processor, else those of VideoModel."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return VideoModel.mean, VideoModel.std
    about = _read_config(file, name=str(file))
    return tuple(about.get("image_mean", VideoModel.mean)), tuple(about.get("image_std", VideoModel.std))


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError("transformers", needed_for=name, install="pip install transformers") from error
    return transformers


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppress the progress bars and tables that transformers writes to the terminal."""
    log = transformers.utils.logging
    verbosity = log.get_verbosity()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        log.enable_progress_bar()
