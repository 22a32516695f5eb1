"""Video transformers of Hugging Face, from a folder or the cache of this machine: VideoMAE, TimeSformer, ViViT.

Tong et al., 2022, arXiv:2203.12602; Bertasius et al., 2021, arXiv:2102.05095; Arnab et al., 2021, arXiv:2103.15691.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError, MissingPackageError, WeightsError
from bench.core.registry import ModelEntry
from bench.models.base import InputSpec, VideoModel, belongs_to
from bench.models.weights.load_report import LoadReport
from bench.reference.huggingface_cache import PAPERS, cache_of_hub, cached_folder, has_weights

TEXT_PAPERS = {"xclip": "arXiv:2208.02816", "clip": "arXiv:2103.00020"}
CLIP_FRAMES = 8  # of a clip for CLIP, which takes any number
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


class HuggingFaceTextVideo(VideoModel):
    """A model of video and text: embeddings of clips, and logits of classes that are described by texts.

    CLIP sees the frames of a clip one by one; the clip's embedding is the mean over them. X-CLIP has one embedding per
    clip, and texts that depend on the clip.
    """

    head_name = ""

    def __init__(self, network: Any, *, folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        vision = network.config.vision_config
        self.network, self.folder = network, folder
        self.is_clip = network.config.model_type == "clip"
        self.smallest_clip = (1 if self.is_clip else vision.num_frames, vision.image_size)
        self.mean, self.std = mean, std
        self.texts: dict[str, Tensor] = {}
        self.prompts = 0

    def set_classes(self, names: Sequence[str], prompts: Sequence[str]) -> None:
        """Let `forward` return logits of classes, each described by every prompt with its name in place of `{}`.

        Raises InputError without the files of the tokenizer, or for a text that is longer than the model reads.
        """
        transformers = _transformers(str(self.folder))
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.folder} has no tokenizer that can be read: {reason}") from error
        texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
        longest = self.network.config.text_config.max_position_embeddings
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        lengths = tokens["attention_mask"].sum(1)
        if int(lengths.max()) > longest:
            text = texts[int(lengths.argmax())]
            raise InputError(f"{text!r} has {int(lengths.max())} tokens; the model reads at most {longest}")
        self.texts = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        self.prompts = len(prompts)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the embedding of each clip, `(B, D)`; the mean of the normalised ones of its frames for CLIP."""
        (clip_BCTHW,) = clips
        frames = clip_BCTHW.transpose(1, 2)
        if not self.is_clip:
            return _pooled(self.network.get_video_features(pixel_values=frames))
        embedded = _pooled(self.network.get_image_features(pixel_values=frames.flatten(0, 1)))
        batch, count = frames.shape[:2]
        return nn.functional.normalize(embedded, dim=1).view(batch, count, -1).mean(1)

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`, or the embeddings `(B, D)` if no classes are set.

        The texts of a class are joined as CLIP does, by the mean of their normalised embeddings; those of X-CLIP depend
        on the clip, so that their logits are averaged.
        """
        self.check(*clips)
        if not self.texts:
            return self.forward_features(*clips)
        texts = {name: value.to(clips[0].device) for name, value in self.texts.items()}
        if not self.is_clip:
            found: Tensor = self.network(pixel_values=clips[0].transpose(1, 2), **texts).logits_per_video
            return found.reshape(len(found), -1, self.prompts).mean(2)
        normalize = nn.functional.normalize
        embedded = normalize(_pooled(self.network.get_text_features(**texts)), dim=1)
        classes = normalize(embedded.view(-1, self.prompts, embedded.shape[1]).mean(1), dim=1)
        logits: Tensor = self.network.logit_scale.exp() * normalize(self.forward_features(*clips), dim=1) @ classes.T
        return logits

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError unless the clip has the size of the position embeddings."""
        super().check(*clips)
        frames, pixels = self.smallest_clip
        for clip in clips:
            if clip.shape[3:] != (pixels, pixels) or not (self.is_clip or clip.shape[2] == frames):
                found = "x".join(str(int(n)) for n in clip.shape[2:])
                wanted = f"{'any number of' if self.is_clip else frames} frames of {pixels}x{pixels}"
                raise ClipError(f"this {type(self.network).__name__} takes {wanted}, found {found}")


def _pooled(found: Any) -> Tensor:
    """The projected embedding; transformers 5 returns it with the outputs of the layers, earlier versions alone."""
    embedding: Tensor = getattr(found, "pooler_output", found)
    return embedding


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
    if kind in TEXT_PAPERS:
        return _text_entry(name, file, config, kind=kind)
    if kind not in PAPERS:
        raise InputError(f"{file} describes a {kind!r}; allowed: {', '.join([*PAPERS, *TEXT_PAPERS])}")

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


def _text_entry(name: str, file: Path, config: dict[str, Any], *, kind: str) -> ModelEntry:
    """The entry of a model of video and text. It has no number of classes: texts describe them."""

    def build(num_classes: int | None = None) -> nn.Module:
        transformers = _transformers(str(file))
        filled = transformers.AutoConfig.from_pretrained(file, local_files_only=True)
        mean, std = _normalisation(file.parent)
        report = None
        if not _has_weights(file.parent) or torch.get_default_device().type == "meta":
            network = transformers.AutoModel.from_config(filled)
        else:
            with _quiet(transformers):
                network, info = transformers.AutoModel.from_pretrained(
                    file.parent, config=filled, local_files_only=True, output_loading_info=True
                )
            report = _report(network, info, folder=file.parent, name=name)
        model = HuggingFaceTextVideo(network.train(), folder=file.parent, mean=mean, std=std)
        model.__dict__["weights_report"] = report
        return model

    vision = _transformers(name).AutoConfig.for_model(**config).vision_config
    clip = f"{CLIP_FRAMES if kind == 'clip' else vision.num_frames}x4x{vision.image_size}"
    return ModelEntry(name=name, family="hf", function=build, clip=clip, paper=TEXT_PAPERS[kind])


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


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
        model_classes=getattr(getattr(network, HEAD, None), "out_features", None),
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
