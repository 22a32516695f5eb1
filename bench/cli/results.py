"""The commands `vbench results …`: list, show, export, merge, prune, repair and scrub stored records."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import typer

from bench.cli.arguments import AsJson, check_writable
from bench.cli.console import first_line, print_exported, print_json, print_note, print_table, print_text
from bench.core.control_characters import visible
from bench.core.doubts import measured_text
from bench.core.errors import InputError, StoreError, suggest
from bench.core.privacy import without_identity
from bench.core.schema import Metric, Record
from bench.core.spreadsheet import csv_text
from bench.core.units import format_value, plural
from bench.store import (
    RECORDS,
    ListedRun,
    RecordStore,
    is_of_runs,
    latest_runs,
    list_runs,
    load_records,
    read_records,
    record_files,
)
from bench.store.leases import Leases

results_app = typer.Typer(
    name="results", no_args_is_help=True, help="Stored results: list, show, export, merge, prune, repair, scrub."
)

Results = Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results folders or records files.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
LISTED_WHOLE_BYTES = 16 << 20  # above this, a list reads columns instead of whole records, which takes a fifth
HEADLINES = 3  # metrics in a row of a list
Format = Literal[
    "csv", "jsonl", "markdown", "latex", "parquet", "github-action-benchmark", "bencher", "hf-eval-results"
]


@results_app.command("list")
def list_results(results: Results, as_json: AsJson = False) -> None:
    """List the stored runs: case, run, status, when, and the first metrics."""
    if sum(file.stat().st_size for file in _found(results)) < LISTED_WHOLE_BYTES:
        listed = ((_listed(record), _headline(record)) for record in read_records(results))
    else:
        runs = list_runs(results, headlines=None if as_json else HEADLINES)
        listed = ((run, "" if as_json else _headline_of_columns(run)) for run in runs)
    if as_json:
        print_json([_summary(run) for run, _ in listed])
        return
    rows = [
        (run.case_id, str(run.run_index), run.status, run.started_at, run.title, headline) for run, headline in listed
    ]
    print_table(("case", "run", "status", "started", "point", "metrics"), rows, right=("run",))


@results_app.command("show")
def show_result(
    results: Results,
    case: Annotated[str, typer.Option("--case", help="Id of the case, or its first digits: prints it as JSON.")] = "",
    run: Annotated[int | None, typer.Option("--run", help="Number of the run; all if not given.")] = None,
) -> None:
    """Show the leaderboard and the ablations, or everything that is recorded of one case."""
    if not case and run is None:
        from bench.cli.results_board import print_board
        from bench.reporting.site import read_results

        print_board(read_results(results))
        return
    records = read_records(results)
    ids = {record.case_id for record in records if record.case_id.startswith(case)}
    if len(ids) != 1:
        known = {record.case_id for record in records}
        problem = f"{len(ids)} cases begin with {case!r}" if ids else f"no case begins with {case!r}"
        raise InputError(f"{problem}; give --case; {suggest(case, known)}")
    found = [r for r in records if r.case_id in ids and run in (None, r.run_index)]
    if not found:
        raise InputError(f"case {ids.pop()} has no run {run}")
    print_json([record.model_dump(mode="json") for record in found])


@results_app.command("export")
def export_results(
    results: Results,
    to: Annotated[Format, typer.Option("--to", help="The format.")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", help="The file; standard output if not given.")] = None,
) -> None:
    """Export stored metrics for other tools, one row per metric."""
    if to == "parquet":
        if out is None:
            raise InputError("a Parquet file cannot go to standard output; name a file with --out")
        check_writable(out)
        load_records(results).to_parquet(out)
        return
    text = EXPORTS[to](read_records(results))
    if out is None:
        print_exported(text)
    else:
        check_writable(out)
        out.write_text(text, encoding="utf-8")


@results_app.command("merge")
def merge_results(
    results: Results, out: Annotated[Path, typer.Option("--out", help="Results folder for the merged records.")]
) -> None:
    """Merge the results of several folders into one: records, and the predictions, logs and trainings that they name.

    A run that both have is taken once.
    """
    from bench.store.merging import merge_results as merge

    merged = merge(results, out)
    for note in merged.notes:
        print_note(note)
    files = f" and {plural(merged.files, 'file')}" if merged.files else ""
    print_text(f"{plural(merged.records, 'record')}{files} added to {out}")


@results_app.command("prune")
def prune_results(results: Results, dry_run: DryRun = False) -> None:
    """Remove records of a run that was repeated: failures, and all but the first good one."""
    for folder, files in _by_folder(results).items():
        with _held(folder):
            records = {file: read_records(file) for file in files}
            in_time = sorted((record for each in records.values() for record in each), key=lambda each: each.started_at)
            latest = set(map(id, latest_runs(in_time)))  # a worker may have repeated the run of another
            for file, own in records.items():
                kept = [record for record in own if id(record) in latest]
                if len(kept) < len(own) and not dry_run:
                    RecordStore.of(file).replace(kept)
                removed = plural(len(own) - len(kept), "record")
                print_text(f"{file}: {removed} {_would(dry_run)}removed, {len(kept)} stay")


@results_app.command("repair")
def repair_results(results: Results) -> None:
    """Move damaged lines into `records.damaged`, so that everything else can be read without a warning."""
    for folder, files in _by_folder(results).items():
        with _held(folder):
            for file in files:
                print_text(RecordStore.of(file).repair() or f"{file}: nothing is damaged")


@results_app.command("scrub")
def scrub_results(results: Results, dry_run: DryRun = False) -> None:
    """Remove secrets, home folders and host names from records, logs and other texts of results folders."""
    from bench.store.scrubbing import scrub_files

    for folder, files in _by_folder(results).items():
        with _held(folder):
            for file in files:
                store = RecordStore.of(file)
                records = store.raw_records()
                clean = [without_identity(record) for record in records]
                changed = sum(after != before for before, after in zip(records, clean, strict=True))
                if changed and not dry_run:
                    store.replace(clean)
                print_text(f"{file}: {plural(changed, 'record')} {_would(dry_run)}cleaned")
            others = scrub_files(folder, dry_run=dry_run)  # last: damaged lines were moved aside
        if others:
            print_text(f"{folder}: {plural(len(others), 'other file')} {_would(dry_run)}cleaned")


def _found(results: Iterable[Path]) -> list[Path]:
    return [file for source in results for file in record_files(source)]


def _by_folder(results: Iterable[Path]) -> dict[Path, list[Path]]:
    """The records files of results folders by folder; a file of another name is not changed."""
    found: dict[Path, list[Path]] = {}
    for file in _found(results):
        if not is_of_runs(file.name):
            raise InputError(f"{file} is not called {RECORDS}; only results folders are changed")
        found.setdefault(file.parent, []).append(file)
    return found


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a results folder while its records are changed; raises StoreError if a run or worker appends to them."""
    with RecordStore(folder).lock():
        for lease in Leases(folder, worker="results").states():
            if not lease.has_expired:
                who = f"worker {lease.facts.worker} of {lease.facts.host}"
                raise StoreError(f"{folder} is in use by {who}; wait until `vbench status {folder}` names none")
        yield


def _would(dry_run: bool) -> str:
    return "would be " if dry_run else ""


def _summary(run: ListedRun) -> dict[str, Any]:
    return {
        "case_id": run.case_id,
        "run_index": run.run_index,
        "status": run.status,
        "started_at": run.started_at,
        "title": run.title,
        "error": run.error_message,
        "metrics": {key: value for key, value, _, _ in run.metrics},
    }


def _listed(record: Record) -> ListedRun:
    return ListedRun(
        case_id=record.case_id,
        run_index=record.run_index,
        status=record.status,
        started_at=record.started_at,
        title=record.case.title,
        error_type=record.error.type if record.error else None,
        error_message=record.error.message if record.error else None,
        metrics=[(metric.key, metric.value, metric.unit, metric.better) for metric in record.metrics],
    )


def _headline(record: Record) -> str:
    if record.error is not None:
        return f"{record.error.type}: {first_line(record.error.message)}"
    shown = [metric for metric in record.metrics if metric.better and metric.value is not None][:HEADLINES]
    return "; ".join(f"{metric.key} {measured_text(record, metric)}" for metric in shown)


def _headline_of_columns(run: ListedRun) -> str:
    """As `_headline`, without the samples: a doubt about a value shows in the status of the run alone."""
    if run.error_type is not None:
        return f"{run.error_type}: {first_line(run.error_message or '')}"
    shown = [(key, value, unit) for key, value, unit, better in run.metrics if better and value is not None][:HEADLINES]
    return "; ".join(f"{key} {format_value(value, unit)}" for key, value, unit in shown)


COLUMNS = ("suite", "case_id", "case", "run", "status", "metric", "value", "low", "high", "unit")


def _rows(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for record in records:
        about = (record.case.suite, record.case_id, record.case.title, record.run_index, record.status)
        for metric in record.metrics:
            low, high = metric.interval or (None, None)
            rows.append((*about, metric.key, metric.value, low, high, metric.unit))
        if not record.metrics:
            rows.append((*about, None, None, None, None, None))
    return rows


def _as_csv(records: Iterable[Record]) -> str:
    return csv_text(COLUMNS, _rows(records))


def _as_jsonl(records: Iterable[Record]) -> str:
    return "".join(record.model_dump_json() + "\n" for record in records)


def _as_markdown(records: Iterable[Record]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in _rows(records):
        cells = ("" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return visible("\n".join(lines)) + "\n"


LATEX_NAMES = {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}", "\n": " ", "\r": " "}
LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | LATEX_NAMES)


def _as_latex(records: Iterable[Record]) -> str:
    lines = [r"\begin{tabular}{llllllrrrl}", " & ".join(name.translate(LATEX) for name in COLUMNS) + r" \\", r"\hline"]
    for row in _rows(records):
        cells = ("" if cell is None else str(cell).translate(LATEX) for cell in row)
        lines.append(" & ".join(cells) + r" \\")
    return visible("\n".join([*lines, r"\end{tabular}", ""]))


def _as_github_action_benchmark(records: Iterable[Record]) -> str:
    """`customSmallerIsBetter` and `customBiggerIsBetter` of benchmark-action/github-action-benchmark in one list.

    That action takes one direction per file; `extra` says which one a metric has.
    """
    entries = [
        {
            "name": f"{record.case.title} {metric.key}",
            "unit": metric.unit,
            "value": metric.value,
            **({"range": f"{metric.interval[0]:.6g} to {metric.interval[1]:.6g}"} if metric.interval else {}),
            "extra": f"{metric.better} is better",
        }
        for record in records
        for metric in record.metrics
        if metric.value is not None and metric.better is not None
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _as_bencher(records: Iterable[Record]) -> str:
    """Bencher Metric Format: benchmark → measure → value with bounds.

    Of a case that was run several times it is the median, and the bounds are the lowest and highest value.
    """
    found: dict[str, dict[str, list[Metric]]] = {}
    for record in records:
        for metric in record.metrics:
            if metric.value is not None and metric.better is not None:
                found.setdefault(record.case.title, {}).setdefault(metric.key, []).append(metric)
    entries = {
        title: {key: _bencher_entry(metrics) for key, metrics in by_key.items()} for title, by_key in found.items()
    }
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _bencher_entry(metrics: Sequence[Metric]) -> dict[str, float]:
    values = [metric.value for metric in metrics if metric.value is not None]
    low, high = (metrics[0].interval or (None, None)) if len(metrics) == 1 else (min(values), max(values))
    bounds = {"lower_value": low, "upper_value": high}
    return {"value": median(values), **{key: bound for key, bound in bounds.items() if bound is not None}}


def _as_hf_eval_results(records: Iterable[Record]) -> str:
    """`model-index` entries of Hugging Face model cards, for accuracies; YAML is a superset of this JSON."""
    entries = [
        {
            "name": record.case.point.model,
            "results": [
                {
                    "task": {"type": "video-classification"},
                    "dataset": {"name": str(record.case.point.dataset), "type": str(record.case.point.dataset)},
                    "metrics": [
                        {"name": metric.key, "type": "accuracy", "value": metric.value}
                        for metric in record.metrics
                        if metric.is_share and metric.value is not None
                    ],
                }
            ],
        }
        for record in records
        if record.is_good and any(metric.is_share for metric in record.metrics)
    ]
    return json.dumps({"model-index": entries}, indent=2, ensure_ascii=False) + "\n"


EXPORTS: dict[str, Callable[[Iterable[Record]], str]] = {
    "csv": _as_csv,
    "jsonl": _as_jsonl,
    "markdown": _as_markdown,
    "latex": _as_latex,
    "github-action-benchmark": _as_github_action_benchmark,
    "bencher": _as_bencher,
    "hf-eval-results": _as_hf_eval_results,
}
