"""`Results`, the input of every report section: records grouped by case, joined into rows, compared by level."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.core.errors import InputError
from bench.core.schema import Json, Record
from bench.core.stats import Estimate
from bench.core.units import plural
from bench.reporting.ablation import Ablation, ablate
from bench.reporting.board import Board, BoardRow, Column, build_board, label_of
from bench.reporting.case_results import RUN_AXES, TRAINING_AXES, CaseResult, gather_cases, without_turns
from bench.reporting.links import Links, file_names
from bench.reporting.machines import Machine, Machines


@dataclass(frozen=True, kw_only=True)
class SuiteFacts:
    """What the suite file contains beyond the records.

    `text` is the file, `whole` the suite as it was measured if that differs: with the files that it extends, in its
    small form, with changed recipes. `planned` maps case ids to runs; None if it was not stored.
    """

    name: str
    title: str = ""
    description: str = ""
    text: str = ""
    whole: str = ""
    baseline: Mapping[str, Json] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    planned: Mapping[str, int] | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Json]) -> "SuiteFacts":
        """Read the facts that the store kept with the records; missing ones stay empty."""
        block = facts.get("ablate")
        block = block if isinstance(block, dict) else {}
        texts = {key: str(facts.get(key) or "") for key in ("name", "title", "description", "text", "whole")}
        planned = facts.get("planned")
        return cls(
            **texts,
            baseline=block.get("baseline") or {},
            factors=tuple(block.get("factors") or ()),
            planned=planned if isinstance(planned, dict) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How much of one suite is done. `cases` and `runs` are the planned numbers, None if no plan was stored.

    A case is done if all its planned runs have a good record. `failed` are planned cases that are not done and whose
    latest record of some run has no result; `unplanned` are recorded cases that the suite does not contain any more.
    """

    suite: str
    done: int
    recorded: int
    cases: int | None
    runs_done: int
    runs: int | None
    failed: int
    unplanned: int

    @property
    def is_complete(self) -> bool:
        return self.cases is None or self.done >= self.cases

    @property
    def text(self) -> str:
        """`37 of 52 cases done, 3 failed`."""
        failed = f", {self.failed} failed" if self.failed else ""
        if self.cases is None:
            what = plural(self.recorded, "recorded case")
            return f"{self.done} of {what} done{failed}, number of planned cases not stored"
        return f"{self.done} of {plural(self.cases, 'case')} done{failed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """The data of a report, built by `collect`. Derived values are computed on first use."""

    records: tuple[Record, ...]
    cases: tuple[CaseResult, ...]
    machines: tuple[Machine, ...]
    facts: Mapping[str, SuiteFacts]
    letters: Mapping[int, str]
    folders: Mapping[int, Path]
    links: Links = field(default_factory=Links)

    @cached_property
    def suites(self) -> tuple[SuiteFacts, ...]:
        """The suites that have records, in the order of time; of suites without stored facts only the name is known."""
        names = dict.fromkeys(record.case.suite for record in self.records)
        return tuple(self.facts.get(name, SuiteFacts(name=name)) for name in names)

    @cached_property
    def progress(self) -> tuple[Progress, ...]:
        """How much of each suite is done."""
        return tuple(self._progress_of(suite) for suite in self.suites)

    def _progress_of(self, suite: SuiteFacts) -> Progress:
        good: dict[str, int] = defaultdict(int)  # the most runs on one machine, because each machine runs all of them
        recorded, failed = set(), set()
        for case in self._cases_of(suite.name):
            recorded.add(case.id)
            failed.update([case.id] if case.failures else [])
            good[case.id] = max(good[case.id], len(case.runs))
        planned = suite.planned
        wanted = dict.fromkeys(recorded, 1) if planned is None else planned
        done = {case for case, runs in wanted.items() if good[case] >= runs > 0}
        return Progress(
            suite=suite.name,
            done=len(done),
            recorded=len(recorded),
            cases=None if planned is None else len(planned),
            runs_done=sum(min(good[case], runs) for case, runs in wanted.items()),
            runs=None if planned is None else sum(planned.values()),
            failed=len(failed & set(wanted) - done),
            unplanned=len(recorded - set(wanted)),
        )

    @cached_property
    def board(self) -> Board:
        """Cases joined into one row per model, clip, execution mode and training."""
        return build_board(self.cases)

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """The levels of each ablated factor of each suite, compared with the baseline."""
        return tuple(
            found
            for suite in self.suites
            for factor in suite.factors
            if (
                found := ablate(
                    self._cases_of(suite.name),
                    factor=factor,
                    baseline=suite.baseline,
                    over_videos=self.difference_over_videos,
                )
            )
            is not None
        )

    @cached_property
    def failures(self) -> tuple[Record, ...]:
        """Runs whose latest record has no result, in the order of time."""
        found = [record for case in self.cases for record in case.failures]
        return tuple(sorted(found, key=lambda record: record.started_at))

    @cached_property
    def failed_cells(self) -> Mapping[tuple[int, Column], Record]:
        """Failures of cases without any result, by the number of the row and the column that they would have filled."""
        return {
            (number, column): case.failures[-1]
            for case, numbers in self._rows_of_failures
            for number in numbers
            for column in self.board.columns
            if column.metric.partition(".")[0] in case.case.measures and column.protocol == case.protocol
        }

    @cached_property
    def failed_cases(self) -> tuple[CaseResult, ...]:
        """Cases without any result that belong to no row of the board."""
        return tuple(case for case, numbers in self._rows_of_failures if not numbers)

    @cached_property
    def _rows_of_failures(self) -> list[tuple[CaseResult, list[int]]]:
        """Cases without any result, with the numbers of the rows of the same model in the same mode and training."""
        rows: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for number, row in enumerate(self.board.rows):
            rows[row.suite, row.label, str(row.factors.get("clip"))].append(number)
        found = []
        for case in self.cases:
            if not case.runs:
                point = case.case.point
                axes = {axis: v for axis in (*RUN_AXES, *TRAINING_AXES) if (v := getattr(point, axis)) is not None}
                numbers = rows[case.case.suite, label_of(point.model, point.args), str(point.clip)]
                found.append((case, [n for n in numbers if axes.items() <= self.board.rows[n].factors.items()]))
        return found

    @cached_property
    def case_names(self) -> Mapping[int, str]:
        """The name of the page of each case, by the `id()` of the case: its id, with the machine if that is needed."""
        names = file_names([f"{case.id}{'-' + case.machine.lower() if case.machine else ''}" for case in self.cases])
        return {id(case): f"cases/{name}" for case, name in zip(self.cases, names, strict=True)}

    @cached_property
    def model_names(self) -> Mapping[str, str]:
        """The name of the page of each model, by its label with all arguments."""
        labels = list(dict.fromkeys(label_of(case.case.point.model, case.case.point.args) for case in self.cases))
        return {label: f"models/{name}" for label, name in zip(labels, file_names(labels), strict=True)}

    @cached_property
    def rows_of(self) -> Mapping[str, tuple[BoardRow, ...]]:
        """The rows of the board by the label of their model."""
        found: dict[str, list[BoardRow]] = defaultdict(list)
        for row in self.board.rows:
            found[row.label].append(row)
        return {label: tuple(rows) for label, rows in found.items()}

    def model_page_of(self, label: str) -> str:
        """The address of a model's page, from a page at the root of the site."""
        return self.links.page(self.model_names[label])

    def case_page_of(self, record: Record) -> str:
        """The address of the page of the case of `record`, from a page at the root of the site."""
        return self.links.page(self.case_names[id(self._case_of_record[id(record)])])

    @cached_property
    def _case_of_record(self) -> Mapping[int, CaseResult]:
        return {id(record): case for case in self.cases for record in (*case.latest, *case.runs)}

    @cached_property
    def timed_machines(self) -> tuple[Machine, ...]:
        """The machines on which the values that depend on a machine were measured."""
        letters = self.board.machines_of(self.board.columns)
        return tuple(machine for machine in self.machines if machine.letter in letters)

    @property
    def replaced(self) -> int:
        """The number of records that a later one of the same run replaced."""
        return len(self.records) - sum(len(case.latest) for case in self.cases)

    def letter_of(self, record: Record) -> str:
        """The letter of the machine of this record."""
        return self.letters[id(record)]

    def artifact(self, record: Record, name: str) -> Path | None:
        """The artifact `name` of `record`; None if there is no such file inside the results folder of the record."""
        folder = self.folders.get(id(record))
        if folder is None or name not in record.artifacts:
            return None
        file = (folder / record.artifacts[name]).resolve()
        return file if file.is_file() and file.is_relative_to(folder.resolve()) else None

    def difference_over_videos(self, ours: Record, theirs: Record) -> Estimate | None:
        """Top-1 of `ours` minus that of `theirs` on the same videos, from their stored predictions, as a fraction of 1.

        None if the predictions of one are not in its results folder, or are not of the same videos.
        """
        from bench.train.predictions import compare_predictions, read_predictions  # imports numpy

        files = [self.artifact(record, "predictions") for record in (theirs, ours)]
        try:
            a, b = (read_predictions(file) for file in files if file is not None)
            return compare_predictions(a, b).difference
        except (InputError, ValueError):  # ValueError: fewer than two files
            return None

    def _cases_of(self, suite: str) -> list[CaseResult]:
        return [case for case in self.cases if case.case.suite == suite]


def collect(
    records: Iterable[Record],
    facts: Sequence[Mapping[str, Json]] = (),
    *,
    folders: Mapping[int, Path] | None = None,
) -> Results:
    """Build `Results` from `records`, sorted by time, and from the `facts` that the store kept of their suites.

    `folders` maps the `id()` of records that were read from disk to their results folder.
    """
    ordered = tuple(sorted(without_turns(records), key=lambda record: record.started_at))
    machines = Machines()
    letters = {id(record): machines.letter(record) for record in ordered}
    cases = gather_cases(ordered, letters)
    suites = [SuiteFacts.of(each) for each in facts]
    return Results(
        records=ordered,
        cases=cases,
        machines=tuple(machines.all),
        facts={suite.name: suite for suite in suites},
        letters=letters,
        folders=folders or {},
    )
