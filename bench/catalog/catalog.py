"""The catalog of models, measures and data sets. Models are inspected by a child process, since that needs torch."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.catalog.shipped_models import shipped_answers
from bench.catalog.source_hashes import bytes_hash, sources_under
from bench.catalog.user_code import user_modules
from bench.core.errors import BenchError, InputError, UnknownNameError
from bench.core.files import cache_folder, existing_file, write_cache
from bench.core.input_protocol import InputProtocol
from bench.core.model_name import is_registered_name
from bench.core.process import ChildProcess, ChildTimeoutError
from bench.core.registry import DATASETS, MEASURES, DatasetEntry, MeasureEntry, import_plugins
from bench.core.schema import Frozen, ModelCheck, ModelInfo, Point, digest

CATALOG_SOURCES = (
    "models",
    "measure/counting",
    "reference",
    "core/schema.py",
    "core/registry.py",
    "catalog/catalog_child.py",
    "catalog/user_code.py",
    "catalog/source_hashes.py",
)
PACKAGED = ("torchvision:", "timm:")  # what these names mean changes with the version of a library only
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
ANSWER_S = 600.0  # time limit of one answer: building and counting one model, its imports included
OnProgress = Callable[[int, int], None]
T = TypeVar("T", bound=Frozen)


class Catalog:
    """What planning and listing know of models, measures and data sets; `plugins` are the user's modules.

    Plug-ins are imported in this process too, since their measures and data sets are code: torch with them, if they
    import it at the top. Raises InputError for one that cannot be imported. Unless models are `counted`, they are only
    built and run once on the meta device, which takes a third of the time.
    """

    def __init__(
        self, plugins: Sequence[str] = (), *, counted: bool = True, on_progress: OnProgress | None = None
    ) -> None:
        self.plugins = tuple(plugins)
        self._is_counted = counted
        self._on_progress = on_progress
        self._described: dict[str, dict[str, Any]] = {}
        self._child: ChildProcess | None = None
        self._is_child_kept = False
        import_plugins(self.plugins)
        self.measures: dict[str, MeasureEntry] = {entry.name: entry for entry in MEASURES}
        self.datasets: dict[str, DatasetEntry] = {entry.name: entry for entry in DATASETS}

    def model(self, name: str) -> ModelInfo:
        """Facts of a model by variant, family or `source:name`; UnknownNameError with the nearest spelling."""
        if is_registered_name(name):
            if name not in self.models:
                raise UnknownNameError("model", name, self.models)
            return self.models[name]
        self.look_up([name])
        if "problem" in self._described[name]:
            raise InputError(self._described[name]["problem"])
        return ModelInfo.model_validate(self._described[name])

    def look_up(self, names: Sequence[str]) -> None:
        """Ask about all these `source:name` models in one child process; `model` returns the answers later."""
        foreign = [name for name in dict.fromkeys(names) if not is_registered_name(name)]
        missing = [name for name in foreign if self.known_model(name) is None and name not in self._described]
        answers = dict(zip(missing, self._ask([{"describe": name} for name in missing]), strict=True))
        self._described.update(answers)
        kept = {name: facts for name, facts in answers.items() if name.startswith(PACKAGED) and "problem" not in facts}
        if kept:
            self._cache.update(kept)
            self._save()

    def known_model(self, name: str) -> ModelInfo | None:
        """Return the facts of a model of another package if they are cached; starts no child process."""
        if name not in self._described and self._cached(name, ModelInfo) is not None:
            self._described[name] = self._cache[name]
        known = self._described.get(name, {"problem": ""})
        return None if "problem" in known else ModelInfo.model_validate(known)

    def known_count(self, point: Point) -> ModelCheck | None:
        """Return the count of a point if it was counted before, so without a child process."""
        return self._cached(count_key(point), ModelCheck)

    def with_weights(self, source: str) -> frozenset[str]:
        """Return the models of torchvision or timm that have published weights; a child process is asked once."""
        key = f"weights of {source}"
        names = self._cache.get(key, {}).get("names")
        if not isinstance(names, list):
            [self._cache[key]] = self._ask([{"pretrained": source}])
            self._save()
            names = self._cache[key]["names"]
        return frozenset(map(str, names))

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
        found: dict[str, ModelCheck | None] = {}
        missing: dict[str, dict[str, Any]] = {}
        keys = []
        for point in points:
            keys.append(key := count_key(point))
            if key not in found:
                found[key] = self._cached(key, ModelCheck)
                if found[key] is None and not self._is_counted:
                    found[key] = self._cached(_uncounted(key), ModelCheck)
                if found[key] is None:
                    missing[key] = {"check": _count_request(point), "counted": self._is_counted}
        for key, answer in zip(missing, self._ask(list(missing.values())), strict=True):
            self._cache[key if self._is_counted else _uncounted(key)] = answer
            found[key] = ModelCheck.model_validate(answer)
        if missing:
            self._save()
        return [check for key in keys if (check := found[key]) is not None]

    @contextmanager
    def one_child(self) -> Iterator[None]:
        """Ask every question of the block in one child process, so that torch and the user's modules load once."""
        if self._is_child_kept:
            yield
            return
        self._is_child_kept = True
        try:
            yield
        finally:
            self._is_child_kept = False
            self._end_child()

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ask(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers of a child process that imports torch. Raises BenchError if it dies or does not answer."""
        answers: list[dict[str, Any]] = []
        if not requests:
            return answers
        with self.one_child():
            if self._child is None:
                self._child = ChildProcess("bench.catalog.catalog_child", self.plugins, takes_more=True)
            child = self._child
            try:
                child.send(json.dumps(requests).encode() + b"\n", timeout_s=ANSWER_S)
                while len(answers) < len(requests):
                    answer = next(child.messages(timeout_s=ANSWER_S), None)
                    if answer is None:
                        why = child.last_error() or f"its process ended with code {child.end()}"
                        raise BenchError(f"{_name_of(requests[len(answers)])} could not be inspected: {why}")
                    answers.append(answer)
                    if self._on_progress:
                        self._on_progress(len(answers), len(requests))
            except ChildTimeoutError:
                self._end_child()
                name = _name_of(requests[len(answers)])
                raise BenchError(f"{name} could not be inspected: no answer after {ANSWER_S:g} s") from None
            except BenchError:
                self._end_child()
                raise
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
        kept = {k: v for k, v in cache.items() if isinstance(v, dict)} if isinstance(cache, dict) else {}
        if "catalog" in kept:
            return kept
        shipped = shipped_answers()
        if self.plugins:  # they may register more models
            shipped.pop("catalog", None)
        return {**shipped, **kept}

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
    return str(
        request.get("describe") or request.get("pretrained") or request.get("weights") or "the registered models"
    )


def count_key(point: Point) -> str:
    """Return the key of a count in the cache."""
    return digest(_count_request(point))


def _uncounted(key: str) -> str:
    """The key of the answer about the same model that was built and run, but not counted."""
    return f"{key}-uncounted"


def _count_request(point: Point) -> dict[str, Any]:
    return {"model": point.model, "args": point.args, "clip": point.clip.model_dump()}


def catalog_source() -> str:
    """Hash of everything that decides what a model is and counts: our sources, the libraries, Python."""
    libraries = [(name, _version(name)) for name in LIBRARIES]
    sources = [(file.name, bytes_hash(file)) for file in sources_under(CATALOG_SOURCES)]
    return digest([sources, libraries, platform.python_version()])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
