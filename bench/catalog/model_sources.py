"""Lists the models of other packages without importing these packages, which would import torch.

torchvision and timm register each model with a decorator above its function, so their names are read from their source
files. Models of Hugging Face are those in its local cache.
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.reference.huggingface_cache import cached_video_models

_REGISTERED = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Another package whose models can be used. `families` maps `source:model` to the family of the model.

    `version` is None if the package is not installed.
    """

    name: str
    package: str
    version: str | None
    about: str
    pattern: str
    families: Mapping[str, str]


@cache
def model_sources() -> Mapping[str, ModelSource]:
    """Return torchvision, timm and hf by name."""
    sources = (
        ModelSource(
            name="torchvision",
            package="torchvision",
            version=_version("torchvision"),
            about="video models",
            pattern="torchvision:*",
            families=_registered("torchvision", "models/video"),
        ),
        ModelSource(
            name="timm",
            package="timm",
            version=_version("timm"),
            about="image models, run on every frame; the logits are averaged",
            pattern="timm:*vit*",
            families=_registered("timm", "models"),
        ),
        ModelSource(
            name="hf",
            package="transformers",
            version=_version("transformers"),
            about="video models in the local cache; also hf:FOLDER with a config.json",
            pattern="hf:*",
            families={f"hf:{name}": kind for name, kind in cached_video_models().items()},
        ),
    )
    return {source.name: source for source in sources}


def _registered(package: str, folder: str) -> dict[str, str]:
    """Map every model that a package registers to its family, the stem of its file; empty if it is not installed."""
    found = importlib.util.find_spec(package)  # finds the folder of a top-level package without importing it
    families: dict[str, str] = {}
    for place in (found.submodule_search_locations or []) if found else []:
        for file in sorted((Path(place) / folder).glob("*.py")):
            names = _REGISTERED.findall(file.read_text(encoding="utf-8"))
            families.update({f"{package}:{name}": file.stem for name in names})
    return dict(sorted(families.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
