"""Video models in the local cache of Hugging Face, found without importing transformers or its hub client."""

import json
import os
import re
from pathlib import Path
from typing import Any

PAPERS = {"videomae": "arXiv:2203.12602", "timesformer": "arXiv:2102.05095", "vivit": "arXiv:2103.15691"}
"""Papers of the `model_type`s of video classifiers that can be built, by type."""

_FOLDER = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>.+)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def cache_of_hub() -> Path:
    """Return the folder in which `huggingface_hub` keeps downloads, by its environment variables."""
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return base.expanduser() / "hub"


def cached_folder(repository: str) -> Path | None:
    """Return the downloaded folder of `ORG/NAME` with its `config.json`, of the branch main if there are several.

    None if the cache has none.
    """
    if not _REPOSITORY.fullmatch(repository):
        return None
    folder = cache_of_hub() / f"models--{repository.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    snapshots = folder / "snapshots"
    candidates = [snapshots / main] if main else []
    candidates += sorted(snapshots.glob("*"))
    return next((each for each in candidates if (each / "config.json").is_file()), None)


def cached_video_models() -> dict[str, str]:
    """Return the `model_type` of every video classifier in the cache, by `ORG/NAME`, sorted."""
    found = {}
    for folder in sorted(cache_of_hub().glob("models--*--*")):
        parts = _FOLDER.fullmatch(folder.name)
        repository = f"{parts['owner']}/{parts['name']}" if parts else ""
        snapshot = cached_folder(repository)
        kind = model_type(snapshot / "config.json") if snapshot else None
        if kind in PAPERS:
            found[repository] = str(kind)
    return found


def model_type(config: Path) -> str | None:
    """Return the `model_type` of a `config.json`; None if it cannot be read."""
    try:
        settings: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    return kind if isinstance(kind, str) else None


def has_weights(folder: Path) -> bool:
    """Return whether a folder of Hugging Face holds weights."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
