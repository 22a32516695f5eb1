"""The models that `vbench models` lists: those of vbench and of other packages, with filters."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bench.catalog.catalog import Catalog
from bench.catalog.model_sources import ModelSource, model_sources
from bench.core.errors import InputError, MissingPackageError, UnknownNameError
from bench.core.model_name import PACKAGES, is_file_name, source_of
from bench.core.schema import Clip, Json, ModelCheck, ModelInfo, Point, Task
from bench.reference.huggingface_cache import PAPERS as HUGGINGFACE_PAPERS
from bench.reference.huggingface_cache import cached_folder, has_weights
from bench.reference.zoo_files import zoo_files

WILDCARDS = re.compile(r"[*?\[]")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_ARXIV = re.compile(r"arXiv:(\d\d)\d\d\.")


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """One model of the list. Unknown is None: a model of another package has no clip before it was counted once.

    `source` is the package, empty for a registered model and for the user's own code.
    """

    name: str
    family: str
    source: str
    task: Task
    paper: str = ""
    info: ModelInfo | None = None
    count: ModelCheck | None = None
    has_weights: bool | None = None

    @property
    def clip(self) -> Clip | None:
        return None if self.info is None else self.info.clip

    @property
    def year(self) -> int | None:
        """The year of the paper."""
        if found := _YEAR.search(self.paper):
            return int(found[0])
        found = _ARXIV.search(self.paper)
        return 2000 + int(found[1]) if found else None

    @property
    def params(self) -> int | None:
        return None if self.count is None else self.count.params

    @property
    def macs(self) -> int | None:
        """MACs of a forward pass of one clip of the default size."""
        return None if self.count is None else self.count.macs

    def as_dict(self) -> dict[str, Json]:
        """Plain data: facts and counts, unknown as null."""
        facts: dict[str, Json] = {"name": self.name, "family": self.family, "arguments": None, "summary": None}
        if self.info is not None:
            facts = self.info.model_dump(mode="json", exclude={"clip", "source", "former_source"})
        return {
            **facts,
            "paper": self.paper,
            "task": self.task,
            "source": self.source or None,
            "year": self.year,
            "has_weights": self.has_weights,
            "clip": None if self.clip is None else str(self.clip),
            "params": self.params,
            "macs": self.macs,
            "problem": None if self.count is None else self.count.problem or self.count.note,
        }


@dataclass(frozen=True, kw_only=True)
class ModelFilter:
    """Which models are wanted; None is any. `years` are the first and the last one."""

    family: str | None = None
    task: Task | None = None
    max_params: float | None = None
    max_macs: float | None = None
    years: tuple[int, int] | None = None
    has_weights: bool = False

    @property
    def needs_counts(self) -> bool:
        return self.max_params is not None or self.max_macs is not None

    def accepts(self, model: ListedModel) -> bool:
        """Return whether a model passes all filters. An unknown value passes none."""
        return (
            (self.family is None or fnmatch.fnmatchcase(model.family, self.family))
            and self.task in (None, model.task)
            and _is_at_most(model.params, self.max_params)
            and _is_at_most(model.macs, self.max_macs)
            and (self.years is None or (model.year is not None and self.years[0] <= model.year <= self.years[1]))
            and (not self.has_weights or model.has_weights is True)
        )


def matching_models(pattern: str, catalog: Catalog) -> list[ListedModel]:
    """Return the models whose names match a shell pattern, without a count; a source is part of a name: `timm:*vit*`.

    A pattern without a colon asks the registered models; if none matches, other packages. Raises UnknownNameError if
    there is no such model anywhere.
    """
    if is_file_name(pattern) or (":" in pattern and not WILDCARDS.search(pattern)):
        info = catalog.model(pattern)  # names its own error
        return [_of_info(info)]
    source, colon, _ = pattern.partition(":")
    if colon:
        return _of_sources(pattern, _sources_called(source, pattern))
    native = [_of_info(info) for name, info in sorted(catalog.models.items()) if fnmatch.fnmatchcase(name, pattern)]
    found = native or _of_sources(f"*:{pattern}", model_sources().values())
    if not found:
        elsewhere = (name.partition(":")[2] for source in model_sources().values() for name in source.families)
        raise UnknownNameError("model", pattern, {*catalog.models, *elsewhere})
    return found


def matches_elsewhere(pattern: str) -> dict[str, list[str]]:
    """Return the names of other packages' models that match a pattern without a colon, by source."""
    names = {
        source.name: [name for name in source.families if fnmatch.fnmatchcase(name, f"*:{pattern}")]
        for source in model_sources().values()
    }
    return {source: found for source, found in names.items() if found}


def with_known_facts(models: Iterable[ListedModel], catalog: Catalog) -> list[ListedModel]:
    """Return the models with the cached facts and counts; starts no child process."""
    known = []
    for model in models:
        info = model.info or catalog.known_model(model.name)
        count = None if info is None else catalog.known_count(Point(model=model.name, clip=info.clip))
        known.append(replace(model, info=info, count=count, paper=model.paper or (info.paper if info else "")))
    return known


def with_counts(models: Sequence[ListedModel], catalog: Catalog) -> list[ListedModel]:
    """Return the models with their counts at the default clips; a child process makes the missing counts."""
    catalog.look_up([model.name for model in models if model.info is None])
    found = []
    for model in models:
        try:
            info = model.info or catalog.model(model.name)
        except InputError as error:
            found.append(replace(model, count=ModelCheck(problem=str(error))))
        else:
            found.append(replace(model, info=info, paper=model.paper or info.paper))
    described = [(place, model.info) for place, model in enumerate(found) if model.info is not None]
    counts = catalog.check_models([Point(model=info.name, clip=info.clip) for _, info in described])
    for (place, _), count in zip(described, counts, strict=True):
        found[place] = replace(found[place], count=count)
    return found


def with_weights_known(models: Iterable[ListedModel], catalog: Catalog) -> list[ListedModel]:
    """Return the models with `has_weights`; timm is asked once by a child process, since a list of tags needs it."""
    return [replace(model, has_weights=_has_weights(model, catalog)) for model in models]


def _of_info(info: ModelInfo) -> ListedModel:
    source = source_of(info.name)
    families = model_sources()[source].families if source else {}
    return ListedModel(
        name=info.name,
        family=families.get(info.name.partition(".")[0], info.family),
        source=source,
        task=info.task,
        paper=info.paper,
        info=info,
    )


def _of_sources(pattern: str, sources: Iterable[ModelSource]) -> list[ListedModel]:
    return [
        ListedModel(
            name=name,
            family=family,
            source=source.name,
            task="classification",
            paper=HUGGINGFACE_PAPERS.get(family, "") if source.name == "hf" else "",
        )
        for source in sources
        for name, family in source.families.items()
        if fnmatch.fnmatchcase(name, pattern)
    ]


def _sources_called(source: str, pattern: str) -> Iterator[ModelSource]:
    """Yield the sources of a pattern with a colon; raises InputError for an unknown or missing one, or no match."""
    found = [each for name, each in model_sources().items() if fnmatch.fnmatchcase(name, source)]
    if not found:
        raise UnknownNameError("source of models", source, PACKAGES)
    for each in found:
        if each.version is None and each.name == source:
            raise MissingPackageError(each.package, needed_for=pattern, install=f"pip install {each.package}")
    if not any(fnmatch.fnmatchcase(name, pattern) for each in found for name in each.families):
        known = [name for each in found for name in each.families]
        raise UnknownNameError("model", pattern, known)
    yield from found


def _has_weights(model: ListedModel, catalog: Catalog) -> bool | None:
    if model.source == "hf":
        path = model.name.partition(":")[2]
        folder = cached_folder(path)
        return folder is not None and has_weights(folder)
    if model.source:
        return model.name.partition(".")[0] in catalog.with_weights(model.source)
    return model.name in _models_of_files()


@cache
def _models_of_files() -> frozenset[str]:
    return frozenset(file.model for file in zoo_files() if file.model)


def _is_at_most(value: int | None, most: float | None) -> bool:
    return most is None or (value is not None and value <= most)
