"""The commands of the gate: compare, ab, bisect, baseline. Each reads its arguments, makes one call and prints.

Modules of the other rooms are imported inside the commands, so that `vbench --help` stays fast.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.arguments import (
    WAIT_IDLE,
    WAIT_IDLE_TIME,
    AsJson,
    check_folder,
    check_writable,
    seconds_of,
    wait_idle_seconds,
)
from bench.cli.console import print_error, print_json, print_note, print_table, print_text
from bench.cli.suite_commands import Identify, Shard, Trust, read_trusted_suite
from bench.core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from bench.ab.bisect import Judgement
    from bench.comparison.baselines import Baseline
    from bench.comparison.verdicts import Comparison
    from bench.core.yaml_tree import Tree

GateLimits = Annotated[
    list[str] | None, typer.Option("--gate", metavar="METRIC=LIMIT", help="Such as latency.p50_ms=3%; repeatable.")
]
Across = Annotated[bool, typer.Option("--across", help="Compare even if environments differ, and mark the verdicts.")]
FailOn = Annotated[
    str,
    typer.Option("--fail-on", help="Faults that fail: regression, inconclusive, incomplete; or none."),
]
Write = Annotated[
    list[Path] | None,
    typer.Option(
        "--write",
        metavar="FILE",
        help="Also write the verdicts: .md, .json, .xml; .smaller.json, .bigger.json or .bencher.json.",
    ),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page, as one HTML file.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")]
Annotations = Annotated[bool, typer.Option("--annotations", help="Print GitHub annotations.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, such as for a pull request.")]

Results = Annotated[str, typer.Argument(metavar="RESULTS", help="Folder, file, pattern or git:REF[:path] of records.")]
Branch = Annotated[str | None, typer.Option("--branch", help="A branch; the one checked out if not given.")]
BaselineFolder = Annotated[Path, typer.Option("--folder", help="The folder that holds .vbench; here if not given.")]

Whole = Annotated[
    bool, typer.Option("--whole", help="Drop kept cases that RESULTS lacks, because the suite no longer has them.")
]

baseline_app = typer.Typer(
    name="baseline", no_args_is_help=True, help="Baselines by branch and kind of machine, as files for git."
)

ALL_FAULTS = "regression,inconclusive,incomplete"


def compare(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Folder, file, pattern, git:REF[:path] of records, or baseline:BRANCH."),
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Records to judge, named like BASE.")],
    gate: GateLimits = None,
    across: Across = False,
    fail_on: FailOn = ALL_FAULTS,
    write: Write = None,
    junit: Junit = None,
    html: Html = None,
    annotations: Annotations = False,
    markdown: Markdown = False,
    as_json: AsJson = False,
) -> None:
    """Compare HEAD's records with BASE's: same, better, worse or inconclusive; the exit code is the decision."""
    from bench.comparison.comparing import compare as compare_records

    outputs = replace(
        _outputs(fail_on, write or [], junit, annotations=annotations, markdown=markdown, as_json=as_json),
        page=page_file(html),
        sides=(base, head),
    )
    limits = _limits(gate or [])
    found = compare_records(base, head, gate=limits, across=across)
    _check_compared_metrics(limits, found)
    raise typer.Exit(outputs.give(found))


def ab(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="A commit, branch or tag; model:NAME; package.module:factory; python:PATH."
        ),
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The same; or . for the working folder as it is.")],
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file, measured on both sides.")],
    budget: Annotated[str, typer.Option("--budget", help="Time for all of it, such as 90s, 10m or 1h.")] = "10m",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the records; results/<suite>-ab/<time> if not given.")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="The suite's small form.")] = False,
    trust: Trust = False,
    identify: Identify = False,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="Run BASE and HEAD one after the other, never step by step."),
    ] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="Compare only exact metrics, such as parameters and MACs; seconds.")
    ] = False,
    shard: Shard = None,
    wait_idle: Annotated[
        str | None,
        typer.Option(
            WAIT_IDLE,
            metavar="[TIME]",
            help=f"Before timing, wait for an idle machine, at most TIME, such as 90s; {WAIT_IDLE_TIME} if bare.",
        ),
    ] = None,
    gate: GateLimits = None,
    across: Across = False,
    fail_on: FailOn = ALL_FAULTS,
    write: Write = None,
    junit: Junit = None,
    html: Html = None,
    annotations: Annotations = False,
    markdown: Markdown = False,
    as_json: AsJson = False,
) -> None:
    """Measure BASE and HEAD alternately in one job until every gated case is decided; for noisy machines.

    Code of the suite runs: its plug-ins and `module:factory` models.
    """
    from bench.ab.gate import ab as measure_ab
    from bench.runner.selection import shard_from_text

    outputs = replace(
        _outputs(fail_on, write or [], junit, annotations=annotations, markdown=markdown, as_json=as_json),
        page=page_file(html),
        sides=(base, head),
    )
    check_folder(out)
    tree, limits = read_trusted_suite(suite, small=small, trust=trust), _limits(gate or [])
    _check_metrics(limits, tree)
    found = measure_ab(
        base,
        head,
        tree,
        gate=limits,
        budget_s=_budget_seconds(budget),
        out=out,
        small=small,
        identify=identify,
        across=across,
        apart=apart,
        counts=counts,
        wait_idle_s=wait_idle_seconds(wait_idle),
        shard=None if shard is None else shard_from_text(shard),
        on_note=print_note,
    )
    raise typer.Exit(outputs.give(found))


def bisect(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as latency.p50_ms, with labels if needed.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case's id, or part or pattern of its title.")],
    good: Annotated[str, typer.Argument(metavar="GOOD", help="A commit, branch or tag from before the change.")],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="A later one that is worse.")],
    suite: Annotated[Path, typer.Option("--suite", metavar="SUITE", help="The suite file that has the case.")],
    limit: Annotated[str, typer.Option("--limit", help="By how much bad commits are worse.")] = "3%",
    budget: Annotated[str, typer.Option("--budget", help="Time for each commit, such as 90s or 10m.")] = "5m",
    out: Annotated[
        Path, typer.Option("--out", help="Folder of records and judgements; a stopped bisection goes on from there.")
    ] = Path("results/bisect"),
    small: Annotated[bool, typer.Option("--small", help="The suite's small form.")] = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Find the first commit after GOOD that made a metric worse; each is measured alternately with GOOD.

    Exit code 1: found. 4: it is one of several, because some could not be decided. 0: BAD is not worse.
    """
    from bench.ab.bisect import KeptJudgements, commits_between, judge_by_measuring
    from bench.ab.bisect import bisect as find_first_bad

    check_folder(out)
    tree = read_trusted_suite(suite, small=small, trust=trust)
    _check_metrics(_limits([f"{metric}={limit}"]), tree)
    of_metric, measures = metric.partition(".")[0], tree.data.get("measure")
    if isinstance(measures, dict) and of_metric not in {*measures, "parity"} and of_metric.isidentifier():
        raise UnknownNameError("measure", of_metric, measures, where=str(suite))
    budget_s = _budget_seconds(budget)
    commits = commits_between(good, bad)
    kept = KeptJudgements(out, {"metric": metric, "case": case, "good": good, "bad": commits[-1], "limit": limit})
    measure = judge_by_measuring(
        metric,
        case,
        tree,
        good=good,
        bad=commits[-1],
        limit=limit,
        budget_s=budget_s,
        out=out,
        on_note=print_note,
        small=small,
    )

    def judge(commit: str) -> "Judgement":
        judgement = measure(commit)
        kept.keep(commit, judgement)
        return judgement

    if kept.judged:
        print_note(f"{len(kept.judged)} of {len(commits)} commits were judged before: {out}")
    found = find_first_bad(commits, judge, good=good, judged=kept.judged)
    if as_json:
        print_json({"exit_code": found.exit_code, **asdict(found)})
    elif found.first_bad:
        print_text(f"first bad commit: {found.first_bad}")
    elif found.candidates:
        print_text("the first bad commit is one of these, because some could not be decided:")
        for commit in found.candidates:
            print_text(f"  {commit}")
    else:
        print_text(f"{bad} is not worse than {good}: nothing to find")
    raise typer.Exit(found.exit_code)


@baseline_app.command("save")
def save_baseline(
    results: Results, branch: Branch = None, folder: BaselineFolder = Path(), whole: Whole = False
) -> None:
    """Keep RESULTS as the baseline of a branch on their kind of machine, and append them to its history."""
    from bench.comparison.baselines import current_branch, save

    to = current_branch(folder) if branch is None else branch
    _show_baselines(save(results, branch=to, root=folder, is_whole=whole, on_note=print_note))


@baseline_app.command("list")
def list_baselines(folder: BaselineFolder = Path(), as_json: AsJson = False) -> None:
    """List the baselines by branch, suite and machine."""
    from bench.comparison.baselines import listed

    found = listed(folder)
    if as_json:
        print_json([{**asdict(each), "path": str(each.path)} for each in found])
    else:
        _show_baselines(found)


@baseline_app.command("promote")
def promote_baseline(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A branch with baselines.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The branch that receives them, such as main.")],
    folder: BaselineFolder = Path(),
    whole: Whole = False,
) -> None:
    """Copy the baselines of one branch to another, such as after a merge."""
    from bench.comparison.baselines import promote

    _show_baselines(promote(source, target, root=folder, is_whole=whole, on_note=print_note))


def _show_baselines(found: "list[Baseline]") -> None:
    rows = [(b.branch, b.suite, b.machine, b.fingerprint, b.cases, b.runs, b.commit[:10]) for b in found]
    print_table(("branch", "suite", "machine", "fingerprint", "cases", "runs", "commit"), rows, right=("cases", "runs"))


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """The formats in which one comparison is printed and written; `files` maps each file to its ending."""

    fail_on: list[str]
    files: Mapping[Path, str]
    annotations: bool
    markdown: bool
    as_json: bool
    page: Path | None = None
    sides: tuple[str, str] = ("base", "head")

    def give(self, found: "Comparison") -> int:
        """Print, then write the files. Returns the exit code; 3 if the only fault is a file that cannot be written."""
        from bench.comparison import formats
        from bench.comparison.verdicts import EXIT_CODES

        code = found.exit_code(fail_on=self.fail_on)
        with _tolerate_closed_pipe():
            self._print(found)
        for file, ending in self.files.items():
            text = formats.as_file(found, ending, fail_on=self.fail_on)
            try:
                if text is None:
                    file.unlink(missing_ok=True)
                    print_note(f"{file} is not written: no metric has a value and a better direction")
                else:
                    file.write_text(text, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                print_error(f"{file} could not be written: {error.strerror or error}")
                code = code or EXIT_CODES["incomplete"]
        if self.page is not None:
            self._write_page(self.page, found)
        return code

    def _write_page(self, file: Path, found: "Comparison") -> None:
        from bench.comparison import formats
        from bench.reporting.comparison_page import write_comparison_page

        rows = formats.as_dict(found, fail_on=self.fail_on)["rows"]
        base, head = self.sides
        write_comparison_page(
            file,
            rows,
            base=base,
            head=head,
            headline=formats.headline(found),
            causes=formats.cause_lines(found),
            lists=formats.sections(found),
        )

    def _print(self, found: "Comparison") -> None:
        """Print to standard output; with JSON or Markdown, annotations go to standard error, which GitHub reads too."""
        from bench.comparison import formats

        if self.as_json:
            typer.echo(formats.as_json(formats.as_dict(found, fail_on=self.fail_on)), nl=False)
        if self.markdown:
            typer.echo(formats.as_markdown(found), nl=False)
        if self.annotations:
            typer.echo(formats.as_annotations(found), nl=False, err=self.as_json or self.markdown)
        if not (self.as_json or self.markdown or self.annotations):
            _show_comparison(found)


def _outputs(
    fail_on: str, write: list[Path], junit: Path | None, *, annotations: bool, markdown: bool, as_json: bool
) -> _Outputs:
    """Check the output options before anything is read or measured; raises InputError."""
    from bench.comparison.formats import ending_of

    if as_json and markdown:
        raise InputError("--json and --markdown cannot both be printed; give one of them a file with --write")
    named = [(file, ending_of(file.name)) for file in write] + ([] if junit is None else [(junit, ".xml")])
    files = dict(named)
    if len({os.path.realpath(file) for file in files}) < len(named):
        raise InputError("--write and --junit name one file twice; give each form a file of its own")
    for file in files:
        check_writable(file)
    return _Outputs(fail_on=_faults(fail_on), files=files, annotations=annotations, markdown=markdown, as_json=as_json)


def _budget_seconds(text: str) -> float:
    """Seconds of `--budget`; raises InputError for anything that is not a time above 0."""
    if seconds := seconds_of(text, flag="--budget"):
        return seconds
    raise InputError(f"--budget {text} leaves no time to measure in; give a time above 0, such as 90s, 10m or 1h")


def page_file(html: Path | None) -> Path | None:
    """The file of `--html`; raises InputError, before anything is measured, if it cannot be written."""
    if html is not None:
        check_writable(html)
    return html


@contextmanager
def _tolerate_closed_pipe() -> Iterator[None]:
    """If the reader of our output ends first (`| head`), keep the exit code and still write the files."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich turns the former into the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _faults(fail_on: str) -> list[str]:
    """Return the names in `--fail-on`; raises UnknownNameError before anything is measured."""
    from bench.comparison.verdicts import FAULTS

    faults = [] if fail_on == "none" else [name.strip() for name in fail_on.split(",")]
    for name in faults:
        if name not in FAULTS:
            raise UnknownNameError("fault", name, FAULTS, where="--fail-on")
    return faults


def _limits(given: list[str]) -> dict[str, str]:
    """Return the `METRIC=LIMIT` options, split at the last `=`, because labels contain one too."""
    from bench.comparison.allowed_changes import read_rules

    limits: dict[str, str] = {}
    for text in given:
        metric, equals, limit = text.rpartition("=")
        if not equals or not metric:
            raise InputError(f"--gate {text!r} is not METRIC=LIMIT, such as --gate latency.p50_ms=3%")
        limits[metric] = limit
    read_rules(limits)
    return limits


def _check_metrics(names: Iterable[str], suite: "Tree") -> None:
    """Raise InputError, before anything is measured, for a metric that no measure declares.

    The measures of a suite's plug-ins are not known here: each side imports its own.
    """
    from bench.core.registry import MEASURES, metric_problem

    known = {entry.name: entry for entry in MEASURES}
    has_plugins = bool(suite.data.get("plugins"))
    for name in names:
        if (problem := metric_problem(name, known)) and not (has_plugins and name.partition(".")[0] not in known):
            raise InputError(problem)


def _check_compared_metrics(names: Iterable[str], found: "Comparison") -> None:
    """Raise InputError for a metric that neither the compared records have nor a measure declares: it is misspelt.

    A metric of a plug-in may be gone together with its cases, so it is only missing while cases are.
    """
    from bench.core.registry import MEASURES, metric_problem

    known = {entry.name: entry for entry in MEASURES}
    stored = {metric for row in found.rows for metric in (row.metric, row.metric.partition("{")[0])}
    for name in names:
        is_of_vbench = name.partition(".")[0] in known
        if any(fnmatchcase(metric, name) for metric in stored) or (found.missing and not is_of_vbench):
            continue
        if problem := metric_problem(name, known):
            raise InputError(f"--gate: {problem}")


VERDICT_COLUMNS = ("verdict", "case", "metric", "base", "head", "change", "why")


def _show_comparison(comparison: "Comparison") -> None:
    """Print the table of verdicts, urgent ones first, then what could not be compared, then a summary."""
    from bench.comparison.formats import cause_lines, cells, folded_rows, headline, sections

    causes = cause_lines(comparison)
    for verdict, title, lines in causes:
        print_text(f"{verdict}: {title}")
        for line in lines:
            print_text(f"  {line}")
    rows, same = folded_rows(comparison)
    if rows:
        print_table(VERDICT_COLUMNS, [cells(row) for row in rows], right=("base", "head", "change"))
    if same:
        print_text(f"{len(same)} metrics are the same; --json shows them")
    for title, lines in sections(comparison):
        print_text(f"{title}:")
        for line in lines:
            print_text(f"  {line}")
    explained = sum(len(comparison.moved_by(cause)) for cause in comparison.causes)
    if left := len(comparison.rows) - len(rows) - len(same) - explained:
        verb = "metric is" if left == 1 else "metrics are"
        print_text(f"{left} more {verb} not gated; --json shows them")
    print_text(headline(comparison))
