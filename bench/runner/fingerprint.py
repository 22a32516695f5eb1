"""The fingerprint of a case: hashes of everything that its stored results depend on besides its point.

A record keeps it as a mapping part → hash. Libraries, drivers and machines are environment: they are shown, and make no
result stale.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.catalog.catalog import Catalog
from bench.catalog.user_code import package_modules
from bench.core.errors import BenchError, InputError
from bench.core.files import existing_file
from bench.core.registry import DATASETS, MEASURES
from bench.core.schema import Case, Pretraining, Record, digest, is_weights_argument, model_files
from bench.data.collection import VideoSet, open_dataset, root_of
from bench.data.shards import source_of
from bench.data.split_names import evaluated_split, trained_split
from bench.measure.context import find_recipe

FORMER_SOURCES = Path(__file__).with_name("former_sources.json")
DATA_PARTS = ("annotations", "data", "weights")


@dataclass(frozen=True, kw_only=True)
class SplitUse:
    """One split of a data set that a case reads; `options` is the JSON of the options of the data set."""

    dataset: str
    split: str
    root: str | None
    options: str


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """`parts` by name, and what is behind them: the user's `modules`, the number of videos per split, what is absent.

    A part whose files are absent is not in `parts`; stored results then stay valid if the other parts match.
    """

    parts: Mapping[str, str]
    modules: Mapping[str, str] = field(default_factory=dict)
    videos: Mapping[SplitUse, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return digest(dict(self.parts))


class Fingerprints:
    """Fingerprints of the cases of one plan; each data set is opened once."""

    def __init__(self, catalog: Catalog, recipes: Sequence[Path]) -> None:
        self._catalog, self._recipes = catalog, tuple(recipes)
        self._opened: dict[SplitUse, VideoSet | str | None] = {}
        self._modules: dict[str, Mapping[str, str]] = {}

    def of(self, case: Case) -> Fingerprint:
        """Return the fingerprint of `case`, from the files as they are now."""
        point = case.point
        modules = self._modules_of(case)
        recipes = [find_recipe(name, self._recipes) for name in _recipe_names(case)]
        files, absent = _weights_files(case)
        parts = {
            "model source": self._catalog.model(point.model).source,
            "modules": digest(dict(modules)) if modules else None,
            "recipe": digest([_file_hash(file) for file in recipes if file]) if any(recipes) else None,
            "weights": digest([_file_hash(file) for file in files]) if files and not absent else None,
            "measures": digest(_measures(case)),
        }
        uses = list(splits_of(case))
        found = [self._open(use) for use in uses]
        absent += tuple(dict.fromkeys(problem for problem in found if isinstance(problem, str)))
        videos = {use: opened for use, opened in zip(uses, found, strict=True) if isinstance(opened, VideoSet)}
        if uses and not any(isinstance(problem, str) for problem in found):
            options = [[use.dataset, use.split, use.options, _dataset_code(use.dataset)] for use in uses]
            parts["annotations"] = digest(
                [options, [_annotations(each) for each in videos.values()], _label_files(case)]
            )
            parts["data"] = digest([_contents(each) for each in videos.values()]) if videos else None
        return Fingerprint(
            parts={name: value for name, value in parts.items() if value},
            modules=modules,
            videos={use: len(opened) for use, opened in videos.items()},
            absent=absent,
        )

    def _modules_of(self, case: Case) -> Mapping[str, str]:
        """Return the hashes of the user's modules that building the model imports, as the catalog's child reports."""
        point = case.point
        key = digest([point.model, point.args, point.clip.model_dump()])
        if key not in self._modules:
            self._modules[key] = self._catalog.check_models([point])[0].modules
        return self._modules[key]

    def _open(self, use: SplitUse) -> VideoSet | str | None:
        """Return the videos of a split, the reason why they are absent, or None for videos that vbench generates."""
        if use not in self._opened:
            self._opened[use] = _opened(use)
        return self._opened[use]

    def former(self, case: Case) -> frozenset[str]:
        """Return the values of `freshness` that records without a fingerprint may have to be up to date."""
        sources = {self._catalog.model(case.point.model).former_source, _former_sources().get(case.point.model)}
        arguments = [value for value in case.point.args.values() if isinstance(value, str)]
        found = [find_recipe(name, self._recipes) for name in _recipe_names(case)]
        named = [existing_file(name) for name in (case.point.weights, *arguments) if name]
        hashes = [_file_hash(file) for file in (*model_files(case.point.model), *named, *found) if file]
        return frozenset(digest([source, _former_measures(case), hashes]) for source in sources if source is not None)


def changed_parts(stored: Mapping[str, str], current: Fingerprint) -> list[str]:
    """Return the parts that differ; empty if results with the fingerprint `stored` are up to date.

    Parts of data and weights count only if both sides know them: absent files do not make a result stale.
    """
    names = dict.fromkeys((*current.parts, *stored))
    differing = [name for name in names if stored.get(name) != current.parts.get(name)]
    return [name for name in differing if name not in DATA_PARTS or (name in stored and name in current.parts)]


def describe_changes(record: Record, current: Fingerprint) -> str:
    """Return in words what has changed since `record`, such as `modules (own.blocks), annotations`."""
    if not record.fingerprint:
        return "something has changed since; the record is of a version that did not store what it depends on"
    return ", ".join(f"{name}{_detail(name, record, current)}" for name in changed_parts(record.fingerprint, current))


def _detail(name: str, record: Record, current: Fingerprint) -> str:
    if name == "modules":
        stored = record.details.get("modules")
        old: Mapping[str, Any] = stored if isinstance(stored, dict) else {}
        differing = sorted(m for m in {*old, *current.modules} if old.get(m) != current.modules.get(m))
        return f" ({', '.join(differing)})" if differing else ""
    if name == "measures":
        versions = record.details.get("measure_versions")
        known: Mapping[str, Any] = versions if isinstance(versions, dict) else {}
        moved = [
            f"{measure}: version {known[measure]} → {MEASURES.get(measure).version}"
            for measure in record.case.measures
            if measure in MEASURES and known.get(measure) not in (None, MEASURES.get(measure).version)
        ]
        return f" ({', '.join(moved)})" if moved else ""
    return ""


def splits_of(case: Case) -> Iterator[SplitUse]:
    """Yield the splits of data sets that the measures of a case read."""
    point = case.point
    for name, options in case.measures.items():
        if point.dataset is None or "root" not in MEASURES.get(name).options:
            continue
        known = DATASETS.get(point.dataset).splits
        trains = name == "frozen" or (name == "accuracy" and point.recipe is not None)
        roles = [evaluated_split] + [trained_split] * trains
        for choose in roles:
            split = choose(point.split, known=known, dataset=point.dataset)
            given = options.get("options")
            root = options.get("root")
            yield SplitUse(
                dataset=point.dataset,
                split=split,
                root=None if root is None else str(root),
                options=json.dumps(given or {}, sort_keys=True),
            )
    pretraining = Pretraining.of(point.weights)
    if pretraining is not None:
        known = DATASETS.get(pretraining.dataset).splits
        for choose in (evaluated_split, trained_split):
            split = choose(None, known=known, dataset=pretraining.dataset)
            yield SplitUse(dataset=pretraining.dataset, split=split, root=None, options="{}")


def _opened(use: SplitUse) -> VideoSet | str | None:
    entry = DATASETS.get(use.dataset)
    if entry.is_generated:
        return None  # opening it would write its videos; its options determine them
    try:
        return open_dataset(use.dataset, root=use.root, split=use.split, **json.loads(use.options))
    except (BenchError, OSError) as error:
        folder = root_of(entry, use.root) if use.root != "" else None
        where = f" under {folder}" if folder is not None else ""
        return f"data set {use.dataset}, split {use.split}{where}: {str(error).splitlines()[0].split('. Expected')[0]}"


def _annotations(videos: VideoSet) -> str:
    """Return a hash of classes, labels and parts of all videos, in any order."""
    present = [[v.id, sorted(v.labels), v.start_s, v.end_s, v.segment, v.fps] for v in videos.videos]
    missing = [[id_, sorted(labels)] for id_, labels in videos.missing.items()]
    return digest([list(videos.classes), sorted(present, key=str), sorted(missing)])


def _contents(videos: VideoSet) -> str:
    """Return a hash of names and sizes of all files; reading their content would take hours."""
    return digest([sorted([video.id, _size(video.path)] for video in videos.videos), videos.flow_hash, videos.backend])


def _size(path: Path) -> int:
    """Return the bytes of a file, or the number of files of a frame folder."""
    try:
        return sum(1 for _ in path.iterdir()) if path.is_dir() else source_of(path).size
    except (OSError, BenchError):
        return -1  # evaluating it fails, and the record names the video


def _dataset_code(name: str) -> Mapping[str, str]:
    return package_modules(DATASETS.get(name).function)


def _measures(case: Case) -> list[Any]:
    """Return name, version and options of each measure; of a measure of the user also the hash of its code."""
    measures = sorted(case.measures.items())
    return [(name, MEASURES.get(name).version, options, *_measure_code(name)) for name, options in measures]


def _former_measures(case: Case) -> list[Any]:
    return [(name, MEASURES.get(name).version, options) for name, options in sorted(case.measures.items())]


def _measure_code(name: str) -> tuple[Mapping[str, str], ...]:
    code = package_modules(MEASURES.get(name).function)
    return (code,) if code else ()


def _label_files(case: Case) -> list[str]:
    """Return the hashes of files of class names and prompts that options of measures name."""
    keys = ("labels", "classes", "prompts")
    named = [options.get(key) for options in case.measures.values() for key in keys]
    files = [existing_file(name) for name in named if isinstance(name, str)]
    return [_file_hash(file) for file in files if file]


def _recipe_names(case: Case) -> list[str]:
    pretraining = Pretraining.of(case.point.weights)
    names = [case.point.recipe, pretraining.recipe if pretraining else None]
    return [name for name in names if name]


def _weights_files(case: Case) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files that hold weights or are named by arguments, and a line for each named file that is absent."""
    point = case.point
    named = [] if point.weights is None or Pretraining.of(point.weights) else [point.weights]
    named += [v for name, v in point.args.items() if is_weights_argument(name) and isinstance(v, str)]
    others = [v for name, v in point.args.items() if isinstance(v, str) and not is_weights_argument(name)]
    files = [*model_files(point.model), *(existing_file(name) for name in (*named, *others))]
    absent = tuple(f"weights: there is no file {name}" for name in named if _is_path(name) and not existing_file(name))
    return [file for file in files if file], absent


def _is_path(name: str) -> bool:
    """Whether weights are named by a file, and not by a tag of a model's source."""
    return "/" in name or Path(name).suffix != ""


@lru_cache(maxsize=1)
def _former_sources() -> Mapping[str, str]:
    """Return the source hash of every model before 0.1.0, whose records have no fingerprint."""
    found: dict[str, str] = json.loads(FORMER_SOURCES.read_text(encoding="utf-8"))
    return found


def _file_hash(file: Path) -> str:
    """Return the SHA-256 of a file, read again only if its state changed: weights are large and shared by cases.

    Raises InputError if the file cannot be read.
    """
    try:
        state = file.stat()
        return _hash_of(file.resolve(), state.st_mtime_ns, state.st_ctime_ns, state.st_size)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=1024)
def _hash_of(file: Path, *state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
