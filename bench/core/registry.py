"""The four open folders: models, measures, data sets and report sections register themselves here by name.

A file placed in a folder is found without an edit elsewhere; a plug-in module named by a suite registers the same way.
"""

import fnmatch
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from bench.core.errors import BenchError, InputError, NameClashError, UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])


class Named(Protocol):
    """What every registered entry has."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> Callable[..., Any]: ...


E = TypeVar("E", bound=Named)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A network that can be built by name.

    `function(num_classes=…, **arguments)` builds it; a variant fixes some arguments in `preset`.
    `clip` is the default clip as `frames x stride x size`; the first line of the function's docstring is its summary.
    """

    name: str
    family: str
    function: Callable[..., Any]
    clip: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument that may be given, with its default (`inspect.Parameter.empty` where it has none)."""
        defaults = options_of(self.function, keyword_only=False)
        return {name: self.preset.get(name, default) for name, default in defaults.items()}


@dataclass(frozen=True, kw_only=True)
class MeasureEntry:
    """Something that is done to a case. `depends_on` names the axes its metrics depend on.

    Its options are the keyword-only arguments of `function(case, *, …)`. `version` goes up when its figures change
    meaning, so that stored results are measured again. `is_timed` measures are taken under watch of what else the
    machine does; figures of an `is_sampled` one differ from run to run without being times. Both are repeated in fresh
    processes. Several processes take an `is_shared` one together, as many as its option `ranks` says.
    """

    name: str
    function: Callable[..., Any]
    depends_on: frozenset[str]
    version: int
    is_timed: bool
    is_shared: bool = False
    is_sampled: bool = False

    @property
    def is_repeated(self) -> bool:
        """Whether one run says too little of it to be compared."""
        return self.is_timed or self.is_sampled

    @property
    def options(self) -> dict[str, Any]:
        return options_of(self.function, keyword_only=True)

    @property
    def option_types(self) -> dict[str, Any]:
        """The annotation of each option, where it is not a forward reference."""
        parameters = inspect.signature(self.function).parameters
        return {name: t for name in self.options if not isinstance(t := parameters[name].annotation, str)}


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """A data set: `function(root, split, **options)` gives its samples. `described_at` says where it is described."""

    name: str
    function: Callable[..., Any]
    num_classes: int | None
    splits: tuple[str, ...]
    described_at: str

    @property
    def options(self) -> dict[str, Any]:
        return options_of(self.function, keyword_only=True)


@dataclass(frozen=True, kw_only=True)
class SectionEntry:
    """One section of a report: `function(results) -> html or None`, drawn in ascending `order`."""

    name: str
    function: Callable[..., Any]
    title: str
    order: int


def options_of(function: Callable[..., Any], *, keyword_only: bool) -> dict[str, Any]:
    """Arguments of `function` that can be given by name, with their defaults; `keyword_only` leaves out the others."""
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = by_name[:1] if keyword_only else by_name
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind in kinds}


class Registry(Generic[E]):
    """Entries by name, found on first use by importing every module of `folder` (not its sub-packages)."""

    def __init__(self, kind: str, folder: str) -> None:
        self.kind, self.folder = kind, folder
        self._entries: dict[str, E] = {}
        self._is_discovered = False

    def add(self, entry: E) -> None:
        """Register `entry`; NameClashError if the name already means something else."""
        known = self._entries.get(entry.name)
        if known is not None and _origin(known) != _origin(entry):
            raise NameClashError(
                f"{self.kind} {entry.name!r} is registered twice, in {_origin(known)} and {_origin(entry)}; rename one"
            )
        self._entries[entry.name] = entry

    def get(self, name: str) -> E:
        """The entry called `name`; UnknownNameError with the nearest spelling if there is none."""
        entries = self._all()
        if name not in entries:
            raise UnknownNameError(self.kind, name, entries)
        return entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(self._all(), pattern))

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[E]:
        return iter([self._all()[name] for name in self.names()])

    def _all(self) -> dict[str, E]:
        if not self._is_discovered:
            self._is_discovered = True
            try:
                self._discover()
            except BaseException:  # whoever asks again is told again, not that what comes later is unknown
                self._is_discovered = False
                raise
        return self._entries

    def _discover(self) -> None:
        package = importlib.import_module(self.folder)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            if not module.ispkg:
                importlib.import_module(f"{self.folder}.{module.name}")


def _origin(entry: Named) -> str:
    return f"{entry.function.__module__}.{entry.function.__qualname__}"


MODELS: Registry[ModelEntry] = Registry("model", "bench.models")
MEASURES: Registry[MeasureEntry] = Registry("measure", "bench.measure")
DATASETS: Registry[DatasetEntry] = Registry("data set", "bench.data.datasets")
SECTIONS: Registry[SectionEntry] = Registry("report section", "bench.reporting.sections")


def import_plugins(names: Iterable[str]) -> None:
    """Import the user's modules, which register their own; found beside the working folder or installed.

    InputError for one that is not there, or that raises anything.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except BenchError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"plug-in {name!r} cannot be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """What was raised and, where it was not the import machinery that raised it, the line that did."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {error}"
    return told if "importlib" in last.filename else f"{told} ({last.filename}:{last.lineno})"


def register_model(
    name: str | None = None,
    *,
    clip: str,
    paper: str = "",
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[F], F]:
    """Make a factory known as model `name` (its own name by default), with `variants` as fixed arguments.

    The factory takes everything by name, `num_classes` with a default among them, and returns an `nn.Module` whose
    `forward` gives logits `(B, classes)`. A preset of a variant may carry `clip`, where its default clip differs.
    """

    def register(function: F) -> F:
        family = name or function.__name__
        MODELS.add(ModelEntry(name=family, family=family, function=function, clip=clip, paper=paper))
        for variant, preset in (variants or {}).items():
            arguments = {k: v for k, v in preset.items() if k != "clip"}
            MODELS.add(
                ModelEntry(
                    name=variant,
                    family=family,
                    function=function,
                    clip=str(preset.get("clip", clip)),
                    preset=arguments,
                    paper=paper,
                )
            )
        return function

    return register


def register_measure(
    name: str,
    *,
    depends_on: Iterable[str],
    version: int,
    is_timed: bool = False,
    is_shared: bool = False,
    is_sampled: bool = False,
) -> Callable[[F], F]:
    """Make `function(case, *, options) -> list[Metric]` known as measure `name`. See `MeasureEntry`."""

    def register(function: F) -> F:
        MEASURES.add(
            MeasureEntry(
                name=name,
                function=function,
                depends_on=frozenset(depends_on),
                version=version,
                is_timed=is_timed,
                is_shared=is_shared,
                is_sampled=is_sampled,
            )
        )
        return function

    return register


def register_dataset(
    name: str, *, described_at: str, num_classes: int | None = None, splits: Iterable[str] = ("train", "val")
) -> Callable[[F], F]:
    """Make `function(root, *, split, …)` known as data set `name`."""

    def register(function: F) -> F:
        DATASETS.add(
            DatasetEntry(
                name=name,
                function=function,
                num_classes=num_classes,
                splits=tuple(splits),
                described_at=described_at,
            )
        )
        return function

    return register


def register_section(name: str, *, title: str, order: int) -> Callable[[F], F]:
    """Make `function(results) -> str | None` known as report section `name`."""

    def register(function: F) -> F:
        SECTIONS.add(SectionEntry(name=name, function=function, title=title, order=order))
        return function

    return register
