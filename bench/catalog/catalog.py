"""The catalog of models, measures and data sets. Models are inspected by a child process, since that needs torch."""

import fnmatch
import hashlib
import json
import platform
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

import bench
from bench.catalog.user_code import code_hash, user_modules
from bench.core.errors import BenchError, InputError, UnknownNameError
from bench.core.files import cache_folder, existing_file, write_cache
from bench.core.input_protocol import InputProtocol
from bench.core.process import ChildProcess, ChildTimeoutError
from bench.core.registry import DATASETS, MEASURES, DatasetEntry, MeasureEntry, import_plugins
from bench.core.schema import Frozen, ModelCheck, ModelInfo, Point, digest

PACKAGE = Path(bench.__file__).parent
CATALOG_SOURCES = (
    "models",
    "measure/counting",
    "reference",
    "core/schema.py",
    "core/registry.py",
    "catalog/catalog_child.py",
    "catalog/user_code.py",
)
PACKAGED = ("torchvision:", "timm:")  # what these names mean changes with the version of a library only
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
ANSWER_S = 600.0  # time limit of one answer: building and counting one model, its imports included
OnProgress = Callable[[int, int], None]
T = TypeVar("T", bound=Frozen)


class Catalog:
    """What planning and listing know of models, measures and data sets; `plugins` are the user's modules.

    Plug-ins are imported in this process too, since their measures and data sets are code: torch with them, if they
    import it at the top. Raises InputError for one that cannot be imported.
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
        """Names that match a shell pattern; names of another package if it begins with a source: `torchvision:*`."""
        if ":" not in pattern:
            return fnmatch.filter(sorted(self.models), pattern)
        [answer] = self._ask([{"names": pattern}])
        return list(answer["names"])

    def look_up(self, names: Sequence[str]) -> None:
        """Ask about all these `source:name` models in one child process; `model` returns the answers later."""
        foreign = [name for name in dict.fromkeys(names) if ":" in name and name not in self._described]
        known = {name: self._cache[name] for name in foreign if self._cached(name, ModelInfo) is not None}
        self._described.update(known)
        missing = [name for name in foreign if name not in known]
        answers = dict(zip(missing, self._ask([{"describe": name} for name in missing]), strict=True))
        self._described.update(answers)
        kept = {name: facts for name, facts in answers.items() if name.startswith(PACKAGED) and "problem" not in facts}
        if kept:
            self._cache.update(kept)
            self._save()

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        """Every registered model by name."""
        known = _models_in(self._cache.get("catalog"))
        if known is None:
            [self._cache["catalog"]] = self._ask([{"catalog": True}])
            self._save()
            known = _models_in(self._cache["catalog"])
            assert known is not None, "the child answers with models"
        return {model.name: model for model in known}

    def weights_protocol(self, weights: str, entry: str | None) -> InputProtocol:
        """The input protocol of a file of weights: stored in it or that of its zoo; empty if neither is known.

        The answer is cached by the state of the file. A file that cannot be read is reported when its case runs.
        """
        file = existing_file(weights)
        if file is None:
            return InputProtocol()
        state = file.stat()
        key = digest([str(file.resolve()), state.st_mtime_ns, state.st_size, entry])
        found = self._cached(key, InputProtocol)
        if found is None:
            [self._cache[key]] = self._ask([{"weights": str(file), "entry": entry}])
            self._save()
            found = InputProtocol.model_validate(self._cache[key])
        return found

    def check_models(self, points: Sequence[Point]) -> list[ModelCheck]:
        """Parameters and MACs of each model, arguments and clip, or why it cannot be built or run."""
        wanted = [{"model": p.model, "args": p.args, "clip": p.clip.model_dump()} for p in points]
        keys = [digest(request) for request in wanted]
        found = {key: self._cached(key, ModelCheck) for key in keys}
        missing = {key: request for key, request in zip(keys, wanted, strict=True) if found[key] is None}
        answers = self._ask([{"check": request} for request in missing.values()])
        for key, answer in zip(missing, answers, strict=True):
            self._cache[key], found[key] = answer, ModelCheck.model_validate(answer)
        if missing:
            self._save()
        return [check for key in keys if (check := found[key]) is not None]

    def _ask(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers of a child process that imports torch. Raises BenchError if it dies or does not answer."""
        answers: list[dict[str, Any]] = []
        if not requests:
            return answers
        request = {"plugins": self.plugins, "requests": requests}
        with ChildProcess("bench.catalog.catalog_child", request) as child:
            while len(answers) < len(requests):
                try:
                    answer = next(child.messages(timeout_s=ANSWER_S), None)
                except ChildTimeoutError:
                    raise BenchError(
                        f"{_name_of(requests[len(answers)])} could not be inspected: no answer after {ANSWER_S:g} s"
                    ) from None
                if answer is None:
                    why = child.last_error() or f"its process ended with code {child.end()}"
                    raise BenchError(f"{_name_of(requests[len(answers)])} could not be inspected: {why}")
                answers.append(answer)
                if self._on_progress:
                    self._on_progress(len(answers), len(requests))
        return answers

    def _cached(self, key: str, kind: type[T]) -> T | None:
        """The cached answer `key`; None if there is none, or one of another shape, which is then asked for again."""
        try:
            return kind.model_validate(self._cache[key]) if key in self._cache else None
        except ValidationError:
            return None

    @cached_property
    def _cache(self) -> dict[str, Any]:
        try:
            cache = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            cache = {}
        return {k: v for k, v in cache.items() if isinstance(v, dict)} if isinstance(cache, dict) else {}

    @cached_property
    def _file(self) -> Path:
        return cache_folder() / "facts" / f"{digest([catalog_source(), user_modules() if self.plugins else {}])}.json"

    def _save(self) -> None:
        keep = {k: v for k, v in self._cache.items() if not v.get("is_local")}
        write_cache(self._file, keep)


def _models_in(answer: Any) -> list[ModelInfo] | None:
    try:
        return [ModelInfo.model_validate(raw) for raw in answer["models"]] or None
    except (TypeError, KeyError, ValidationError):
        return None


def _name_of(request: dict[str, Any]) -> str:
    """The model or file that a request is about, for an error message."""
    if "check" in request:
        return str(request["check"]["model"])
    return str(request.get("describe") or request.get("names") or request.get("weights") or "the registered models")


def model_rows(pattern: str, catalog: Catalog) -> list[tuple[ModelInfo, ModelCheck]]:
    """Every model that matches a shell pattern, with its counts at its default clip."""
    names = catalog.names(pattern) or [pattern]
    catalog.look_up(names)
    found = [catalog.model(name) for name in names]
    counts = catalog.check_models([Point(model=model.name, clip=model.clip) for model in found])
    return list(zip(found, counts, strict=True))


def model_as_dict(model: ModelInfo, check: ModelCheck) -> dict[str, Any]:
    """One model as JSON: facts and counts, unknown as null."""
    return {
        **model.model_dump(mode="json", exclude={"clip", "source", "former_source"}),
        "clip": str(model.clip),
        "params": check.params,
        "macs": check.macs,
        "problem": check.problem or check.note,
    }


def catalog_source() -> str:
    """Hash of everything that decides what a model is and counts: our sources, the libraries, Python."""
    files = [f for name in CATALOG_SOURCES for f in _sources(PACKAGE / name)]
    libraries = [(name, _version(name)) for name in LIBRARIES]
    return digest([[(f.name, _hash(f)) for f in files], libraries, platform.python_version()])


def model_source(module_file: str | None) -> str:
    """Return a hash of the code that defines a model: its file and the model files of vbench that it imports.

    Comments and docstrings do not count, so that rewording them repeats no measurement.
    """
    return _source_hash(module_file, code_hash)


def former_model_source(module_file: str | None) -> str:
    """Return the hash of the same files by the rule of records without a fingerprint, which also hashed comments."""
    return _source_hash(module_file, _hash)


def _source_hash(module_file: str | None, hash_of: Callable[[Path], str]) -> str:
    if module_file is None or not Path(module_file).is_file():
        return ""
    seen: dict[str, str] = {}
    waiting = [Path(module_file)]
    while waiting:
        file = waiting.pop()
        if file.name in seen or not file.is_file():
            continue
        seen[file.name] = hash_of(file)
        names = re.findall(r"^\s*from bench\.models\.(\w+) import", file.read_text(encoding="utf-8"), re.MULTILINE)
        waiting += [PACKAGE / "models" / f"{name}.py" for name in names]
    return digest(sorted(seen.items()))


def _sources(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.suffix in (".py", ".csv")) if path.is_dir() else [path]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
