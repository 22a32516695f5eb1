"""The runs of one side of a comparison: read from folders, files or git, grouped by case, and by metric."""

import json
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.doubts import timing_doubts
from bench.core.errors import InputError
from bench.core.git import commit_hint, run_git
from bench.core.schema import Case, Metric, Record
from bench.core.units import plural
from bench.store import (
    RECORD_FILES,
    RECORDS,
    SUITE_FILE,
    Source,
    is_of_runs,
    iter_records,
    read_records,
    read_suite_info,
    record_files,
)

GIT = "git:"
KEPT_IN_GIT = (RECORD_FILES, SUITE_FILE, "predictions.parquet")
REPORT_DATA, REPORT_CASES = "data", "cases"  # folders of a report: docs/site-data.md


@dataclass(frozen=True, kw_only=True)
class Run:
    """One record, and the results folder that its artifact paths start from.

    In a results folder, a repeated run replaces the earlier run with the same index. A baseline may hold records of
    several sessions; there, `session` distinguishes runs with the same index.
    """

    record: Record
    folder: Path | None = None
    session: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseRuns:
    """One case of one side. `runs` succeeded and belong to one state of the code; `failures` were not run again."""

    case: Case
    id: str
    runs: tuple[Run, ...]
    failures: tuple[Record, ...]

    @property
    def records(self) -> list[Record]:
        return [run.record for run in self.runs]


@dataclass(frozen=True, kw_only=True)
class SideRuns:
    """All cases of one side by suite and id, and the `gate:` of each suite as its results folder stores it.

    `renamed` holds the former name of each model that the suites say was renamed.
    """

    source: str
    cases: Mapping[tuple[str, str], CaseRuns]
    gates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricRuns:
    """One metric in the runs of one side.

    `known` holds the runs with a finite value, without the `throttled` ones, which are only counted; `named` is the
    metric of any run, for its unit and note.
    """

    known: tuple[tuple[Run, Metric], ...]
    named: Metric | None
    throttled: int

    @classmethod
    def of(cls, runs: Sequence[Run], key: str) -> "MetricRuns":
        found = [(run, metric) for run in runs if (metric := run.record.metric(key)) is not None]
        known = [(run, metric) for run, metric in found if metric_values([metric])]
        # Throttling changes timings, not counts: a throttled run still has a valid parameter count.
        steady = [each for each in known if each[0].record.status != "throttled" or not each[1].is_of_machine]
        named = next((metric for _, metric in [*steady, *known, *found]), None)
        return cls(known=tuple(steady), named=named, throttled=len(known) - len(steady))

    @property
    def values(self) -> list[float]:
        return metric_values([metric for _, metric in self.known])

    def doubt(self, side: str) -> str:
        """`2 of 5 runs in head are drifting`: how many runs the side has whose timing is doubtful; empty if none."""
        found = [timing_doubts(run.record, metric) for run, metric in self.known]
        kinds = sorted({doubt for each in found for doubt in each})
        number = sum(map(bool, found))
        verb = "is" if number == 1 else "are"
        return f"{number} of {plural(len(found), 'run')} in {side} {verb} {' or '.join(kinds)}" if number else ""

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """The operators that a count leaves out, with the number of calls; sorted."""
        found = {each for run, metric in self.known for each in run.record.left_out_of(metric).items()}
        return sorted(found)

    @property
    def why_unknown(self) -> str:
        """The text after "unknown in base"; empty if the records give no reason."""
        if self.throttled:
            return f": {plural(self.throttled, 'run')} throttled; cool the device or lower its clocks, and run again"
        if self.named is None:
            return ": not measured there"
        return f": {self.named.note}" if self.named.note else ""


def metric_values(metrics: Sequence[Metric | None]) -> list[float]:
    """Return the values that are known and finite."""
    return [float(m.value) for m in metrics if m is not None and m.value is not None and math.isfinite(m.value)]


@contextmanager
def open_side(source: Source | Iterable[Record]) -> Iterator[SideRuns]:
    """Read one side: files, folders, patterns, `git:REF[:path]`, or records.

    Artifacts can be read only inside the context, because files from git are temporary. Raises InputError for an empty
    name and for a source that holds no records.
    """
    items: list[Any] = [source] if isinstance(source, str | Path) else list(source)
    if any(isinstance(item, str) and not item.strip() for item in items):
        raise InputError("results were given by an empty name; is a variable not set?")
    given = [Run(record=item, session=str(place)) for place, item in enumerate(items) if isinstance(item, Record)]
    with ExitStack() as stack:
        runs = given
        gates: dict[str, Mapping[str, Any]] = {}
        renamed: dict[str, str] = {}
        for item in items:
            if not isinstance(item, Record):
                found, rules, names = _read(stack.enter_context(_on_disk(item)))
                runs, gates, renamed = runs + found, gates | rules, renamed | names
        name = ", ".join(str(item) for item in items if not isinstance(item, Record)) or f"{len(given)} records"
        yield SideRuns(source=name, cases=_cases(runs), gates=gates, renamed=renamed)


def _read(source: str | Path) -> tuple[list[Run], dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return the runs, the gate of each suite, and the former names of renamed models."""
    runs: list[Run] = []
    gates: dict[str, Mapping[str, Any]] = {}
    renamed: dict[str, str] = {}
    if (files := _report_files(Path(source))) is not None:
        return [Run(record=record, session=str(file)) for file in files for record in _report_records(file)], {}, {}
    _refuse_both_sides(Path(source))
    if Path(source).is_dir() and not any(Path(source).rglob(RECORD_FILES)):
        return [], {}, {}  # a run that ended before its first record measured nothing, which is not the user's mistake
    for file in record_files(source):
        for record in read_records(file):
            session = "" if is_of_runs(file.name) else record.started_at
            runs += [Run(record=record, folder=file.parent, session=session)]
        facts = read_suite_info(file.parent)
        if isinstance(gate := facts.get("gate"), dict) and gate:
            gates[str(facts.get("name", ""))] = gate
        if isinstance(names := facts.get("renamed"), dict):
            renamed |= {new: former for new, former in names.items() if isinstance(former, str)}
    return runs, gates, renamed


def _report_files(path: Path) -> list[Path] | None:
    """Return the data files with the records of a report, which is a folder, its data, or one file; None for others."""
    if path.suffix == ".js" and path.is_file():
        if path.parent.name != REPORT_CASES:
            raise InputError(
                f"{path} holds what a page shows, not the runs; give the report's folder, or a file of "
                f"{REPORT_DATA}/{REPORT_CASES}"
            )
        return [path]
    if path.suffix in (".html", ".htm") and path.is_file():
        raise InputError(f"{path} is one page; give the folder of the report, or the results that it was made from")
    folders = [path / REPORT_DATA / REPORT_CASES, path / REPORT_CASES, path]
    found = next((folder for folder in folders if folder.name == REPORT_CASES and folder.is_dir()), None)
    if found is None or any(path.rglob(RECORD_FILES)):
        return None
    if files := sorted(found.glob("*.js")):
        return files
    raise InputError(f"{found} holds no data of cases; give the results that the report was made from")


def _report_records(file: Path) -> list[Record]:
    """Return the records that a report has of one case: the latest of each run, without samples."""
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text[text.index("=") + 1 :].rstrip().removesuffix(";"))
        return [Record.model_validate(each) for each in data["records"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"{file} is no data file of a report: {why}; give the results folder instead") from None


def _refuse_both_sides(folder: Path) -> None:
    """Raise InputError for a folder of `vbench ab` as one side, because it holds the runs of base and head."""
    names = ("base", "head")
    sides = [next((folder / name).glob("records*.jsonl"), None) for name in names] if folder.is_dir() else [None]
    if all(sides) and all(_is_in_turns(file) for file in sides if file):
        raise InputError(
            f"{folder} holds both sides of an A/B measurement; compare {folder / 'base'} with {folder / 'head'}"
        )


def _is_in_turns(file: Path) -> bool:
    return any(record.in_turns is not None for record in iter_records(file))


def _cases(runs: Sequence[Run]) -> dict[tuple[str, str], CaseRuns]:
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(_without_copies(runs), key=lambda run: run.record.started_at):
        grouped[run.record.case.suite, run.record.case_id].append(run)
    return {key: _case(members) for key, members in grouped.items()}


def _without_copies(runs: Sequence[Run]) -> Iterator[Run]:
    """Yield each run once: a copy of its record in another folder is not an independent run."""
    first: dict[str, Path] = {}
    for run in runs:
        if run.folder is None or first.setdefault(run.record.model_dump_json(), run.folder) == run.folder:
            yield run


def _case(members: Sequence[Run]) -> CaseRuns:
    """Keep the runs with the newest fingerprint, and of runs that were repeated in their folder the last."""
    newest = members[-1].record
    last: dict[tuple[Path | None, int, str], Run] = {}
    for run in members:
        if run.record.freshness == newest.freshness:
            last[run.folder, run.record.run_index, run.session if run.record.is_good else ""] = run
    good = tuple(run for run in last.values() if run.record.is_good)
    replaced = {(run.folder, run.record.run_index) for run in good}
    failures = [
        run.record
        for run in last.values()
        if not run.record.is_good and (run.folder, run.record.run_index) not in replaced
    ]
    return CaseRuns(case=newest.case, id=newest.case_id, runs=good, failures=tuple(failures))


@contextmanager
def _on_disk(source: str | Path) -> Iterator[str | Path]:
    """Yield a path that can be read; files of a git revision are in a temporary folder until the context ends."""
    if not str(source).startswith(GIT):
        yield source
        return
    ref, _, path = str(source).removeprefix(GIT).partition(":")
    with tempfile.TemporaryDirectory(prefix="vbench-git-") as folder:
        _check_out(ref, path, into=Path(folder))
        yield folder


def _check_out(ref: str, path: str, *, into: Path) -> None:
    commit = (
        _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", missing=ref).decode().strip()
    )
    wanted = [path or "."]
    if is_of_runs(PurePosixPath(path).name):  # a comparison also reads the suite's gate and the predictions of its runs
        wanted += [str(PurePosixPath(path).parent / name) for name in (SUITE_FILE, "artifacts")]
    listed = os.fsdecode(_git("ls-tree", "-r", "-z", "--name-only", "--full-name", commit, "--", *wanted))
    names = [
        name for name in listed.split("\0") if any(fnmatch(PurePosixPath(name).name, kept) for kept in KEPT_IN_GIT)
    ]
    if not any(fnmatch(PurePosixPath(name).name, RECORD_FILES) for name in names):
        raise InputError(
            f"no {RECORDS} under {path or 'this folder'} at {ref}; give git:REF:path, such as git:main:results"
        )
    for name in names:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_git("show", f"{commit}:{name}"))


def _git(*arguments: str, missing: str | None = None) -> bytes:
    try:
        done = run_git(*arguments)
    except FileNotFoundError:
        raise InputError("git:REF needs git, which is not installed") from None
    except TimeoutError as error:
        raise InputError(str(error)) from None
    if done.returncode == 0:
        return done.output
    if missing is not None and not done.stderr.strip():
        raise InputError(f"git:{missing}: no such commit, branch or tag here{commit_hint(missing)}")
    raise InputError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
