"""Joins cases into rows, because counts, timings and accuracies of one model are separate cases."""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from bench.core.registry import MEASURES, find_metric_spec, headlines_among
from bench.core.schema import Better, Case, Json
from bench.core.units import DASH
from bench.reporting.case_results import (
    LENT,
    OTHER_HEAD,
    RUN_AXES,
    TRAINING_AXES,
    CaseResult,
    MetricSummary,
    RecordedMetric,
    summarise_values,
)
from bench.reporting.metric_text import axis_name, listed, metric_name, value_text

Axes = tuple[Json, ...]
NAMED_AXES = ("compile", "threads", "batch")  # their values (`off`, 8) need the name of the axis
PROTOCOL_WORDS = {"dataset": "{}", "split": "split {}", "views": "{} views"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric, and for accuracies the data set, split and views. Values of one column may be ranked.

    Values of an `is_of_machine` column are ranked on each machine separately.
    """

    metric: str
    labels: tuple[tuple[str, str], ...] = ()
    protocol: tuple[tuple[str, Json], ...] = ()
    unit: str = ""
    better: Better | None = None
    is_of_machine: bool = False

    @property
    def name(self) -> str:
        """`Throughput, batch 8`."""
        labels = [f"{axis_name(k)} {v}" for k, v in self.labels]
        return ", ".join([metric_name(self.metric), *labels])

    @property
    def full_name(self) -> str:
        """The name with the protocol, which no other column has: `Top-1, ucf101, split 1, 10x1 views`."""
        return ", ".join([self.name, *([self.protocol_text] if self.protocol else [])])

    def depends_on(self, axis: str) -> bool:
        """Whether the measure of this metric declares that it depends on `axis`; True for an unknown measure."""
        measure = self.metric.partition(".")[0]
        return measure not in MEASURES or axis in MEASURES.get(measure).depends_on

    @property
    def protocol_text(self) -> str:
        """`ucf101, split 1, 10x1 views`."""
        return ", ".join(PROTOCOL_WORDS[axis].format(value_text(value)) for axis, value in self.protocol)

    def place_among(self, columns: Iterable["Column"]) -> str:
        """The data set, and of the rest of the protocol what differs within `columns`: `ucf101 (split 1)`."""
        others = [dict(column.protocol) for column in columns if column.metric == self.metric]
        varying = {axis for axis in PROTOCOL_WORDS if len({str(other.get(axis)) for other in others}) > 1}
        own = {axis: PROTOCOL_WORDS[axis].format(value_text(value)) for axis, value in self.protocol}
        rest = ", ".join(word for axis, word in own.items() if axis in varying and axis != "dataset")
        return f"{own['dataset']} ({rest})" if rest else own["dataset"]


@dataclass(frozen=True, kw_only=True)
class BoardRow:
    """One model at one clip in one execution mode, with one training. `summaries` hold its values by column.

    If it `is_trained`, a training factor that is missing in `factors` was not used (such as no initial weights).
    """

    suite: str
    model: str
    args: Mapping[str, Json]
    factors: Mapping[str, Json]
    summaries: Mapping[Column, MetricSummary]
    is_trained: bool = False

    @property
    def label(self) -> str:
        """The model in full: `c3d_search kernel_depth=3 width=16`."""
        return label_of(self.model, self.args)

    def does_without(self, factor: str) -> bool:
        """Whether the model was trained without this factor, for example without initial weights."""
        return self.is_trained and factor in TRAINING_AXES and self.factors.get(factor) is None


@dataclass(frozen=True, kw_only=True)
class Board:
    """All rows, their columns, and the factors that differ between rows."""

    rows: tuple[BoardRow, ...]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Every column, the headline metrics first."""
        return in_order(column for row in self.rows for column in row.summaries)

    @cached_property
    def headlines(self) -> tuple[Column, ...]:
        """The columns of a leaderboard: headlines that some row knows, and a directed metric of every other measure."""
        return headlines_of(column for column in self.columns if self._is_known(column))

    @cached_property
    def unknown(self) -> dict[Column, str]:
        """Headlines that were measured and that no row knows, with the reason."""
        missing = [column for column in headlines_of(self.columns) if not self._is_known(column)]
        return {c: next(row.summaries[c].how for row in self.rows if c in row.summaries) for c in missing}

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Factors with more than one value over the rows."""
        return _varying(self.rows)

    @cached_property
    def constant_args(self) -> dict[str, Json]:
        """Arguments that are the same in every row of several models."""
        return _shared(self.rows)

    @cached_property
    def constant_args_of(self) -> dict[str, dict[str, Json]]:
        """By model name, the arguments that are the same in all of its rows, if it has several variants."""
        models: dict[str, list[BoardRow]] = defaultdict(list)
        for row in self.rows:
            models[row.model].append(row)
        return {model: shared for model, rows in models.items() if (shared := _shared(rows))}

    def args_text(self, model: str, args: Mapping[str, Json]) -> str:
        """The arguments that differ between the variants of `model`: `kernel_depth=3`."""
        same = {*self.constant_args, *self.constant_args_of.get(model, ())}
        return settings({name: value for name, value in args.items() if name not in same})

    def factors_of(self, columns: Iterable[Column]) -> list[str]:
        """Factors on which some of `columns` depend, and that vary over the rows which have some of them."""
        listed = list(columns)
        varying = _varying([row for row in self.rows if not row.summaries.keys().isdisjoint(listed)])
        optional = {*RUN_AXES, *TRAINING_AXES}
        return [name for name in varying if name not in optional or any(c.depends_on(name) for c in listed)]

    def machines_of(self, columns: Iterable[Column]) -> tuple[str, ...]:
        """Letters of the machines that some values of `columns` are of."""
        listed = list(columns)
        summaries = [row.summaries[column] for row in self.rows for column in listed if column in row.summaries]
        return tuple(sorted({letter for summary in summaries for letter in summary.machines}))

    def label(self, row: BoardRow, columns: Iterable[Column]) -> str:
        """The model, and the factors that differ between rows with all of `columns`: `c3d kernel_depth=3 (bf16)`."""
        factors = [text for name in self._distinguishing(tuple(columns)) if (text := self._factor_text(row, name))]
        model = f"{row.model} {self.args_text(row.model, row.args)}".strip()
        return f"{model} ({', '.join(factors)})" if factors else model

    def _distinguishing(self, columns: tuple[Column, ...]) -> list[str]:
        """The factors that vary over the rows which have all of `columns`."""
        if columns not in self._distinguishing_cache:
            rows = tuple(row for row in self.rows if row.summaries.keys() >= set(columns))
            self._distinguishing_cache[columns] = replace(self, rows=rows or self.rows).factors_of(columns)
        return self._distinguishing_cache[columns]

    @cached_property
    def _distinguishing_cache(self) -> dict[tuple[Column, ...], list[str]]:
        return {}

    @cached_property
    def _models_with(self) -> frozenset[tuple[str, str]]:
        """Models and the factors that some row of them has."""
        return frozenset((row.model, name) for row in self.rows for name in row.factors)

    def _factor_text(self, row: BoardRow, name: str) -> str:
        """As `factor_text`; `no weights` if the row was trained without and another row of the model has some."""
        value = row.factors.get(name)
        if value is not None:
            return factor_text(name, value)
        return f"no {axis_name(name)}" if row.does_without(name) and (row.model, name) in self._models_with else ""

    @property
    def constant(self) -> dict[str, Json]:
        """Factors that are the same in every row."""
        return {name: value for name, value in self._constant_where_known.items() if self._is_everywhere(name)}

    def constant_among(self, axes: Iterable[str]) -> dict[str, Json]:
        """Those of `axes` that are the same in every row which has them, and that others have not."""
        return {k: v for k, v in self._constant_where_known.items() if k in set(axes) and not self._is_everywhere(k)}

    @cached_property
    def _constant_where_known(self) -> dict[str, Json]:
        found = {name: value for row in self.rows for name, value in row.factors.items()}
        return {name: value for name, value in found.items() if name not in self.varying}

    def _is_everywhere(self, factor: str) -> bool:
        return all(factor in row.factors for row in self.rows)

    def _is_known(self, column: Column) -> bool:
        return any(row.summaries[column].value is not None for row in self.rows if column in row.summaries)

    def contenders(self, column: Column) -> dict[str, list[BoardRow]]:
        """Rows that may be ranked by a column, by group (one for all that are of no machine): none with doubts."""
        found: dict[str, list[BoardRow]] = defaultdict(list)
        for row in self.rows:
            summary = row.summaries.get(column)
            if summary and summary.is_ranked:
                found[summary.group].append(row)
        return found

    def rank_bands(self, column: Column) -> dict[int, tuple[int, int]]:
        """First and last rank that each ranked row may have in its group, by the number of the row.

        Rows whose intervals overlap cannot be separated, so their bands overlap; empty if no direction is better.
        """
        numbers = {id(row): number for number, row in enumerate(self.rows)}
        bands: dict[int, tuple[int, int]] = {}
        for rows in self.contenders(column).values() if column.better else ():
            ends = [_ends_from_best(row.summaries[column]) for row in rows]
            worst, best = sorted(worst for _, worst in ends), sorted(best for best, _ in ends)
            for row, (own_best, own_worst) in zip(rows, ends, strict=True):
                bands[numbers[id(row)]] = (1 + bisect_left(worst, own_best), bisect_right(best, own_worst))
        return bands

    def best(self, column: Column) -> dict[str, float]:
        """The best value of a column by group, without doubtful summaries; none if all values are equal."""
        pick = min if column.better == "lower" else max
        groups = {
            group: {value for row in rows if (value := row.summaries[column].value) is not None}
            for group, rows in self.contenders(column).items()
        }
        return {group: pick(values) for group, values in groups.items() if column.better and len(values) > 1}


def _ends_from_best(summary: MetricSummary) -> tuple[float, float]:
    """The best and the worst end of an interval, as numbers of which the smaller one is better."""
    low, high = (summary.low, summary.high) if summary.has_interval else (summary.value or 0.0, summary.value or 0.0)
    return (-high, -low) if summary.better == "higher" else (low, high)


def label_of(model: str, args: Mapping[str, Json]) -> str:
    """A model with all of its arguments: `c3d_search kernel_depth=3 width=16`."""
    return f"{model} {settings(args)}".strip()


def settings(args: Mapping[str, Json]) -> str:
    """`kernel_depth=3 width=16`."""
    return " ".join(f"{name}={_argument_text(value)}" for name, value in args.items())


def _argument_text(value: Json) -> str:
    """`3`. Different arguments have different texts: lists are put in brackets, the text `3` in quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_argument_text, value))}]"
    text = value_text(value)
    if isinstance(value, dict):
        return f"{{{text}}}"
    reads_as_other = text in ("yes", "no", DASH) or text[:1] in "[{'" or _is_number(text)
    return f"'{text}'" if isinstance(value, str) and reads_as_other else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shared(rows: Sequence[BoardRow]) -> dict[str, Json]:
    """Arguments that have one value in all of `rows`; none if the rows are of a single model."""
    if len({row.label for row in rows}) < 2:
        return {}
    values = {name: {json.dumps(row.args[name]) for row in rows if name in row.args} for name in rows[0].args}
    everywhere = {name for name in values if all(name in row.args for row in rows)}
    return {name: value for name, value in rows[0].args.items() if name in everywhere and len(values[name]) == 1}


def _varying(rows: Sequence[BoardRow]) -> tuple[str, ...]:
    """Factors with several values over `rows`, or that only some of the rows of one model have.

    A training without the factor counts as a value; a row that was not timed has no value of precision and the like.
    """
    values: dict[str, set[str]] = defaultdict(set)
    having: dict[tuple[str, str, str], dict[tuple[str, ...], None]] = defaultdict(dict)
    names = tuple(dict.fromkeys(name for row in rows for name in row.factors))
    for row in rows:
        known = tuple(name for name in names if name in row.factors or row.does_without(name))
        having[row.suite, row.label, str(row.factors.get("clip"))][known] = None
        for name in known:
            values[name].add(json.dumps(row.factors.get(name)))
    partly = {name for kinds in having.values() for kind in kinds for name in kind if not all(name in k for k in kinds)}
    return tuple(name for name in names if len(values[name]) > 1 or name in partly)


def factor_text(name: str, value: Json) -> str:
    """`bf16`; `batch 8`."""
    return f"{axis_name(name)} {value_text(value)}" if name in NAMED_AXES else value_text(value)


def group_of(row: BoardRow, columns: Iterable[Column]) -> str:
    """What a row's values of `columns` may be ranked within: the letters of the machines they are of, mostly one."""
    summaries = [row.summaries[column] for column in columns if column in row.summaries]
    return ", ".join(sorted({letter for summary in summaries for letter in summary.machines}))


def headlines_of(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Of `columns`, in their order, those of headline metrics; a report has changed input in a section of its own."""
    listed = [column for column in columns if "change" not in dict(column.labels)]
    wanted = headlines_among((column.metric, column.better) for column in listed)
    return tuple(column for column in listed if column.metric in wanted)


def build_board(cases: Sequence[CaseResult]) -> Board:
    """Rows of all cases with a result, in the order of the first case of each model."""
    models: dict[tuple[str, str, str, str], list[CaseResult]] = defaultdict(list)
    for case in cases:
        point = case.case.point
        if case.runs:
            key = (case.case.suite, point.model, json.dumps(point.args, sort_keys=True), str(point.clip))
            models[key].append(case)
    several = len({key[0] for key in models}) > 1
    return Board(rows=tuple(row for group in models.values() for row in _rows(group, names_suite=several)))


def column_of(case: CaseResult, recorded_metric: RecordedMetric) -> Column:
    """The column of this metric of `case`."""
    metric = recorded_metric.metric
    return _column(
        metric=metric.name,
        labels=tuple(sorted(metric.labels.items())),
        protocol=case.protocol,
        unit=metric.unit,
        better=metric.better,
        is_of_machine=metric.is_of_machine,
    )


# Equal columns are one object: rows look up their values by column, and identical keys are found without comparing.
_column = lru_cache(maxsize=4096)(Column)


def in_order(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Each column once: declared headlines, then others in order of appearance; numeric labels by number."""
    found = dict.fromkeys(columns)
    first_at = {metric: place for place, metric in enumerate(dict.fromkeys(column.metric for column in found))}
    at = {metric: (*_headline_place(metric), place) for metric, place in first_at.items()}
    return tuple(sorted(found, key=lambda c: (at[c.metric], [_number_first(v) for _, v in c.labels], c.protocol_text)))


def _headline_place(metric: str) -> tuple[bool, int, str, int]:
    """Sort key of a metric: headlines first, by the order of their measure and their place among its metrics."""
    spec = find_metric_spec(metric)
    if spec is None or not spec.headline:
        return True, 0, "", 0
    measure = MEASURES.get(metric.partition(".")[0])
    return False, measure.order, measure.name, measure.metrics.index(spec)


def _number_first(text: str) -> tuple[int, float, str]:
    return (0, float(text), "") if text.replace(".", "", 1).isdecimal() else (1, 0.0, text)


def _rows(cases: Sequence[CaseResult], *, names_suite: bool) -> Iterator[BoardRow]:
    """All rows of one model and clip: every execution mode with every training."""
    by_run = _CaseJoin(cases, [(c.machine, *(getattr(c.case.point, axis) for axis in RUN_AXES)) for c in cases])
    by_training = _CaseJoin(cases, [(_training_of(c.case),) for c in cases])
    point, suite = cases[0].case.point, cases[0].case.suite
    for run in by_run.fullest:
        runs = by_run.within(run)
        for (training,) in by_training.fullest:
            trained = by_training.within((training,))
            factors = {"suite": suite} if names_suite else {}
            _, *run_values = run
            joined = [case for i, case in enumerate(cases) if i in runs and i in trained]
            yield BoardRow(
                suite=suite,
                model=point.model,
                args=point.args,
                factors={
                    **factors,
                    "clip": str(point.clip),
                    **_known(dict(zip(RUN_AXES, run_values, strict=True))),
                    **(_known(training) if isinstance(training, dict) else {}),
                },
                is_trained=training is not None,
                summaries=_summaries(joined, precision=run[1 + RUN_AXES.index("precision")]),
            )


def _training_of(case: Case) -> dict[str, Json] | None:
    """The training axes of a case, null for those not used; None if no measure depends on them."""
    axes = {axis: getattr(case.point, axis) for axis in TRAINING_AXES}
    measures = [MEASURES.get(name) for name in case.measures if name in MEASURES]
    matters = any(not measure.depends_on.isdisjoint(TRAINING_AXES) for measure in measures)
    return axes if matters or _known(axes) else None


class _CaseJoin:
    """Cases by a few axes. A case that leaves an axis open joins every more specific one that agrees with it."""

    def __init__(self, cases: Sequence[CaseResult], axes: Sequence[Axes]) -> None:
        self._members: dict[str, set[int]] = defaultdict(set)
        points: dict[str, Axes] = {}
        for index, values in enumerate(axes):
            self._members[_key(values)].add(index)
            points[_key(values)] = values
        self._masks = {tuple(bool(v is not None and v != "") for v in values) for values in points.values()}
        covered = {key for values in points.values() for key in self._wider(values)}
        self.fullest = [values for key, values in points.items() if key not in covered]

    def within(self, values: Axes) -> set[int]:
        """Indices of the cases whose axes are open or equal to `values`."""
        return self._members[_key(values)].union(*(self._members.get(key, set()) for key in self._wider(values)))

    def _wider(self, values: Axes) -> list[str]:
        """Keys of the points that leave open some of the axes that `values` sets."""
        own = _key(values)
        keys = (
            _key(tuple(v if is_kept else None for v, is_kept in zip(values, mask, strict=True))) for mask in self._masks
        )
        return [key for key in keys if key != own]


def _key(values: Axes) -> str:
    return json.dumps([v or None for v in values])


def _known(axes: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in axes.items() if value is not None}


def _summaries(cases: Iterable[CaseResult], *, precision: Json) -> dict[Column, MetricSummary]:
    """The summaries of one row that is run in `precision`; accuracies of another precision or head are marked."""
    found: dict[Column, list[RecordedMetric]] = defaultdict(list)
    summaries: dict[Column, MetricSummary] = {}
    for case in cases:
        for key, recorded in case.metrics.items():
            column = column_of(case, recorded[0])
            summaries[column] = case.summaries[key]
            found[column].extend(recorded)
    for column, values in found.items():
        if values[0].record.case_id != values[-1].record.case_id:  # of several cases
            summaries[column] = summarise_values(values)
    has_costs = any(not column.protocol for column in found)
    for column, values in found.items():
        if column.protocol and not column.is_of_machine:
            summary = _marked_as_lent(summaries[column], values, precision=precision)
            summaries[column] = _marked_head(summary, values) if has_costs else summary
    return summaries


def _marked_as_lent(summary: MetricSummary, recorded: Sequence[RecordedMetric], *, precision: Json) -> MetricSummary:
    """`summary` marked as lent if the accuracy was measured in another precision than the row is run in.

    Accuracies do not depend on the precision axis: a model is evaluated once, and all its execution modes show it.
    """
    if precision is None or summary.value is None:
        return summary
    measured = {_precision_of(each) for each in recorded}
    if measured == {precision}:
        return summary
    words = f"measured in {listed(sorted(measured))}, not in {precision}"
    return replace(summary, doubts=(*summary.doubts, LENT), note=_joined_notes(summary.note, words))


def _joined_notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _precision_of(recorded: RecordedMetric) -> str:
    """The precision of an evaluation: its label, its own axis, its protocol, else fp32."""
    protocol = recorded.record.details.get("protocol")
    noted = protocol.get("precision") if isinstance(protocol, dict) else None
    return str(recorded.metric.labels.get("precision") or recorded.record.case.point.precision or noted or "fp32")


def _marked_head(summary: MetricSummary, recorded: Sequence[RecordedMetric]) -> MetricSummary:
    """`summary` marked if the accuracy may be of another head than the counts and timings of its row.

    A model without `num_classes` is counted with its default head and evaluated with that of the data set.
    """
    if summary.value is None or recorded[0].record.case.point.args.get("num_classes") is not None:
        return summary
    words = "measured with the head of the data set; counts and timings are those of the model's default head"
    return replace(summary, remarks=(*summary.remarks, OTHER_HEAD), note=_joined_notes(summary.note, words))
