"""Registries of the open folders: models, measures, data sets, changes of the input and report sections, by name.

A file in one of the folders is found without an edit elsewhere; plug-in modules of a suite register the same way.
"""

import fnmatch
import importlib
import inspect
import math
import pkgutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar, get_type_hints, overload

from bench.core.errors import BenchError, InputError, NameClashError, UnknownNameError, suggest
from bench.core.input_protocol import InputProtocol
from bench.core.metric_spec import MetricSpec
from bench.core.schema import Better, Task

F = TypeVar("F", bound=Callable[..., Any])
ChangeStage = Literal["order", "pixels", "reading", "file"]
ChangeValue = float | str | None


class Named(Protocol):
    """What every registered entry has."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> Callable[..., Any]: ...


E = TypeVar("E", bound=Named)
DEFAULT_CLIP = "16x1x112"  # of models that declare none
IMPORT_S = 300.0  # time limit for importing one plug-in
LAST = 100  # the place of headlines whose measure does not choose one


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that can be built by name.

    `function(num_classes=…, **arguments)` builds it; a variant fixes some arguments in `preset`.
    `clip` is the default clip as `frames x stride x size`; the first line of the function's docstring is its summary.
    `input_protocol` holds the parts of an input protocol that are assumed for weights about which nothing is known.
    """

    name: str
    family: str
    function: Callable[..., Any]
    clip: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    task: Task = "classification"
    input_protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument that may be given, with its default (`inspect.Parameter.empty` if it has none)."""
        defaults = options_of(self.function, keyword_only=False)
        return {name: self.preset.get(name, default) for name, default in defaults.items()}


@dataclass(frozen=True, kw_only=True)
class MeasureEntry:
    """A measure, which is taken of a case. `depends_on` names the axes that its metrics depend on.

    Its options are the keyword-only arguments of `function(case, *, …)`. `version` increases when its metrics change
    meaning, so that stored results are measured again. Drift of the machine is checked around `is_timed` measures; the
    metrics of an `is_sampled` measure vary from run to run without being times. Both are repeated in fresh processes.
    An `is_shared` measure is taken by several processes together; its option `ranks` is their number.

    `metrics` declares what the function may return. `example` are options as a suite gives them. `duration_s` is a
    rough time of one run, which plans use until the measure has run once. Leaderboards show the headlines of measures
    in ascending `order`.
    """

    name: str
    function: Callable[..., Any]
    depends_on: frozenset[str]
    version: int
    is_timed: bool
    is_shared: bool = False
    is_sampled: bool = False
    metrics: tuple[MetricSpec, ...] = ()
    example: str = "{}"
    duration_s: float = 1.0
    order: int = LAST

    @property
    def is_repeated(self) -> bool:
        """Whether a comparison needs several runs."""
        return self.is_timed or self.is_sampled

    @property
    def is_count(self) -> bool:
        """Whether its metrics are exact and follow from the model alone, so that one run settles them."""
        return not self.is_repeated and not {"dataset", "seed"} & self.depends_on

    @property
    def options(self) -> dict[str, Any]:
        return options_of(self.function, keyword_only=True)

    @property
    def option_types(self) -> dict[str, Any]:
        """The annotation of each option, except forward references."""
        parameters = inspect.signature(self.function).parameters
        return {name: t for name in self.options if not isinstance(t := parameters[name].annotation, str)}


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """A data set: `function(root, split, **options)` returns its videos. `described_at` is a page that describes it."""

    name: str
    function: Callable[..., Any]
    num_classes: int | None
    splits: tuple[str, ...]
    described_at: str
    is_generated: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return options_of(self.function, keyword_only=True)


@dataclass(frozen=True, kw_only=True)
class ChangeEntry:
    """A change of the input in an evaluation; the first line of the function's docstring describes it.

    `stage` decides what the function changes: `order` the frame numbers of a clip, `pixels` its decoded frames,
    `reading` how a video is decoded and scaled, `file` the video file. The first two share the decoding of the
    unchanged clips. `default` is the value of a change that is given without one, None if it takes none; a number lies
    within `between`, a word is one of `choices`. `severities` are the values of a robustness curve, from mild to hard.
    """

    name: str
    function: Callable[..., Any]
    stage: ChangeStage
    default: ChangeValue = None
    between: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    severities: tuple[float, ...] = ()

    @property
    def shares_decoding(self) -> bool:
        return self.stage in ("order", "pixels")

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class SectionEntry:
    """One section of a report: `function(results) -> html or None`, shown on `page` in ascending `order`."""

    name: str
    function: Callable[..., Any]
    title: str
    order: int
    page: str = "index"


def options_of(function: Callable[..., Any], *, keyword_only: bool) -> dict[str, Any]:
    """Arguments of `function` that can be given by name, with their defaults; or only its keyword-only arguments."""
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = by_name[:1] if keyword_only else by_name
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind in kinds}


def accepts_options_of(*targets: Callable[..., Any]) -> Callable[[F], F]:
    """Decorate a function that passes its `**options` on to `targets`: its signature then lists them one by one.

    The optional keyword-only arguments of the targets appear with their types and defaults, so that the factories of a
    family need not repeat them and unknown names are still refused.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        parameters = {p.name: p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD}
        for target in targets:
            hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
            for p in inspect.signature(target).parameters.values():
                if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.name not in parameters:
                    parameters[p.name] = p
                    function.__annotations__[p.name] = hints[p.name]
        function.__dict__["__signature__"] = own.replace(parameters=list(parameters.values()))
        return function

    return decorate


class Registry(Generic[E]):
    """Entries by name. The first use imports every module of the package `folder`, but not its sub-packages."""

    def __init__(self, kind: str, folder: str) -> None:
        self.kind, self.folder = kind, folder
        self._entries: dict[str, E] = {}
        self._is_discovered = False

    def add(self, entry: E) -> None:
        """Register `entry`; raises NameClashError if another function has this name."""
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
            except BaseException:  # the next call raises the same error, instead of calling later names unknown
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
CHANGES: Registry[ChangeEntry] = Registry("change of the input", "bench.data.changes")
SECTIONS: Registry[SectionEntry] = Registry("report section", "bench.reporting.sections")


def find_metric_spec(name: str) -> MetricSpec | None:
    """The declaration of metric `name`, its labels aside; None if no registered measure declares it."""
    metric = name.partition("{")[0]
    measure = metric.partition(".")[0]
    declared = MEASURES.get(measure).metrics if measure in MEASURES else ()
    return next((spec for spec in declared if spec.name == metric), None)


def metric_problem(name: str, measures: Mapping[str, MeasureEntry]) -> str:
    """Return the error in a metric name or a pattern of names; empty if one of `measures` declares such a metric.

    A measure that declares no metrics may have any.
    """
    metric = name.partition("{")[0]
    known = {spec.name for entry in measures.values() for spec in entry.metrics}
    own = measures.get(metric.partition(".")[0])
    if metric in known or any(fnmatch.fnmatchcase(each, metric) for each in known) or (own and not own.metrics):
        return ""
    return f"unknown metric {metric!r}; {suggest(metric, known)}"


def headlines_among(metrics: Iterable[tuple[str, Better | None]]) -> set[str]:
    """The headlines among `metrics`, given as names and better-directions.

    These are the declared ones, without stand-ins for a metric that is there. A measure that declares no headline has
    its first metric with a direction instead.
    """
    directions = dict(metrics)
    found: set[str] = set()
    others: dict[str, str] = {}
    for name, better in directions.items():
        spec, measure = find_metric_spec(name), name.partition(".")[0]
        declared = MEASURES.get(measure).metrics if measure in MEASURES else ()
        if spec is not None and spec.headline and spec.stands_in_for not in directions:
            found.add(name)
        elif better and not any(each.headline for each in declared):
            others.setdefault(measure, name)
    return found | set(others.values())


def import_plugins(names: Iterable[str]) -> None:
    """Import the user's modules, installed or in the working folder, so that they register what they define.

    Raises InputError if one cannot be found, raises an exception, or takes longer than five minutes.
    """
    for name in names:
        try:
            with _time_limit(IMPORT_S):
                importlib.import_module(name)
        except BenchError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"plug-in {name!r} cannot be imported: {_description(error)}") from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _description(error: BaseException) -> str:
    """The exception, and the line that raised it unless that is in the import machinery."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}"
    return text if "importlib" in last.filename else f"{text} ({last.filename}:{last.lineno})"


@overload
def register_model(name: F, /) -> F: ...


@overload
def register_model(
    name: str | None = None,
    *,
    clip: str = DEFAULT_CLIP,
    paper: str = "",
    task: Task = "classification",
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    input_protocol: Mapping[str, Any] | None = None,
) -> Callable[[F], F]: ...


def register_model(
    name: str | Callable[..., Any] | None = None,
    *,
    clip: str = DEFAULT_CLIP,
    paper: str = "",
    task: Task = "classification",
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    input_protocol: Mapping[str, Any] | None = None,
) -> Any:
    """Register a factory as model `name` (default: its own name), with `variants` as fixed arguments.

    The factory takes everything by name, `num_classes` with a default among them, and returns an `nn.Module` whose
    `forward` returns logits `(B, classes)`. A preset of a variant may have a default `clip` of its own. `task` is
    `features` for an encoder, whose output are tokens, and `head` for a classifier of such tokens.
    `input_protocol` are parts of the input protocol by name, such as `{"channels": "bgr", "scale": 255}`: they are the
    model's default, below what the user gives or a checkpoint stores. Raises InputError if a part is unknown or wrong.

    As in timm, it works bare too: `@register_model` above the factory.
    """
    if callable(name):
        return register_model()(name)
    protocol = dict(input_protocol or {})
    InputProtocol.of(protocol, mark="assumed", where=f"input_protocol of model {name or 'registered here'}")

    def register(function: F) -> F:
        family = name or function.__name__
        entry = ModelEntry(
            name=family,
            family=family,
            function=function,
            clip=clip,
            paper=paper,
            task=task,
            input_protocol=protocol,
        )
        MODELS.add(entry)
        for variant, preset in (variants or {}).items():
            arguments = {k: v for k, v in preset.items() if k != "clip"}
            MODELS.add(replace(entry, name=variant, clip=str(preset.get("clip", clip)), preset=arguments))
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
    metrics: Iterable[MetricSpec] = (),
    example: str = "{}",
    duration_s: float = 1.0,
    order: int = LAST,
) -> Callable[[F], F]:
    """Register `function(case, *, options) -> list[Metric]` as measure `name`. See `MeasureEntry`.

    Raises InputError if `duration_s` is not a time, or `metrics` has a name twice or one of another measure.
    """
    declared = tuple(metrics)
    _check_declared(name, declared, duration_s=duration_s)

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
                metrics=declared,
                example=example,
                duration_s=duration_s,
                order=order,
            )
        )
        return function

    return register


def _check_declared(measure: str, metrics: Iterable[MetricSpec], *, duration_s: float) -> None:
    names = [spec.name for spec in metrics]
    for place, metric in enumerate(names):
        if metric.partition(".")[0] != measure:
            raise InputError(
                f"measure {measure!r} declares metric {metric!r}; the names of its metrics begin with '{measure}.'"
            )
        if metric in names[:place]:
            raise InputError(f"measure {measure!r} declares metric {metric!r} twice")
    if not 0 <= duration_s < math.inf:
        raise InputError(f"measure {measure!r} declares duration_s={duration_s}; it is a number of seconds, 0 or more")


def register_dataset(
    name: str,
    *,
    described_at: str,
    num_classes: int | None = None,
    splits: Iterable[str] = ("train", "val"),
    is_generated: bool = False,
) -> Callable[[F], F]:
    """Register `function(root, *, split, …)` as data set `name`; one that `is_generated` writes its own videos."""

    def register(function: F) -> F:
        DATASETS.add(
            DatasetEntry(
                name=name,
                function=function,
                num_classes=num_classes,
                splits=tuple(splits),
                described_at=described_at,
                is_generated=is_generated,
            )
        )
        return function

    return register


def register_change(
    name: str,
    *,
    stage: ChangeStage,
    default: ChangeValue = None,
    between: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    severities: Iterable[float] = (),
) -> Callable[[F], F]:
    """Register a function as change `name` of the input. See `ChangeEntry`; `bench.data.changes` has the signatures."""

    def register(function: F) -> F:
        CHANGES.add(
            ChangeEntry(
                name=name,
                function=function,
                stage=stage,
                default=default,
                between=between,
                choices=tuple(choices),
                severities=tuple(severities),
            )
        )
        return function

    return register


def register_section(name: str, *, title: str, order: int, page: str = "index") -> Callable[[F], F]:
    """Register `function(results) -> str | None` as report section `name`.

    `page` is a page of the site (`bench.reporting.site.PAGES`); any other name makes a page with the section's title.
    """

    def register(function: F) -> F:
        SECTIONS.add(SectionEntry(name=name, function=function, title=title, order=order, page=page))
        return function

    return register
