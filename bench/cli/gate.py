"""The commands of the gate: compare, ab, baseline, history; arguments, one call, and what is printed.

Modules of the other rooms are imported inside the commands, so that `vbench --help` stays fast.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.arguments import WAIT_IDLE, WAIT_IDLE_TIME, AsJson, check_writable, seconds_of, wait_idle_seconds
from bench.cli.console import print_error, print_json, print_note, print_table, print_text
from bench.cli.suite_commands import Identify, Shard, Trust, read_trusted_suite
from bench.core.errors import InputError

if TYPE_CHECKING:
    from bench.ab.bisect import Judgement
    from bench.comparison.baselines import Baseline
    from bench.comparison.history import History, LevelChange
    from bench.comparison.verdicts import Comparison

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
        page=_page_file(html),
        sides=(base, head),
    )
    found = compare_records(base, head, gate=_limits(gate or []), across=across)
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
        page=_page_file(html),
        sides=(base, head),
    )
    found = measure_ab(
        base,
        head,
        read_trusted_suite(suite, small=small, trust=trust),
        gate=_limits(gate or []),
        budget_s=seconds_of(budget, flag="--budget"),
        out=out,
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

    tree = read_trusted_suite(suite, small=small, trust=trust)
    _limits([f"{metric}={limit}"])
    budget_s = seconds_of(budget, flag="--budget")
    commits = commits_between(good, bad)
    kept = KeptJudgements(out, {"metric": metric, "case": case, "good": good, "bad": commits[-1], "limit": limit})
    measure = judge_by_measuring(
        metric, case, tree, good=good, limit=limit, budget_s=budget_s, out=out, on_note=print_note
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
        print_text("the first bad commit is one of these, which could not be decided:")
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


def history(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as latency.p50_ms, with labels if needed.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case's id, or part or pattern of its title.")],
    branch: Branch = None,
    given: Annotated[
        list[Path] | None, typer.Option("--from", metavar="RESULTS", help="Records of many commits; repeatable.")
    ] = None,
    folder: BaselineFolder = Path(),
    former: Annotated[
        list[str] | None,
        typer.Option("--former", metavar="CASE", help="A case that this one continues, such as before a rename."),
    ] = None,
    html: Html = None,
    atom: Annotated[
        Path | None, typer.Option("--atom", metavar="FILE", help="Also write an Atom feed of the regressions.")
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Web address of the repository that commits link to; by default of git's remote origin, if that is "
            "on GitHub or GitLab.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a metric over commits, and the first commit of every new level."""
    from bench.comparison.baselines import current_branch, history_files
    from bench.comparison.history import history_of
    from bench.core.repository import given_repository, remote_repository
    from bench.core.units import plural
    from bench.store import read_records

    files = given or history_files(current_branch(folder) if branch is None else branch, root=folder)
    pages = [file for file in (html, atom) if _page_file(file) is not None]
    linked = None if repository is None else given_repository(repository)
    found = history_of(read_records(files), metric, case, repository=folder, former=former or [])
    facts = {**asdict(found), "case": found.case.title, "id": found.case.id}
    if as_json:
        aliases = {"moments": facts["commits"], "turns": facts["changes"]}  # names before 0.1.0; remove with 0.2.0
        print_json({**facts, **aliases})
    else:
        _show_history(found)
    if pages:
        from bench.reporting.history_page import write_history_page, write_regression_feed

        linked = linked or remote_repository(folder)
        if html is not None:
            notes = [f"{plural(runs, 'run')}: {why}" for runs, why in _left_out(found) if runs]
            write_history_page(html, facts, repository=linked, notes=notes)
        if atom is not None:
            write_regression_feed(atom, facts, repository=linked)


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
        lists, headline = formats.sections(found), formats.headline(found)
        write_comparison_page(file, rows, base=base, head=head, headline=headline, lists=lists)

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


def _page_file(html: Path | None) -> Path | None:
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
    from bench.core.errors import UnknownNameError

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
        print_text(f"{left} more metrics are not gated; --json shows them")
    print_text(headline(comparison))


MIN_COMMITS = 10


def _show_history(history: "History") -> None:
    """Print one line per commit, marked if the level changed, then each step in a sentence."""
    from bench.comparison.verdicts import one_line
    from bench.core.units import format_value, plural

    changes = {change.first.commit: change for change in history.changes}
    rows = [
        (
            each.started_at[:16],
            one_line(each.commit[:10]),
            format_value(each.value, history.unit),
            each.runs,
            _mark(changes.get(each.commit)),
        )
        for each in history.commits
    ]
    print_text(one_line(f"{history.metric} of {history.case.title}"))
    print_table(("measured", "commit", "value", "runs", ""), rows, right=("value", "runs"))
    for runs, why in _left_out(history):
        if runs:
            print_text(f"{plural(runs, 'run')} left out: {why}")
    if history.order == "measured" and len(history.commits) > 1:
        print_text("in the order of measuring: git here does not know all commits, and not all records have dates")
    for change in history.changes:
        print_text(_change_sentence(change, history.unit))
    if not history.changes:
        print_text(f"no step in {plural(len(history.commits), 'commit')}{_power(history)}")


def _power(history: "History") -> str:
    """Return what a search for steps among so many noisy values can find."""
    from bench.comparison.steps import commits_to_show

    if history.is_exact:
        return ""
    needed = commits_to_show(len(history.commits))
    if needed is None:
        return f"; fewer than {MIN_COMMITS} commits cannot show one"
    return f"; a clear step shows once about {needed} commits have it"


def _left_out(history: "History") -> list[tuple[int, str]]:
    return [
        (history.unknown, "their records name no commit"),
        (history.uncommitted, "measured with local changes, or git could not tell"),
        (history.in_turns, "part of an A/B measurement (vbench ab)"),
        (history.throttled, "throttled, so slow for another reason than their code"),
        (history.unlike, f"not measured as the newest run was: {', '.join(history.differing)}"),
    ]


def _mark(change: "LevelChange | None") -> str:
    return "" if change is None else f"{change.verdict} from here: {_change_text(change)}"


def _change_sentence(change: "LevelChange", unit: str) -> str:
    from bench.comparison.verdicts import one_line, p_value
    from bench.core.units import format_value

    name = "first bad commit" if change.verdict == "worse" else f"first commit that is {change.verdict}"
    levels = f"{format_value(change.step.before, unit)} before, {format_value(change.step.after, unit)} after"
    certainty = f", {p_value(change.step.p)}" if change.step.p > 0 else ""
    return (
        f"{name}: {one_line(change.first.commit)} ({_change_text(change)}: {levels}{certainty}); "
        f"the last before it: {one_line(change.last_before.commit)}"
    )


def _change_text(change: "LevelChange") -> str:
    from bench.comparison.verdicts import percent

    return "changed" if change.change is None else percent(change.change)
