"""What commands print of a run: the live display, a line for each finished run, accuracies and the summary."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from textwrap import wrap
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.cli.console import console, duration, first_line, print_table, print_text, safe_text
from bench.core.doubts import measured_text
from bench.core.registry import find_metric_spec, headlines_among
from bench.core.schema import Metric, Record
from bench.core.units import format_interval, format_value, plural

if TYPE_CHECKING:
    from bench.runner.running import Event, RunSummary

COLUMNS = 100  # of the live panel, and of a line that reports a finished run
LAST_RESULTS = 3  # shown in the panel; older ones scroll away above it
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, kw_only=True)
class LaneRow:
    """What a device or worker does: a run of a case since `started`, or nothing if `run` is None."""

    run: tuple[str, int | None] | None = None
    title: str = ""
    state: str = "idle"
    started: float = 0.0
    log: Path | None = None


class LiveRun:
    """Shows the events of a run: a live panel in a terminal, and a line for each finished run.

    The panel has a row for each device or worker, the last results, and where the logs are. If the display `is_quiet`
    there is no panel, and only failed runs have a line. If it `writes_report`, one of the counts and timings is written
    before the first training.
    """

    def __init__(
        self, *, is_quiet: bool = False, writes_report: bool = True, clock: Callable[[], float] = monotonic
    ) -> None:
        self._is_quiet, self._writes_report, self._clock = is_quiet, writes_report, clock
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            get_time=clock,
        )
        self._task = self._progress.add_task("cases", total=None, state="")
        # Replaced, never changed in place: the thread that draws the panel reads them.
        self._lanes: dict[str | None, LaneRow] = {}
        self._last: tuple[str, ...] = ()
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
        self._show_lane(event)
        if event.kind == "started" and event.case is not None and event.case.point.recipe is not None:
            self._report_before_training(event)
        if event.kind == "note":
            print_text(f"warning: {event.text}")
        if event.kind == "waiting" and not self._is_quiet:
            print_text(event.text)
        if event.kind == "finished" and event.record is not None:
            self._show_result(event.record, number=event.done, total=event.done + event.left)

    def _show_lane(self, event: "Event") -> None:
        if event.case is None:
            return
        run = event.case.id, event.run_index
        if event.kind in ("started", "finished"):
            # Another worker may take over the run of one that died, and records do not name their worker.
            self._lanes = {lane: LaneRow() if row.run == run else row for lane, row in self._lanes.items()}
        if event.kind == "finished":
            return
        known = self._lanes.get(event.lane)
        row = LaneRow(
            run=run,
            title=event.case.title,
            state=f"{_percent(event.fraction)}{event.text or 'starting'}",
            started=known.started if known is not None and known.run == run else self._clock(),
            log=event.folder / "logs" / f"{event.case.id}.log",
        )
        self._lanes = {**self._lanes, event.lane: row}

    def _show_result(self, record: Record, *, number: int, total: int) -> None:
        """Print the line of a finished run and its new warnings; in the panel first, if there is one."""
        lines = []
        if not (self._is_quiet and record.is_good):
            lines.append(_line(record, number=number, total=total))
        for warning in () if self._is_quiet else record.warnings:
            if warning.what not in self._warnings:
                self._warnings.add(warning.what)
                lines.append(f"  warning: {warning.what}{f'; {warning.remedy}' if warning.remedy else ''}")
        if self._live is None:
            for line in lines:
                print_text(line)
            return
        results = (*self._last, "\n".join(lines))
        self._last = results[-LAST_RESULTS:]
        for text in results[:-LAST_RESULTS]:
            print_text(text)

    def _report_before_training(self, event: "Event") -> None:
        """Write a report of the counts and timings before the first training, which takes longest."""
        if not self._is_trained and event.done and self._writes_report and not self._is_quiet:
            print_text(f"report of the counts and timings so far: {write_report(event.folder)}")
        self._is_trained = True

    def _panel(self) -> RenderableType:
        """Progress, a row for each device or worker, the last results and the logs, in at most 100 columns."""
        parts: list[RenderableType] = [self._progress]
        lanes = self._lanes
        if lanes:
            parts.append(_lane_table(lanes, now=self._clock()))
        parts += map(safe_text, self._last)
        logs = [row.log for row in lanes.values() if row.log is not None]
        if logs:
            parts.append(safe_text(f"log: {logs[0]}" if len(lanes) == 1 else f"logs: {logs[0].parent}"))
        return Constrain(Group(*parts), COLUMNS)

    @contextmanager
    def running(self) -> Iterator["LiveRun"]:
        if self._is_quiet or not console.is_terminal:
            yield self
            return
        try:
            with Live(get_renderable=self._panel, console=console, refresh_per_second=4, transient=True) as self._live:
                yield self
        finally:  # the panel is gone, and its results stay as lines
            self._live = None
            for text in self._last:
                print_text(text)
            self._last = ()


def _lane_table(lanes: Mapping[str | None, LaneRow], *, now: float) -> Table:
    """The devices or workers, what each does and for how long. The only lane of a plain run has no name."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    has_names = any(lane is not None for lane in lanes)
    if has_names:
        table.add_column("device or worker", no_wrap=True, max_width=24)
    table.add_column("case", no_wrap=True, ratio=3)
    table.add_column("state", no_wrap=True, ratio=2)
    table.add_column("elapsed", no_wrap=True, justify="right", min_width=7)
    for lane, row in sorted(lanes.items(), key=lambda item: item[0] or ""):
        elapsed = "" if row.run is None else duration(now - row.started)
        cells = (row.title, row.state, elapsed)
        table.add_row(*(safe_text(cell) for cell in ((lane or "this process", *cells) if has_names else cells)))
    return table


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
    return format_interval(*metric.interval, value=metric.value, unit=metric.unit)


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
    return "" if fraction is None else f"{fraction:.0%} "  # first, because a narrow terminal cuts the text


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
