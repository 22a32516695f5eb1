"""One side of a comparison: its cases, their independent runs, and what the suites there said of the gate."""

import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.errors import InputError
from bench.core.git import git_environment
from bench.core.schema import Case, Record
from bench.store import RECORDS, SUITE_FILE, Source, read_records, read_suite_info, record_files

GIT = "git:"
KEPT_IN_GIT = (RECORDS, SUITE_FILE, "predictions.parquet")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One record, and the results folder that its artifacts are named from.

    In a results folder a run that is done again takes the place of the one before. Where records of several sessions
    may stand together, as in a baseline, `session` tells runs of one index apart.
    """

    record: Record
    folder: Path | None = None
    session: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseRuns:
    """One case of one side. `runs` are good and of one state of the code; `failures` are runs that nothing replaced."""

    case: Case
    id: str
    runs: tuple[Run, ...]
    failures: tuple[Record, ...]

    @property
    def records(self) -> list[Record]:
        return [run.record for run in self.runs]


@dataclass(frozen=True, kw_only=True)
class Side:
    """Cases by suite and id, and the `gate:` of each suite as it stands in its results folder."""

    source: str
    cases: Mapping[tuple[str, str], CaseRuns]
    gates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@contextmanager
def open_side(source: Source | Iterable[Record]) -> Iterator[Side]:
    """Read one side; files, folders, patterns, `git:REF[:path]`, or records. Its artifacts can be read inside."""
    items: list[Any] = [source] if isinstance(source, str | Path) else list(source)
    if any(isinstance(item, str) and not item.strip() for item in items):
        raise InputError("results were given by an empty name; is a variable not set?")
    given = [Run(record=item, session=str(place)) for place, item in enumerate(items) if isinstance(item, Record)]
    with ExitStack() as stack:
        runs = given
        gates: dict[str, Mapping[str, Any]] = {}
        for item in items:
            if not isinstance(item, Record):
                found, rules = _read(stack.enter_context(_on_disk(item)))
                runs, gates = runs + found, gates | rules
        name = ", ".join(str(item) for item in items if not isinstance(item, Record)) or f"{len(given)} records"
        yield Side(source=name, cases=_cases(runs), gates=gates)


def _read(source: str | Path) -> tuple[list[Run], dict[str, Mapping[str, Any]]]:
    runs: list[Run] = []
    gates: dict[str, Mapping[str, Any]] = {}
    if Path(source).is_dir() and not any(Path(source).rglob(RECORDS)):
        return [], {}  # a run that broke before its first record: nothing was measured, which is no mistake of the user
    for file in record_files(source):
        for record in read_records(file):
            session = "" if file.name == RECORDS else record.started_at
            runs += [Run(record=record, folder=file.parent, session=session)]
        facts = read_suite_info(file.parent)
        if isinstance(gate := facts.get("gate"), dict) and gate:
            gates[str(facts.get("name", ""))] = gate
    return runs, gates


def _cases(runs: Sequence[Run]) -> dict[tuple[str, str], CaseRuns]:
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(_once(runs), key=lambda run: run.record.started_at):
        grouped[run.record.case.suite, run.record.case_id].append(run)
    return {key: _case(members) for key, members in grouped.items()}


def _once(runs: Sequence[Run]) -> Iterator[Run]:
    """Runs without copies of them that lie in another folder: those are no independent runs."""
    first: dict[str, Path] = {}
    for run in runs:
        if run.folder is None or first.setdefault(run.record.model_dump_json(), run.folder) == run.folder:
            yield run


def _case(members: Sequence[Run]) -> CaseRuns:
    """What counts of a case: the newest state of its code; of a run that was done again in its folder, the last."""
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
    """`source` as something that can be read: what git keeps is written to a folder for as long as this lasts."""
    if not str(source).startswith(GIT):
        yield source
        return
    ref, _, path = str(source).removeprefix(GIT).partition(":")
    with tempfile.TemporaryDirectory(prefix="vbench-git-") as folder:
        _check_out(ref, path, into=Path(folder))
        yield folder


def _check_out(ref: str, path: str, *, into: Path) -> None:
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    wanted = [path or ".", *_beside(PurePosixPath(path))]
    listed = os.fsdecode(_git("ls-tree", "-r", "-z", "--name-only", "--full-name", commit, "--", *wanted))
    names = [name for name in listed.split("\0") if PurePosixPath(name).name in KEPT_IN_GIT]
    if not any(PurePosixPath(name).name == RECORDS for name in names):
        raise InputError(
            f"no {RECORDS} under {path or 'this folder'} at {ref}; give git:REF:path, such as git:main:results"
        )
    for name in names:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_git("show", f"{commit}:{name}"))


def _beside(path: PurePosixPath) -> list[str]:
    """What is read with a file of records: its suite's facts, gate included, and the artifacts of its runs."""
    return [str(path.parent / name) for name in (SUITE_FILE, "artifacts")] if path.name == RECORDS else []


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True, env=git_environment()).stdout
    except FileNotFoundError:
        raise InputError("git:REF needs git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        unknown = "no such commit, branch or tag here; a shallow clone lacks most (actions/checkout: fetch-depth: 0)"
        said = error.stderr.decode(errors="replace").strip() or unknown
        raise InputError(f"git {' '.join(arguments)}: {said}") from None
