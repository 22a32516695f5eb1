"""What planning knows of models, asked of a child process once and cached, so that nothing here imports torch."""

import fnmatch
import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bench
from bench.core.errors import BenchError, InputError, UnknownNameError
from bench.core.files import cache_folder, write_cache
from bench.core.process import Child
from bench.core.registry import DATASETS, MEASURES, DatasetEntry, MeasureEntry, import_plugins
from bench.core.schema import ModelCheck, ModelInfo, Point, digest

PACKAGE = Path(bench.__file__).parent
SOURCES_OF_FACTS = (
    "models",
    "measure/counting",
    "reference",
    "core/schema.py",
    "core/registry.py",
    "catalog/catalog_child.py",
)
PACKAGED = ("torchvision:", "timm:")  # what these names mean changes with the version of a library only
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
OnProgress = Callable[[int, int], None]


class Catalog:
    """Knowledge of models, measures and data sets. `plugins` are the user's modules that register their own.

    They are imported here too, for what is known of measures and data sets is their code; torch with them, where they
    import it at the top. InputError for one that cannot be.
    """

    def __init__(self, plugins: Sequence[str] = (), *, on_progress: OnProgress | None = None) -> None:
        self.plugins = tuple(plugins)
        self._on_progress = on_progress
        self._described: dict[str, dict[str, Any]] = {}
        import_plugins(self.plugins)
        self.measures: dict[str, MeasureEntry] = {entry.name: entry for entry in MEASURES}
        self.datasets: dict[str, DatasetEntry] = {entry.name: entry for entry in DATASETS}

    def model(self, name: str) -> ModelInfo:
        """Facts of a model by variant, family or `source:name`; UnknownNameError with the nearest spelling."""
        if ":" not in name:
            if name not in self.models:
                raise UnknownNameError("model", name, self.models)
            return self.models[name]
        self.look_up([name])
        if "problem" in self._described[name]:
            raise InputError(self._described[name]["problem"])
        return ModelInfo.model_validate(self._described[name])

    def names(self, pattern: str) -> list[str]:
        """Names that match a shell pattern; of another package's where it begins with a source: `torchvision:*`."""
        if ":" not in pattern:
            return fnmatch.filter(sorted(self.models), pattern)
        [answer] = self._ask([{"names": pattern}])
        return list(answer["names"])

    def look_up(self, names: Sequence[str]) -> None:
        """Ask for all these `source:name` models in one go; the answers wait for `model`."""
        foreign = [name for name in dict.fromkeys(names) if ":" in name and name not in self._described]
        self._described.update({name: self._cache[name] for name in foreign if name in self._cache})
        missing = [name for name in foreign if name not in self._described]
        answers = dict(zip(missing, self._ask([{"describe": name} for name in missing]), strict=True))
        self._described.update(answers)
        kept = {name: facts for name, facts in answers.items() if name.startswith(PACKAGED) and "problem" not in facts}
        if kept:
            self._cache.update(kept)
            self._save()

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        """Every registered model by name."""
        if "catalog" not in self._cache:
            [self._cache["catalog"]] = self._ask([{"catalog": True}])
            self._save()
        return {raw["name"]: ModelInfo.model_validate(raw) for raw in self._cache["catalog"]["models"]}

    def probe(self, points: Sequence[Point]) -> list[ModelCheck]:
        """For each model, arguments and clip: parameters and MACs, or why it cannot be built or run."""
        wanted = [{"model": p.model, "args": p.args, "clip": p.clip.model_dump()} for p in points]
        keys = [digest(request) for request in wanted]
        missing = {k: w for k, w in zip(keys, wanted, strict=True) if k not in self._cache}
        for key, answer in zip(missing, self._ask([{"probe": w} for w in missing.values()]), strict=True):
            self._cache[key] = answer
        if missing:
            self._save()
        return [ModelCheck.model_validate(self._cache[key]) for key in keys]

    def _ask(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not requests:
            return []
        answers: list[dict[str, Any]] = []
        with Child("bench.catalog.catalog_child", {"plugins": self.plugins, "requests": requests}) as child:
            for answer in child.messages():
                answers.append(answer)
                if self._on_progress:
                    self._on_progress(len(answers), len(requests))
            if len(answers) < len(requests):
                raise BenchError(f"models could not be looked at: {child.complaint() or 'the process died'}")
        return answers

    @cached_property
    def _cache(self) -> dict[str, Any]:
        try:
            cache: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            cache = {}
        return {k: v for k, v in cache.items() if isinstance(v, dict)}

    @cached_property
    def _file(self) -> Path:
        return cache_folder() / "facts" / f"{digest([catalog_source(), _plugin_sources(self.plugins)])}.json"

    def _save(self) -> None:
        keep = {k: v for k, v in self._cache.items() if not v.get("is_local")}
        write_cache(self._file, keep)


def model_rows(pattern: str, facts: Catalog) -> list[tuple[ModelInfo, ModelCheck]]:
    """Facts of every model that matches a shell pattern, with its counts at its default clip."""
    names = facts.names(pattern) or [pattern]
    facts.look_up(names)
    found = [facts.model(name) for name in names]
    counts = facts.probe([Point(model=model.name, clip=model.clip) for model in found])
    return list(zip(found, counts, strict=True))


def model_as_dict(model: ModelInfo, probe: ModelCheck) -> dict[str, Any]:
    """One model for machines: facts and counts, unknown as null."""
    return {
        **model.model_dump(mode="json", exclude={"clip", "source"}),
        "clip": str(model.clip),
        "params": probe.params,
        "macs": probe.macs,
        "problem": probe.problem or probe.note,
    }


def catalog_source() -> str:
    """Hash of all that decides what a model is and counts: our sources, the libraries, Python."""
    files = [f for name in SOURCES_OF_FACTS for f in _sources(PACKAGE / name)]
    libraries = [(name, _version(name)) for name in LIBRARIES]
    return digest([[(f.name, _hash(f)) for f in files], libraries, platform.python_version()])


def model_source(module_file: str | None) -> str:
    """Hash of the file that defines a model and, for the zoo's own, of the files of the zoo that it imports."""
    if module_file is None or not Path(module_file).is_file():
        return ""
    seen: dict[str, str] = {}
    waiting = [Path(module_file)]
    while waiting:
        file = waiting.pop()
        if file.name in seen or not file.is_file():
            continue
        seen[file.name] = _hash(file)
        names = re.findall(r"^\s*from bench\.models\.(\w+) import", file.read_text(encoding="utf-8"), re.MULTILINE)
        waiting += [PACKAGE / "models" / f"{name}.py" for name in names]
    return digest(sorted(seen.items()))


def _plugin_sources(plugins: Sequence[str]) -> list[str]:
    files = [getattr(sys.modules[name], "__file__", None) for name in plugins]
    return [_hash(Path(file)) for file in files if file]


def _sources(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.suffix in (".py", ".csv")) if path.is_dir() else [path]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
