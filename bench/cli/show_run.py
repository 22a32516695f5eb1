"""A run of a suite as it goes: a live panel in a terminal, one line a case elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from bench.cli.console import console, duration, first_line, say, table
from bench.core.schema import Metric, Record
from bench.core.units import figure, figure_span

if TYPE_CHECKING:
    from bench.runner.running import Event, RunSummary


class LiveRun:
    """Shows the events of a run: a live panel in a terminal, one line a case elsewhere."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
        )
        self._task = self._progress.add_task("cases", total=None, state="")
        self._now = Text("")
        self._live: Live | None = None

    def show(self, event: "Event") -> None:
        self._progress.update(
            self._task,
            total=event.done + event.left,
            completed=event.done,
            state=f"failed {event.failed} · about {duration(event.left_s)} left",
        )
        if event.case is not None:
            self._now = Text(f"  now: {event.case.title} — {event.text or 'starting'}{_percent(event.fraction)}")
        if self._live is not None:
            self._live.update(self._panel())
        if event.kind == "finished" and event.record is not None:
            say(_line(event.record, number=event.done, total=event.done + event.left))

    def _panel(self) -> RenderableType:
        return Group(self._progress, self._now)

    @contextmanager
    def running(self) -> Iterator["LiveRun"]:
        if not console.is_terminal:
            yield self
            return
        with Live(self._panel(), console=console, refresh_per_second=4, transient=True) as self._live:
            yield self
        self._live = None


def show_accuracy(record: Record, *, folder: Path) -> None:
    """The figures of one accuracy with their intervals, and where its files are."""
    say(record.case.title)
    rows = [(m.key, figure(m.value, m.unit), _interval(m)) for m in record.metrics if m.value is not None]
    table(("metric", "value", "95 % interval"), rows, right=("value",))
    for name, path in record.artifacts.items():
        say(f"  {name}: {folder / path}")


def _interval(metric: Metric) -> str:
    if metric.interval is None or metric.value is None:
        return ""
    return figure_span(*metric.interval, beside=metric.value, unit=metric.unit)


def _line(record: Record, *, number: int, total: int) -> str:
    shown = [f"{_label(metric)} {figure(metric.value, metric.unit)}" for metric in record.metrics if metric.better][:6]
    what = (
        "; ".join(shown)
        if record.is_good
        else f"{record.error.type}: {first_line(record.error.message)}"
        if (record.error)
        else ""
    )
    return f"[{number}/{total}] {record.status:9} {record.case.title} ({duration(record.seconds['whole'])}): {what}"


def _label(metric: Metric) -> str:
    return metric.key.replace("latency.", "").replace("throughput.", "")


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f" {fraction:.0%}"


def say_summary(summary: "RunSummary") -> None:
    """Say what a run of a suite measured, and of what failed why and where its log is."""
    if not summary.finished:
        say(f"{summary.suite}: all {summary.skipped} runs were done before; nothing was measured")
        return
    done = len(summary.finished) - len(summary.failed)
    say(f"{summary.suite}: {done} measured, {len(summary.failed)} failed, {summary.skipped} were done before")
    for record in summary.failed:
        why = f"{record.error.type}: {first_line(record.error.message)}" if record.error else ""
        say(f"  {record.status}: {record.case.title}: {why}\n    log: {summary.folder / record.artifacts['log']}")


def say_predictions(summary: "RunSummary") -> None:
    """Where the scores of every video were kept, and the command that questions them."""
    kept = sorted({r.artifacts["predictions"] for r in summary.finished if "predictions" in r.artifacts})
    if len(kept) == 1:
        say(f"scores of every video: vbench predictions {quote(str(summary.folder / kept[0]))}")
    elif kept:
        folder = quote(str(summary.folder))
        say(f"scores of every video are kept for {len(kept)} cases: vbench predictions {folder} names their files")


def write_report(folder: Path) -> Path:
    """The report of one results folder, below it."""
    from bench.reporting.site import report

    return report(folder, out=folder / "report")
