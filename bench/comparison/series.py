"""The runs of many commits as series: for each metric of each case what a history needs of a run, and no more.

A history of thousands of commits has records for gigabytes, so they are read one by one and reduced to `SeriesRun`s.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.comparison.baselines import LAYERS, machine_name, machine_of
from bench.comparison.causes import TABLES, Layer, layers_from
from bench.comparison.compatibility import notable_facts
from bench.comparison.noise import Canary
from bench.comparison.runs import metric_values
from bench.core.errors import StoreError
from bench.core.schema import Case, Json, Metric, Record
from bench.store import iter_records, read_suite_info, record_files


class SeriesRun(NamedTuple):
    """One run of one metric. `way` and `facts` are places in `Series.ways` and `SeriesSet.environments`."""

    commit: str
    committed_at: str
    started_at: str
    run_index: int
    value: float
    machine: str
    canary: Canary | None
    way: int
    facts: int


@dataclass(kw_only=True)
class Series:
    """The runs of one metric of one case, and how many are left out and why (as in `history.History`).

    `ways` holds one record for each way of measuring: other versions, options, units. `metric` is the newest.
    """

    case: Case
    metric: Metric
    newest_at: str = ""
    runs: list[SeriesRun] = field(default_factory=list)
    ways: list[tuple[Record, Metric]] = field(default_factory=list)
    in_turns: int = 0
    throttled: int = 0
    unknown: int = 0
    uncommitted: int = 0


@dataclass(kw_only=True)
class SeriesSet:
    """All series by case id and metric key, with the facts that several of them share.

    `cases` also has the cases without a known value. `renamed` maps models to their former names. `machines` names each
    kind of machine; `environments` are facts that may explain a change; `layers` are the tables of modules of a case
    at a commit, by case id.
    """

    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    environments: list[dict[str, Json]] = field(default_factory=list)
    layers: dict[str, dict[str, "LayerTables"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerTables:
    """The counts of each module, inline or in a file, and where the model is written, as `file:line`."""

    tables: Mapping[str, Json] | Path

    def read(self) -> tuple[list[Layer], str]:
        """Return the layers and the place of the model; no layers if the file is gone."""
        tables = self.tables
        if isinstance(tables, Path):
            try:
                tables = json.loads(tables.read_bytes())
            except (OSError, ValueError):
                return [], ""
        counts = [found if isinstance(found := tables.get(name), dict) else {} for name in TABLES]
        return layers_from(*counts), str(tables.get("model_source") or "")


def layer_tables(record: Record) -> dict[str, Json]:
    """Return the tables of modules of a record, and where its model is written; empty if nothing was counted."""
    found = {name: record.details[name] for name in TABLES if isinstance(record.details.get(name), dict)}
    return {**found, "model_source": record.details.get("model_source")} if found else {}


def read_series(source: str | Path | Sequence[str | Path]) -> SeriesSet:
    """Return the series of records files, folders or patterns, with the former names that stored suites have."""
    files = [file for item in ([source] if isinstance(source, str | Path) else source) for file in record_files(item)]
    found = _Reader()
    for folder in dict.fromkeys(file.parent for file in files):
        if isinstance(names := read_suite_info(folder).get("renamed"), dict):
            found.set.renamed |= {new: former for new, former in names.items() if isinstance(former, str)}
    for file in files:
        for record in iter_records(file):
            found.add(record, file.parent)
    if not found.number:
        raise StoreError(f"no records in {', '.join(map(str, files))}")
    return found.set


def series_of(records: Iterable[Record]) -> SeriesSet:
    """Return the series of records."""
    found = _Reader()
    for record in records:
        found.add(record, None)
    return found.set


class _Reader:
    """Adds records to a set of series; what many records share is kept once."""

    def __init__(self) -> None:
        self.set = SeriesSet()
        self.number = 0
        self._places: dict[str, int] = {}
        self._machines: dict[str, str] = {}
        self._ways: dict[tuple[str, str], dict[str, int]] = {}
        self._seen: set[tuple[str, str, str, int]] = set()

    def add(self, record: Record, folder: Path | None) -> None:
        """Add the known values of a successful record; a copy of a run that was added before counts once."""
        self.number += 1
        state = record.environment.state
        commit = state.get("commit")
        is_committed = state.get("is_dirty", False) is False
        machine = self._machine_of(record)
        once = (record.case_id, f"{commit} {is_committed} {machine}", record.started_at, record.run_index)
        if not record.is_good or once in self._seen:
            return
        self._seen.add(once)
        case = self.set.cases.setdefault(record.case_id, record.case)
        way = repr((record.case.measures, record.details.get("protocol"), record.details.get("measure_versions")))
        facts = None
        for metric in record.metrics:
            if not metric_values([metric]):
                continue
            series = self.set.series.setdefault((record.case_id, metric.key), Series(case=case, metric=metric))
            if record.started_at >= series.newest_at:
                series.metric, series.newest_at, series.case = metric, record.started_at, record.case
            if record.in_turns is not None:
                series.in_turns += 1
            elif record.status == "throttled" and metric.is_of_machine:
                series.throttled += 1
            elif not commit:
                series.unknown += 1
            elif not is_committed:
                series.uncommitted += 1
            else:
                if facts is None:
                    facts = self._facts_of(record)
                series.runs.append(
                    SeriesRun(
                        commit=str(commit),
                        committed_at=str(state.get("committed_at") or ""),
                        started_at=record.started_at,
                        run_index=record.run_index,
                        value=float(metric.value or 0),
                        machine=machine if metric.is_of_machine else "",
                        canary=_canary_of(record),
                        way=self._way_of(series, record, metric, way),
                        facts=facts,
                    )
                )
        if commit and is_committed:
            self._keep_layers(record, str(commit), folder)

    def _facts_of(self, record: Record) -> int:
        facts = dict(notable_facts(record))
        place = self._places.setdefault(repr(facts), len(self.set.environments))
        if place == len(self.set.environments):
            self.set.environments.append(facts)
        return place

    def _machine_of(self, record: Record) -> str:
        text = repr((record.environment.hardware, record.environment.software))
        if text not in self._machines:
            self._machines[text] = machine_of(record)
            self.set.machines[self._machines[text]] = machine_name(record)
        return self._machines[text]

    def _way_of(self, series: Series, record: Record, metric: Metric, way: str) -> int:
        known = self._ways.setdefault((record.case_id, metric.key), {})
        place = known.setdefault(repr((way, metric.unit, record.left_out_of(metric))), len(series.ways))
        if place == len(series.ways):
            series.ways.append((record, metric))
        return place

    def _keep_layers(self, record: Record, commit: str, folder: Path | None) -> None:
        name = record.artifacts.get(LAYERS)
        tables: Mapping[str, Json] | Path = layer_tables(record)
        if not tables and name and folder is not None:
            tables = folder / name
        if tables:
            self.set.layers.setdefault(record.case_id, {})[commit] = LayerTables(tables=tables)


def _canary_of(record: Record) -> Canary | None:
    """Return the milliseconds of each operation around a run, the mean of before and after; None without a canary."""
    noted = record.details.get("canary")
    times: Iterator[tuple[str, Any]] = iter(noted.items()) if isinstance(noted, dict) else iter(())
    found = {}
    for name, each in times:
        ends = [each.get("before"), each.get("after")] if isinstance(each, dict) else []
        known = [float(end) for end in ends if isinstance(end, int | float) and end > 0]
        if known:
            found[name] = sum(known) / len(known)
    return found or None
