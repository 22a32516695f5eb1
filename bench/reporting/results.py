"""All that a section of a report may ask for: the records, gathered by case, joined into rows, compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.core.schema import Json, Record
from bench.reporting.ablation import Ablation, ablate
from bench.reporting.board import Board, build_board
from bench.reporting.case_results import CaseResult, gather_cases, without_turns
from bench.reporting.machines import Machine, Machines


@dataclass(frozen=True, kw_only=True)
class SuiteFacts:
    """What the suite's file said that records do not carry."""

    name: str
    title: str = ""
    description: str = ""
    text: str = ""
    baseline: Mapping[str, Json] = field(default_factory=dict)
    factors: tuple[str, ...] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Json]) -> "SuiteFacts":
        """Read what the store kept beside the records; a fact that is not there stays empty."""
        block = facts.get("ablate")
        block = block if isinstance(block, dict) else {}
        texts = {key: str(facts.get(key) or "") for key in ("name", "title", "description", "text")}
        return cls(**texts, baseline=block.get("baseline") or {}, factors=tuple(block.get("factors") or ()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """Everything a report is made of. Built once by `collect`; what is derived is worked out when first asked for."""

    records: tuple[Record, ...]
    cases: tuple[CaseResult, ...]
    machines: tuple[Machine, ...]
    facts: Mapping[str, SuiteFacts]
    letters: Mapping[int, str]
    folders: Mapping[int, Path]

    @cached_property
    def suites(self) -> tuple[SuiteFacts, ...]:
        """The suites that have records, in the order of time; of an unknown one only the name."""
        names = dict.fromkeys(record.case.suite for record in self.records)
        return tuple(self.facts.get(name, SuiteFacts(name=name)) for name in names)

    @cached_property
    def board(self) -> Board:
        """Cases joined into one row per model, clip, way of running and way of training."""
        return build_board(self.cases)

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """For every factor that a suite ablates, its levels compared with the baseline."""
        return tuple(
            found
            for suite in self.suites
            for factor in suite.factors
            if (found := ablate(self._cases_of(suite.name), factor=factor, baseline=suite.baseline)) is not None
        )

    @cached_property
    def failures(self) -> tuple[Record, ...]:
        """Runs of cases whose latest record has no result, in the order of time."""
        found = [record for case in self.cases for record in case.failures]
        return tuple(sorted(found, key=lambda record: record.started_at))

    @cached_property
    def timed_machines(self) -> tuple[Machine, ...]:
        """The machines that timings and other figures of a machine come from."""
        letters = self.board.machines_of(self.board.columns)
        return tuple(machine for machine in self.machines if machine.letter in letters)

    @property
    def replaced(self) -> int:
        """Records that a later one of the same run took the place of."""
        return len(self.records) - sum(len(case.latest) for case in self.cases)

    def letter_of(self, record: Record) -> str:
        """The machine that this record of these results comes from."""
        return self.letters[id(record)]

    def artifact(self, record: Record, name: str) -> Path | None:
        """The file that `record` kept under `name`, where it is there and inside the record's results folder."""
        folder = self.folders.get(id(record))
        if folder is None or name not in record.artifacts:
            return None
        file = (folder / record.artifacts[name]).resolve()
        return file if file.is_file() and file.is_relative_to(folder.resolve()) else None

    def _cases_of(self, suite: str) -> list[CaseResult]:
        return [case for case in self.cases if case.case.suite == suite]


def collect(
    records: Iterable[Record],
    facts: Sequence[Mapping[str, Json]] = (),
    *,
    folders: Mapping[int, Path] | None = None,
) -> Results:
    """Results of `records`, put in the order of time, with what the store kept of their suites.

    `folders` names the results folder of a record by its `id()`, for those that were read from a disk.
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
