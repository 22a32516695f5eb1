"""The commands `run`, `plan` and `report`, and the live display of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from textwrap import wrap
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from bench.cli.arguments import AsJson, RecipeChanges, WaitIdle, wait_idle_seconds
from bench.cli.console import console, duration, first_line, print_json, print_table, print_text, safe_text
from bench.core.doubts import measured_text
from bench.core.errors import InputError
from bench.core.registry import find_metric_spec, headlines_among
from bench.core.schema import Metric, Record
from bench.core.units import format_interval, format_value

if TYPE_CHECKING:
    from bench.core.yaml_tree import Tree
    from bench.runner.running import Event, Plan, Rerun, RunSummary


COLUMNS = 100  # of a line that reports a finished run
NO_BREAK = "\N{NO-BREAK SPACE}"
SuitePath = Annotated[
    Path, typer.Argument(metavar="SUITE", help="A suite file, or the name of a suite of vbench such as quickstart.")
]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Results folder; results/<suite> if not given.")]
Small = Annotated[bool, typer.Option("--small", help="The suite's small form: synthetic data, minutes on a CPU.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run code of a suite that lies outside the working folder; see SECURITY.md.")
]
Identify = Annotated[
    bool, typer.Option("--identify", help="Keep home folders and host names in records, which hide them otherwise.")
]


def run(
    suite: SuitePath,
    out: OutFolder = None,
    small: Small = False,
    rerun: Annotated[
        str | None,
        typer.Option(help="Which stored runs are repeated: stale, failed or all; stale and failed ones if not given."),
    ] = None,
    changes: RecipeChanges = None,
    wait_idle: WaitIdle = None,
    trust: Trust = False,
    identify: Identify = False,
) -> None:
    """Run the pending cases of a suite, then write its report.

    Code of the suite runs: its plug-ins and `module:factory` models.
    """
    from bench.runner.running import run as run_suite

    wait_idle_s = wait_idle_seconds(wait_idle)
    tree = read_trusted_suite(suite, small=small, trust=trust, changes=changes)
    with LiveRun().running() as live:
        summary = run_suite(
            tree,
            out=out,
            small=small,
            identify=identify,
            rerun=_rerun(rerun),
            wait_idle_s=wait_idle_s,
            on_event=live.show,
        )
    for note in summary.notes:
        print_text(note)
    say_summary(summary)
    say_predictions(summary)
    report_page = write_report(summary.folder)
    if finding := first_finding(summary.folder):
        print_text(finding)
    print_text(f"report: {report_page}")
    raise typer.Exit(summary.exit_code)


def plan(
    suite: SuitePath,
    out: OutFolder = None,
    small: Small = False,
    changes: RecipeChanges = None,
    trust: Trust = False,
    as_json: AsJson = False,
    why: Annotated[bool, typer.Option("--why", help="Explain why each pending run would run.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="List only stale results, and what changed.")] = False,
) -> None:
    """Show the cases of a suite, which are done, and about how long the rest takes.

    Code of the suite runs: its plug-ins and `module:factory` models.
    """
    from bench.runner.running import plan as plan_suite

    tree = read_trusted_suite(suite, small=small, trust=trust, changes=changes)
    planned = plan_suite(tree, out=out, small=small)
    if as_json:
        print_json(_plan_facts(planned))
    elif stale:
        _print_reasons(planned, only="stale")
    else:
        _show_plan(planned)
        if why:
            _print_reasons(planned)


def _rerun(text: str | None) -> "Rerun | None":
    from bench.core.errors import UnknownNameError
    from bench.runner.running import RERUNS

    for choice in RERUNS:
        if text == choice:
            return choice
    if text is not None:
        raise UnknownNameError("choice", text, RERUNS, where="--rerun")
    return None


def read_trusted_suite(suite: Path, *, small: bool, trust: bool, changes: Sequence[str] | None = None) -> "Tree":
    """Read a suite and apply `changes` to its recipes.

    Raises InputError if the suite would run code, lies elsewhere, and `trust` is not given.
    """
    from bench.suite import change_recipes, read_suite
    from bench.suite.trust import check_trust, trust_folder_of

    tree = change_recipes(read_suite(suite, small=small), changes or [])
    if trust:
        trust_folder_of(Path(tree.position(()).file))
    else:
        check_trust(tree)
    return tree


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results folders or records files.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the site, or the single file; report, or report.html.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the site.")] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write one HTML file with everything inside, such as for a mail.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the site again after every new record; open pages follow.")
    ] = False,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", metavar="MODULE", help="A module with sections of your own.")
    ] = None,
) -> None:
    """Write an HTML report of stored results: a folder of pages over data files, or a single file."""
    from bench.core.registry import import_plugins
    from bench.reporting.site import report as write_site

    import_plugins(plugin or [])
    place = out or Path("report.html" if single_file else "report")
    if watch and single_file:
        raise InputError("--watch writes a folder, and --single-file one file; give one of them")
    if watch:
        from bench.reporting.watching import watch as write_again

        write_again(
            results, out=place, title=title, wait=sleep, on_written=lambda index: print_text(f"report: {index}")
        )
    print_text(f"report: {write_site(results, out=place, title=title, single_file=single_file)}")


def _plan_facts(planned: "Plan") -> dict[str, Any]:
    pending = planned.pending
    left = {(case.id, index) for case, index in pending}
    reasons, estimate = planned.reasons(), planned.estimate()
    return {
        "suite": planned.suite.name,
        "out": str(planned.store.folder),
        "runs": sum(case.runs for case in planned.suite.cases),
        "left": len(pending),
        "estimate_s": None if estimate.unknown else round(estimate.left_s, 1),
        "unknown": estimate.unknown,
        "absent": list(planned.absent),
        "other_environments": planned.other_environments(),
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "measures": list(case.measures),
                "runs": case.runs,
                "left": sum((case.id, index) in left for index in range(case.runs)),
                "why": list(dict.fromkeys(reasons[case.id, i] for i in range(case.runs) if (case.id, i) in left)),
                "point": case.point.model_dump(mode="json", exclude_none=True),
            }
            for case in planned.suite.cases
        ],
    }


def _show_plan(planned: "Plan") -> None:
    facts = _plan_facts(planned)
    rows = [
        (c["id"], c["title"], ", ".join(c["measures"]), f"{c['runs'] - c['left']}/{c['runs']}") for c in facts["cases"]
    ]
    print_table(("case", "point", "measures", "done"), rows, right=("done",))
    left = _time_left(planned) if facts["left"] else "nothing is left to run"
    print_text(
        f"{facts['suite']}: {len(rows)} cases, {facts['runs'] - facts['left']} of {facts['runs']} runs done; {left}"
    )
    for line in facts["absent"]:
        print_text(f"absent: {line}")
    for line in facts["other_environments"]:
        print_text(f"measured in another environment: {line}")


def _time_left(planned: "Plan") -> str:
    estimate = planned.estimate()
    known = f"about {duration(estimate.left_s)}" if estimate.left_s else ""
    if not estimate.unknown:
        return f"{known or 'no time'} for the rest"
    reasons = "; ".join(reason for reason in estimate.unknown if not reason.startswith("absent: ")) or "absent files"
    return f"the time for the rest is unknown ({reasons})" + (
        f", at least {duration(estimate.left_s)}" if known else ""
    )


def _print_reasons(planned: "Plan", *, only: str | None = None) -> None:
    """Print for each case why its pending runs would run; of one state `only`, if given."""
    titles = {case.id: case.title for case in planned.suite.cases}
    grouped: dict[tuple[str, str], list[int]] = {}
    for (case_id, index), reason in planned.reasons().items():
        if only is None or planned.state(case_id, index) == only:
            grouped.setdefault((case_id, reason), []).append(index)
    rows = [(case_id, titles[case_id], len(runs), reason) for (case_id, reason), runs in grouped.items()]
    if rows:
        print_table(("case", "point", "runs", "why"), rows, right=("runs",))
    else:
        print_text(f"no {only} results" if only else "nothing is left to run")


class LiveRun:
    """Shows the events of a run: a live panel in a terminal, else one line per case."""

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
            self._now = safe_text(f"  now: {event.case.title} — {event.text or 'starting'}{_percent(event.fraction)}")
        if self._live is not None:
            self._live.update(self._panel())
        if event.kind == "started" and event.case is not None and event.case.point.recipe is not None:
            self._report_before_training(event)
        if event.kind == "waiting":
            print_text(event.text)
        if event.kind == "finished" and event.record is not None:
            print_text(_line(event.record, number=event.done, total=event.done + event.left))
            for warning in event.record.warnings:
                if warning.what not in self._warnings:
                    self._warnings.add(warning.what)
                    print_text(f"  warning: {warning.what}{f'; {warning.remedy}' if warning.remedy else ''}")

    def _report_before_training(self, event: "Event") -> None:
        """Write a report of the counts and timings before the first training, which takes longest."""
        if not self._is_trained and event.done:
            print_text(f"report of the counts and timings so far: {write_report(event.folder)}")
        self._is_trained = True

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
    known = [metric for metric in record.metrics if metric.value is not None]
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


def say_summary(summary: "RunSummary") -> None:
    """Print how many runs were measured, and for each failed one why and where its log is."""
    if not summary.finished:
        print_text(f"{summary.suite}: all {summary.skipped} runs were done before; nothing was measured")
        return
    done = len(summary.finished) - len(summary.failed)
    print_text(f"{summary.suite}: {done} measured, {len(summary.failed)} failed, {summary.skipped} were done before")
    for record in summary.failed:
        why = f"{record.error.type}: {first_line(record.error.message)}" if record.error else ""
        print_text(
            f"  {record.status}: {record.case.title}: {why}\n    log: {summary.folder / record.artifacts['log']}"
        )


def say_predictions(summary: "RunSummary") -> None:
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
    from bench.reporting.findings import ablation_findings, leader_findings
    from bench.reporting.site import read_results

    results = read_results(folder)
    findings = [finding for ablation in results.ablations for finding in ablation_findings(ablation)]
    return next(iter([*findings, *leader_findings(results.board)]), None)


def write_report(folder: Path) -> Path:
    """Write the report of one results folder into its subfolder `report`; returns the page."""
    from bench.reporting.site import report

    return report(folder, out=folder / "report")
