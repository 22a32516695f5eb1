"""What people see in a terminal: a live run, tables, one line for an error. Only `cli.py` uses it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bench.schema import Json, Metric, ModelFacts, Probe, Record

if TYPE_CHECKING:
    from bench.execution.running import Event

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print plain text; markup in names of models and files is not interpreted."""
    console.print(Text(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` are numbers. On a pipe, full width without borders."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        grid.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    width = None if console.is_terminal else max(200, console.width)
    console.print(grid, width=width)


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


@contextmanager
def counting_progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while models are counted for the first time; nothing on a pipe."""
    if not errors.is_terminal:
        yield None
        return
    bar = Progress(TextColumn("counting models"), BarColumn(), MofNCompleteColumn(), console=errors, transient=True)
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_models(rows: Sequence[tuple[ModelFacts, Probe]]) -> None:
    """The table of `vbench models`."""
    table(
        ("model", "family", "clip", "params M", "GMACs", "paper"),
        [
            (model.name, model.family, model.clip, _scaled(probe.params, 1e6), _scaled(probe.macs, 1e9), model.paper)
            for model, probe in rows
        ],
        right=("params M", "GMACs"),
    )
    say(f"{len(rows)} models. Counts: batch 1, at the clip shown (frames x stride x size); 1 MAC = 2 FLOPs.")
    for model, probe in rows:
        if probe.problem or probe.note:
            say(f"  {model.name} was not counted: {probe.problem or probe.note}")


def show_model(model: ModelFacts, probe: Probe) -> None:
    """All that is known of one model."""
    say(f"{model.name}: {model.summary}")
    facts = {
        "family": model.family,
        "paper": model.paper or None,
        "default clip": model.clip,
        "params": None if probe.params is None else f"{probe.params:,}",
        "MACs": None if probe.macs is None else f"{probe.macs:,} (forward, batch 1, at the default clip)",
    }
    table(("", ""), list(facts.items()))
    say("arguments:")
    table(("name", "default"), [(name, repr(default)) for name, default in model.arguments.items()])
    if probe.problem or probe.note:
        say(f"not counted: {probe.problem or probe.note}")


def _scaled(value: int | None, unit: float) -> str | None:
    return None if value is None else f"{value / unit:.2f}"


def duration(seconds: float) -> str:
    """`0:04:10`, or `12 s` below two minutes."""
    return f"{round(seconds)} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def amount(metric: Metric) -> str:
    """A metric's value with its unit, short: `38.547 GMACs`, `12.3 ms`, `–` for unknown."""
    return quantity(metric.value, metric.unit)


def quantity(value: Json, unit: str) -> str:
    """A number with its unit, short; `–` where it is unknown."""
    if value is None or isinstance(value, str | list | dict):
        return "–"
    if unit in ("MACs", "B", "", "params"):
        for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.4g} {prefix}{unit}".rstrip()
        return f"{value:g} {unit}".rstrip()
    return f"{value:.4g} {unit}".rstrip()


def show_error(message: str) -> None:
    """One clear text on standard error."""
    errors.print(Text(f"vbench: {message}"), soft_wrap=True)


def _line(record: Record, *, number: int, total: int) -> str:
    shown = [f"{_label(metric)} {amount(metric)}" for metric in record.metrics if metric.better][:6]
    what = (
        "; ".join(shown)
        if record.is_good
        else f"{record.error.type}: {first_line(record.error.message)}"
        if (record.error)
        else ""
    )
    return f"[{number}/{total}] {record.status:9} {record.case.title} ({duration(record.seconds['whole'])}): {what}"


def first_line(text: str) -> str:
    return text.split("\n")[0]


def _label(metric: Metric) -> str:
    return metric.key.replace("latency.", "").replace("throughput.", "")


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f" {fraction:.0%}"


def is_interactive() -> bool:
    return bool(console.is_terminal) and sys.stdin.isatty()


def as_json(value: Any) -> None:
    """Print JSON for machines on standard output, unwrapped and uncoloured."""
    import json

    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
