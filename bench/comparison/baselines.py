"""Baselines: the records of a branch by suite and kind of machine, as text files for git.

    .vbench/baselines/<branch>/<suite>/<machine>.jsonl          what `baseline:<branch>` means in `vbench compare`
    .vbench/baselines/<branch>/<suite>/<machine>.predictions    the predictions for each test video, one file per run
    .vbench/history/<branch>/<suite>/<machine>.jsonl            the lines of every saved commit, without predictions
    .vbench/history/<branch>/<suite>/layers/                    the counts of each module; equal ones are stored once
    .vbench/history/<branch>/<suite>/suite.json                 former names of models (`renamed:`)

<machine> is a hash of all facts that must be equal to compare timings; counts are the same on every machine and go to
`any.jsonl`. A line is one run without raw samples and other parts that no comparison reads.
"""

import fcntl
import glob
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from bench.comparison.compatibility import depends_on_machine, machine_facts
from bench.comparison.kept_predictions import read_ranks, write_ranks
from bench.comparison.runs import Run, SideRuns, open_side
from bench.comparison.verdicts import one_line
from bench.core.errors import InputError, UnknownNameError, nearest
from bench.core.files import path_hint, remove_abandoned, write_atomically
from bench.core.git import run_git
from bench.core.schema import Environment, Metric, Record, digest
from bench.core.units import plural
from bench.store import SUITE_FILE, Source, read_records, read_suite_info, store_errors

PREFIX = "baseline:"
BASELINES, HISTORY = Path(".vbench/baselines"), Path(".vbench/history")
ANY = "any"
KEPT_STATE = ("commit", "committed_at", "is_dirty", "cpu_governor", "container")
KEPT_DETAILS = ("protocol", "measure_versions", "parity", "session", "canary")
KEPT_COUNTS = ("macs_by_module", "params_by_module", "model_source")  # name the layer that changed
LAYERS = "layers"
PREDICTIONS = ".predictions"
FORMER_PREDICTIONS = ".answers"  # written before 0.1.0
SUITE_NAME = re.compile("[a-z0-9][a-z0-9_-]*")
Place = tuple[str, str]
OnNote = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One baseline file; `machine` describes the machine of its first record."""

    branch: str
    suite: str
    fingerprint: str
    machine: str
    cases: int
    runs: int
    commit: str
    measured_at: str
    path: Path


def fingerprint_of(record: Record) -> str:
    """Return 12 hex digits for the kind of machine that a record's values depend on; `any` if they depend on none."""
    return machine_of(record) if depends_on_machine(record) else ANY


def machine_of(record: Record) -> str:
    """Return 12 hex digits for the kind of machine of a record."""
    return digest(list(machine_facts(record)))


def save(
    source: Source,
    *,
    branch: str,
    root: Path = Path(),
    is_whole: bool = False,
    on_note: OnNote = lambda text: None,
) -> list[Baseline]:
    """Make the good records of `source` the baseline of `branch`, and append them to its history.

    Cases with new records are replaced; other cases of the same suite and machine stay, and `on_note` lists them. With
    `is_whole`, `source` covers the whole suite, so cases that it lacks are dropped, except those that failed and those
    of other machines. Raises InputError if there is no good record.
    """
    with open_side(source) as side:
        good = [run for case in side.cases.values() for run in case.runs]
        groups = _by_place(run for run in good if run.record.in_turns is None)
        in_turns = sum(run.record.in_turns is not None for run in good)
        left_out = f"{plural(in_turns, 'run')} of vbench ab left out: a baseline holds runs that were measured alone"
        if not groups:
            why = f": {left_out}" if in_turns else ""
            raise InputError(f"{source}: no run has a result to keep as a baseline{why}")
        if in_turns:
            on_note(left_out)
        failed = _failed(side)
        saved = _put_all(groups, branch=branch, root=root, failed=failed, is_whole=is_whole, on_note=on_note)
        _keep_former_names(side.renamed, {suite for suite, _ in groups}, branch=branch, root=root)
    there = {run.record.case_id for path in _files(root, branch) for run in _runs_at(path)}
    for case_id, failure in failed.items():
        on_note(f"{failure}: its baseline stays as it was" if case_id in there else f"{failure}: it has no baseline")
    return saved


def listed(root: Path = Path()) -> list[Baseline]:
    """Return every kept baseline, by branch, suite and machine."""
    _require_folder(root)
    return [_read(path) for path in _files(root)]


def promote(
    source: str,
    target: str,
    *,
    root: Path = Path(),
    is_whole: bool = False,
    on_note: OnNote = lambda text: None,
) -> list[Baseline]:
    """Make the baseline of branch `source` the one of `target`, and append it to the history of `target`.

    Cases that only `target` has stay, as in `save`.
    """
    if source == target:
        raise InputError(f"{source} cannot be promoted to itself")
    groups = {(known.suite, known.fingerprint): _runs_at(known.path) for known in _of_branch(source, root)}
    for suite in {suite for suite, _ in groups}:
        names = read_suite_info(_file(root / HISTORY, source, (suite, ANY)).parent).get("renamed")
        _keep_former_names(names if isinstance(names, dict) else {}, [suite], branch=target, root=root)
    return _put_all(groups, branch=target, root=root, is_whole=is_whole, on_note=on_note)


def baseline_files(text: str, head: Sequence[Record], *, across: bool = False, by_machine: bool = True) -> list[Path]:
    """Return the files that `baseline:BRANCH[:FOLDER]` means for records of `head`: those of its suites and machines.

    Raises InputError if none was saved on such a machine; `across` accepts another machine if there is only one. If no
    deciding metric depends on the machine (`by_machine` is false), the machine that was measured last is used.
    """
    branch, _, folder = text.removeprefix(PREFIX).partition(":")
    known = _of_branch(branch, Path(folder or "."))
    suites = {record.case.suite for record in head}
    found = [
        each
        for suite in sorted(suites)
        for each in _of_suite(text, known, suite, head, across=across, by_machine=by_machine)
    ]
    if suites and not found:
        raise InputError(f"{text}: there is no baseline of suite {', '.join(sorted(suites))}")
    return [each.path for each in (found if suites else known)]


def _of_suite(
    text: str, known: Sequence[Baseline], suite: str, head: Sequence[Record], *, across: bool, by_machine: bool
) -> Iterator[Baseline]:
    """Yield the baselines of one suite; of all machines if head has no machine-dependent value, to report the gap."""
    of_suite = [each for each in known if each.suite == suite]
    others = [each for each in of_suite if each.fingerprint != ANY]
    machines = {fingerprint_of(r) for r in head if r.case.suite == suite and r.is_good} - {ANY}
    here = [each for each in others if each.fingerprint in machines]
    if across and len(others) == 1:
        here = others
    if not (by_machine or here):
        here = sorted(others, key=lambda each: each.measured_at)[-1:]
    if machines and others and not here:
        raise InputError(_no_such_machine(text, suite, sorted(machines)[0], others))
    yield from here if machines else others
    yield from (each for each in of_suite if each.fingerprint == ANY)


def current_branch(folder: Path = Path()) -> str:
    """Return the branch checked out in `folder`; raises InputError if there is none, as in most CI systems."""
    _require_folder(folder)
    with suppress(OSError):
        done = run_git("-C", str(folder), "symbolic-ref", "--quiet", "--short", "HEAD")
        if done.returncode == 0:
            return done.stdout.strip()
    raise InputError(f"no branch is checked out in {folder.absolute()}; name one with --branch")


def history_files(branch: str, *, root: Path = Path()) -> list[Path]:
    """Return the history files of a branch; raises InputError if nothing was saved on it."""
    _require_folder(root)
    files = sorted((root / HISTORY / quote(branch, safe="")).glob("*/*.jsonl"))
    if not files:
        known = [unquote(path.name) for path in (root / HISTORY).glob("*")]
        hint = nearest(branch, known) or "`vbench baseline save RESULTS` appends to it"
        raise InputError(f"branch {branch!r} has no history; {hint}")
    return files


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder{path_hint(folder)}")


def _of_branch(branch: str, root: Path) -> list[Baseline]:
    known = listed(root)
    found = [each for each in known if each.branch == branch]
    if not found:
        raise UnknownNameError("baseline", branch, {each.branch for each in known}, where=str(root / BASELINES))
    return found


def _no_such_machine(text: str, suite: str, fingerprint: str, others: Sequence[Baseline]) -> str:
    known = "; ".join(f"{each.fingerprint} ({each.machine})" for each in others)
    return (
        f"{text}: suite {suite} has no baseline of machines like the one of head ({fingerprint}); there are: {known}; "
        "save one measured here, or give --across if there is only one"
    )


def _by_place(runs: Iterable[Run]) -> Mapping[Place, list[Run]]:
    groups: dict[Place, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=_order):
        groups[run.record.case.suite, fingerprint_of(run.record)].append(run)
    return groups


def _failed(side: SideRuns) -> dict[str, str]:
    """Return by id a description of each case that has only failed runs."""
    return {
        case.id: f"{one_line(case.case.title)} failed ({case.failures[-1].status})"
        for case in side.cases.values()
        if not case.runs and case.failures
    }


def _put_all(
    groups: Mapping[Place, Sequence[Run]],
    *,
    branch: str,
    root: Path,
    is_whole: bool,
    on_note: OnNote,
    failed: Collection[str] = (),
) -> list[Baseline]:
    """Write the baselines of these places, and with `is_whole` also of places that no longer have runs."""
    places = {**groups, **({place: [] for place in _places_without(groups)} if is_whole else {})}
    for place, runs in places.items():
        with store_errors(_file(root / BASELINES, branch, place), "written"):
            _put(runs, place, branch=branch, root=root, failed=failed, is_whole=is_whole, on_note=on_note)
    return [_read(_file(root / BASELINES, branch, place)) for place in groups]


def _places_without(groups: Mapping[Place, Sequence[Run]]) -> set[Place]:
    """Return the places of the same suites and machines, and of `any`, that have no runs now."""
    places = {(suite, machine_of(run.record)) for (suite, _), runs in groups.items() for run in runs}
    return (places | {(suite, ANY) for suite, _ in groups}) - groups.keys()


def _put(
    runs: Sequence[Run],
    place: Place,
    *,
    branch: str,
    root: Path,
    is_whole: bool,
    on_note: OnNote,
    failed: Collection[str],
) -> None:
    """Write `runs` into the baseline of one place, and append them to its history."""
    path, history = _file(root / BASELINES, branch, place), _file(root / HISTORY, branch, place)
    if not (runs or path.is_file()):
        return
    with _one_at_a_time(path.parent):
        for file in (path, history):
            remove_abandoned(file.parent)
        new = {run.record.case_id for run in runs}
        before = [run for run in _runs_at(path) if run.record.case_id not in new]
        tried = [run for run in before if run.record.case_id in failed]
        others = [run for run in before if run.record.case_id not in failed]
        _write(path, sorted([*runs, *tried, *([] if is_whole else others)], key=_order))
        _append(history, runs)
    if titles := list(dict.fromkeys(one_line(run.record.case.title) for run in others)):
        which = f"{plural(len(titles), 'case')} of {place[0]} not among these results: {', '.join(titles)}"
        how_to_drop = "; --whole drops what a suite no longer has"
        on_note(f"dropped {which}" if is_whole else f"kept as before {which}{how_to_drop}")


def _runs_at(path: Path) -> list[Run]:
    return [Run(record=record, folder=path.parent) for record in read_records(path)] if path.is_file() else []


def _files(root: Path, branch: str | None = None) -> list[Path]:
    """Return the baseline files under `root`, of one branch or of all."""
    name = "*" if branch is None else glob.escape(quote(branch, safe=""))
    return sorted((root / BASELINES).glob(f"{name}/*/*.jsonl"))


def _file(folder: Path, branch: str, place: Place) -> Path:
    """Return the file of a place, with the branch quoted. Raises InputError for names that cannot be folders."""
    if branch.strip() in ("", ".", ".."):
        raise InputError(f"{branch!r} cannot be the branch of a baseline; name one, such as main")
    if not SUITE_NAME.fullmatch(place[0]):
        raise InputError(f"{place[0]!r} cannot be the suite of a baseline; allowed: a-z, 0-9, _ and -")
    return folder / quote(branch, safe="") / place[0] / f"{place[1]}.jsonl"


def _read(path: Path) -> Baseline:
    records = read_records(path)
    branch, suite = unquote(path.parts[-3]), path.parts[-2]
    first = records[0] if records else None
    return Baseline(
        branch=branch,
        suite=suite,
        fingerprint=path.stem,
        machine="any machine" if first is None or path.stem == ANY else machine_name(first),
        cases=len({record.case_id for record in records}),
        runs=len(records),
        measured_at=max((record.started_at for record in records), default=""),
        commit=str((first.environment.state.get("commit") if first else None) or "unknown"),
        path=path,
    )


def machine_name(record: Record) -> str:
    """Return processor and torch of the machine of a record."""
    hardware, software = record.environment.hardware, record.environment.software
    processor = hardware.get("gpu") or hardware.get("cpu") or "unknown"
    return one_line(f"{processor}, torch {software.get('torch') or 'unknown'}")


def _slim(record: Record, artifacts: Mapping[str, str], details: Collection[str]) -> Record:
    """Return only what comparisons and histories read; with raw samples a baseline would be a hundred times as long."""
    environment = record.environment
    state = {k: v for k, v in environment.state.items() if k in KEPT_STATE or k.startswith("env.")}
    return record.model_copy(
        update={
            "metrics": tuple(map(_slim_metric, record.metrics)),
            "details": {name: value for name, value in record.details.items() if name in details},
            "environment": Environment(hardware=environment.hardware, software=environment.software, state=state),
            "warnings": (),
            "artifacts": dict(artifacts),
            "seconds": {},
        }
    )


def _slim_metric(metric: Metric) -> Metric:
    """Drop the samples if there is an interval, which is what comparisons read."""
    return metric if metric.interval is None else metric.model_copy(update={"samples": ()})


def _order(run: Run) -> tuple[str, str, int, str]:
    record = run.record
    return record.case.title, record.case_id, record.run_index, record.started_at


def _write(path: Path, runs: Sequence[Run]) -> None:
    """Replace the records at `path` atomically, and write their predictions next to it.

    A file of predictions is named by its content, so records find the right one even if this process ends halfway.
    """
    folder = path.with_suffix(PREDICTIONS)
    kept = []
    for run in runs:
        found = read_ranks(run)
        name = None if found is None else write_ranks(found, folder, prefix=run.record.case.id)
        artifacts = {} if name is None else {"predictions": f"{folder.name}/{name}"}
        kept.append(_slim(run.record, artifacts, (*KEPT_DETAILS, *KEPT_COUNTS)))
    if kept:
        write_atomically(path, b"".join(_lines(kept)))
    else:
        path.unlink(missing_ok=True)
    named = {Path(record.artifacts.get("predictions", "")).name for record in kept}
    _remove_except(named, folder)
    _remove_except((), path.with_suffix(FORMER_PREDICTIONS))


def _remove_except(named: Collection[str], folder: Path) -> None:
    """Remove the files of `folder` with other names, and the folder if it is then empty."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    others = [file for file in files if file.name not in named]
    for file in others:
        file.unlink()
    if len(others) == len(files) and files:
        folder.rmdir()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process saves into `folder`; the lock is on the folder itself, so it leaves no file."""
    folder.mkdir(parents=True, exist_ok=True)
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _append(path: Path, runs: Sequence[Run]) -> None:
    """Add lines that are not there yet, so that saving twice counts a commit once. Drops a torn last line."""
    before = path.read_bytes() if path.is_file() else b""
    whole = before[: before.rfind(b"\n") + 1]
    there = set(whole.splitlines(keepends=True))
    slim = [_slim(run.record, _keep_layers(run.record, path.parent), KEPT_DETAILS) for run in runs]
    new = [line for line in _lines(slim) if line not in there]
    if new or whole != before:
        write_atomically(path, whole + b"".join(new))


def _keep_layers(record: Record, folder: Path) -> dict[str, str]:
    """Write the counts of each module, if no file has the same ones; returns the artifact that names the file."""
    found = {name: record.details[name] for name in KEPT_COUNTS if record.details.get(name)}
    if found.keys() <= {"model_source"}:
        return {}
    name = f"{LAYERS}/{digest(found)}.json"
    if not (folder / name).is_file():
        (folder / LAYERS).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, json.dumps(found, indent=0).encode())
    return {LAYERS: name}


def _keep_former_names(renamed: Mapping[str, str], suites: Collection[str], *, branch: str, root: Path) -> None:
    """Add the former names of models to what the history of these suites knows, so that it goes on under new names."""
    for suite in suites if renamed else ():
        folder = _file(root / HISTORY, branch, (suite, ANY)).parent
        with store_errors(folder, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            known = read_suite_info(folder).get("renamed")
            names = {**(known if isinstance(known, dict) else {}), **renamed}
            write_atomically(folder / SUITE_FILE, json.dumps({"name": suite, "renamed": names}, indent=1).encode())


def _lines(records: Iterable[Record]) -> Iterator[bytes]:
    return (f"{record.model_dump_json()}\n".encode() for record in records)
