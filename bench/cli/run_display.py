"""What commands print of a run: the live display, a line for each finished run, accuracies and the summary."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from bench.cli.console import console, duration, first_line, print_table, print_text, safe_text
from bench.core.doubts import measured_text
from bench.core.registry import find_metric_spec, headlines_among
from bench.core.schema import Metric, Record
from bench.core.units import format_interval, format_value, plural

if TYPE_CHECKING:
    from bench.runner.running import Event, RunSummary

COLUMNS = 100  # of a line that reports a finished run
NO_BREAK = "\N{NO-BREAK SPACE}"


class LiveRun:
    """Shows the events of a run: a live panel in a terminal, and a line for each finished run.

    If it `is_quiet` there is no panel, and only failed runs have a line. If it `writes_report`, one of the counts and
    timings is written before the first training.
    """

    def __init__(self, *, is_quiet: bool = False, writes_report: bool = True) -> None:
        self._is_quiet, self._writes_report = is_quiet, writes_report
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
        )
        self._task = self._progress.add_task("cases", total=None, state="")
        self._now: dict[str | None, Text] = {}  # a line for each lane
        self._live: Live | None = None
        self._is_trained = False
        self._warnings = set[str]()  # repeats of a case have the same ones; each is printed once

    def show(self, event: "Event") -> None:
        self._progress.update(
            self._task,
            total=event.done + event.left,
            completed=event.done,
            state=f"failed {event.failed} · {_left(event.left_s)}",
        )
        if event.case is not None:
            state = "" if event.kind == "finished" else f" — {event.text or 'starting'}{_percent(event.fraction)}"
            self._now[event.lane] = safe_text(f"  {event.lane or 'now'}: {event.case.title}{state}")
        if self._live is not None:
            self._live.update(self._panel())
        if event.kind == "started" and event.case is not None and event.case.point.recipe is not None:
            self._report_before_training(event)
        if event.kind == "note":
            print_text(f"warning: {event.text}")
        if event.kind == "waiting" and not self._is_quiet:
            print_text(event.text)
        if event.kind == "finished" and event.record is not None:
            if not (self._is_quiet and event.record.is_good):
                print_text(_line(event.record, number=event.done, total=event.done + event.left))
            if not self._is_quiet:
                self._print_new_warnings(event.record)

    def _print_new_warnings(self, record: Record) -> None:
        for warning in record.warnings:
            if warning.what not in self._warnings:
                self._warnings.add(warning.what)
                print_text(f"  warning: {warning.what}{f'; {warning.remedy}' if warning.remedy else ''}")

    def _report_before_training(self, event: "Event") -> None:
        """Write a report of the counts and timings before the first training, which takes longest."""
        if not self._is_trained and event.done and self._writes_report and not self._is_quiet:
            print_text(f"report of the counts and timings so far: {write_report(event.folder)}")
        self._is_trained = True

    def _panel(self) -> RenderableType:
        return Group(self._progress, *(self._now[lane] for lane in sorted(self._now, key=str)))

    @contextmanager
    def running(self) -> Iterator["LiveRun"]:
        if self._is_quiet or not console.is_terminal:
            yield self
            return
        with Live(self._panel(), console=console, refresh_per_second=4, transient=True) as self._live:
            yield self
        self._live = None


def show_accuracy(record: Record, *, folder: Path) -> None:
    """Print the metrics of one accuracy with their intervals, and the paths of its files."""
    print_text(record.case.title)
    rows = [(m.key, format_value(m.value, m.unit), _interval(m)) for m in record.metrics if m.value is not None]
    print_table(("metric", "value", "95 % interval"), rows, right=("value",))
    for name, path in record.artifacts.items():
        print_text(f"  {name}: {folder / path}")


def show_stored_accuracy(records: Sequence[Record], *, folder: Path) -> None:
    """Print accuracies of an earlier run, when they were measured, on which videos and on which machine."""
    for record in records:
        show_accuracy(record, folder=folder)
        hardware, software = record.environment.hardware, record.environment.software
        protocol = record.details.get("protocol")
        facts = protocol if isinstance(protocol, dict) else {}
        videos = (
            f"{facts.get('videos')} videos of {facts.get('dataset')} {facts.get('split')}"
            if facts
            else "unknown videos"
        )
        machine = f"{hardware.get('gpu') or hardware.get('cpu') or 'unknown machine'}, torch {software.get('torch')}"
        print_text(
            f"stored result: measured {record.started_at} on {videos}, {machine}; nothing it depends on has changed"
        )


def _interval(metric: Metric) -> str:
    if metric.interval is None or metric.value is None:
        return ""
    return format_interval(*metric.interval, beside=metric.value, unit=metric.unit)


def _line(record: Record, *, number: int, total: int) -> str:
    """One finished run: its status, case, time, and headline metrics or error; wrapped at 100 columns."""
    head = f"[{number}/{total}] {record.status:9} {record.case.title} ({duration(record.seconds['whole'])})"
    if record.is_good:
        parts = list(_headline_texts(record))
    else:
        parts = [f"{record.error.type}: {first_line(record.error.message)}"] if record.error else []
    if not parts:
        return head
    indent = " " * (head.index("]") + 2)
    # A value stays on one line with its unit: textwrap does not break at no-break spaces.
    text = f"{head}: " + "; ".join(part.replace(" ", NO_BREAK) if record.is_good else part for part in parts)
    lines = wrap(text, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ")


def _headline_texts(record: Record) -> Iterator[str]:
    """`Latency 20.1 ms`, `Throughput, batch 8: 50 clips/s`: the headline metrics that have a value."""
    known = [metric for metric in record.metrics if metric.value is not None and "change" not in metric.labels]
    wanted = headlines_among((metric.name, metric.better) for metric in known)
    for metric in known:
        if metric.name in wanted:
            spec = find_metric_spec(metric.name)
            labels = "".join(f", {name} {value}" for name, value in sorted(metric.labels.items()))
            title = f"{spec.title if spec else metric.name}{f'{labels}:' if labels else ''}"
            yield f"{title} {measured_text(record, metric)}"


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f" {fraction:.0%}"


def print_summary(summary: "RunSummary") -> None:
    """Print how many runs were measured, and for each failed one why and where its log is."""
    if summary.left_out:
        left_out = f"{plural(summary.left_out, 'run')} had no time left in the budget"
        print_text(f"{left_out}; the same command goes on with them")
    if summary.is_idle:
        print_text(f"{summary.suite}: all {summary.skipped} runs were done before; nothing was measured")
        return
    print_text(
        f"{summary.suite}: {summary.measured} measured, {summary.failures} failed, {summary.skipped} were done before"
    )
    for record in summary.failed if summary.failures else ():
        why = f"{record.error.type}: {first_line(record.error.message)}" if record.error else ""
        print_text(
            f"  {record.status}: {record.case.title}: {why}\n    log: {summary.folder / record.artifacts['log']}"
        )


def print_prediction_files(summary: "RunSummary") -> None:
    """Print where the predictions were stored, and the command that analyses them."""
    kept = sorted({r.artifacts["predictions"] for r in summary.finished if "predictions" in r.artifacts})
    if len(kept) == 1:
        print_text(f"predictions of every video: vbench predictions {quote(str(summary.folder / kept[0]))}")
    elif kept:
        folder = quote(str(summary.folder))
        print_text(
            f"predictions of every video are stored for {len(kept)} cases: vbench predictions {folder} lists them"
        )


def first_finding(folder: Path) -> str | None:
    """Return the first sentence of the report's summary; None if nothing was compared."""
    from bench.reporting.findings import ablation_findings, chance_findings, leader_findings
    from bench.reporting.site import read_results

    results = read_results(folder)
    findings = [finding for ablation in results.ablations for finding in ablation_findings(ablation)]
    return next(iter([*chance_findings(results.board), *findings, *leader_findings(results.board)]), None)


def write_report(folder: Path) -> Path:
    """Write the report of one results folder into its subfolder `report`; returns the page."""
    from bench.reporting.site import report

    return report(folder, out=folder / "report")
