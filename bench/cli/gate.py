"""The commands of the gate: compare, ab, baseline, history. What `cli.py` says of heavy imports holds here too."""

import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.core.errors import InputError

if TYPE_CHECKING:
    from bench.comparison.baselines import Baseline
    from bench.comparison.outcome import Comparison

GateLimits = Annotated[
    list[str] | None, typer.Option("--gate", metavar="METRIC=LIMIT", help="Such as latency.p50_ms=3%; repeatable.")
]
Across = Annotated[bool, typer.Option("--across", help="Compare unlike environments, and mark the verdicts.")]
FailOn = Annotated[str, typer.Option("--fail-on", help="Which of regression, inconclusive, incomplete fail; or none.")]
Write = Annotated[
    list[Path] | None,
    typer.Option(
        "--write", metavar="FILE", help="Also write .md, .json, .xml; .smaller.json, .bigger.json or .bencher.json."
    ),
]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")]
Annotations = Annotated[bool, typer.Option("--annotations", help="Print GitHub annotations.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown, as for a pull request.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

Results = Annotated[str, typer.Argument(metavar="RESULTS", help="Folder, file, pattern or git:REF[:path] of records.")]
Branch = Annotated[str | None, typer.Option("--branch", help="A branch; the one checked out if not given.")]
BaselineFolder = Annotated[Path, typer.Option("--folder", help="The folder that holds .vbench; here if not given.")]

Whole = Annotated[
    bool, typer.Option("--whole", help="Drop kept cases that are not there, for the suite no longer has them.")
]

baseline_app = typer.Typer(no_args_is_help=True, help="Baselines by branch and kind of machine, kept as files for git.")

ALL_FAULTS = "regression,inconclusive,incomplete"
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def compare(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Folder, file, pattern, git:REF[:path] of records, or baseline:BRANCH."),
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Records of what is to be judged.")],
    gate: GateLimits = None,
    across: Across = False,
    fail_on: FailOn = ALL_FAULTS,
    write: Write = None,
    junit: Junit = None,
    annotations: Annotations = False,
    markdown: Markdown = False,
    as_json: AsJson = False,
) -> None:
    """Judge HEAD's records against BASE's: same, faster, slower or inconclusive; the exit code decides."""
    from bench.comparison.comparing import compare as compare_records

    outputs = _outputs(fail_on, write or [], junit, annotations=annotations, markdown=markdown, as_json=as_json)
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
    apart: Annotated[
        bool, typer.Option("--apart", help="Run BASE and HEAD one after the other, also where steps could take turns.")
    ] = False,
    gate: GateLimits = None,
    across: Across = False,
    fail_on: FailOn = ALL_FAULTS,
    write: Write = None,
    junit: Junit = None,
    annotations: Annotations = False,
    markdown: Markdown = False,
    as_json: AsJson = False,
) -> None:
    """Measure BASE and HEAD in turns in one job until every gated case is decided; for machines that are noisy."""
    from bench.ab.gate import ab as measure_ab
    from bench.cli.console import print_note

    outputs = _outputs(fail_on, write or [], junit, annotations=annotations, markdown=markdown, as_json=as_json)
    limits, budget_s = _limits(gate or []), _seconds(budget)
    with _terminated_like_interrupted():
        found = measure_ab(
            base,
            head,
            suite,
            budget_s=budget_s,
            out=out,
            small=small,
            gate=limits,
            across=across,
            apart=apart,
            on_note=print_note,
        )
    raise typer.Exit(outputs.give(found))


@baseline_app.command("save")
def save_baseline(
    results: Results, branch: Branch = None, folder: BaselineFolder = Path(), whole: Whole = False
) -> None:
    """Keep RESULTS as the baseline of a branch on this kind of machine, and append them to its history."""
    from bench.cli.console import print_note
    from bench.comparison.baselines import current_branch, save

    to = current_branch(folder) if branch is None else branch
    _say_baselines(save(results, branch=to, root=folder, is_whole=whole, on_note=print_note))


@baseline_app.command("list")
def list_baselines(folder: BaselineFolder = Path(), as_json: AsJson = False) -> None:
    """List what is kept, by branch, suite and machine."""
    from bench.cli.console import print_json
    from bench.comparison.baselines import listed

    found = listed(folder)
    if as_json:
        print_json([{**asdict(each), "path": str(each.path)} for each in found])
    else:
        _say_baselines(found)


@baseline_app.command("promote")
def promote_baseline(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A branch with baselines.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The branch that gets them, such as main.")],
    folder: BaselineFolder = Path(),
    whole: Whole = False,
) -> None:
    """Make the baselines of one branch those of another, such as of a branch that was merged."""
    from bench.cli.console import print_note
    from bench.comparison.baselines import promote

    _say_baselines(promote(source, target, root=folder, is_whole=whole, on_note=print_note))


def history(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as latency.p50_ms, with labels where needed.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case's id, or part or pattern of its title.")],
    branch: Branch = None,
    given: Annotated[
        list[Path] | None, typer.Option("--from", metavar="RESULTS", help="Records of many commits; repeatable.")
    ] = None,
    folder: BaselineFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show a metric over commits, and the first commit after every step of its level."""
    from bench.cli.console import print_json
    from bench.comparison.baselines import current_branch, history_files
    from bench.comparison.history import history_of
    from bench.store import read_records

    files = given or history_files(current_branch(folder) if branch is None else branch, root=folder)
    found = history_of(read_records(files), metric, case, repository=folder)
    if as_json:
        print_json({**asdict(found), "case": found.case.title, "id": found.case.id})
    else:
        from bench.cli.show_history import show_history

        show_history(found)


def _say_baselines(found: "list[Baseline]") -> None:
    from bench.cli.console import print_table

    rows = [(b.branch, b.suite, b.machine, b.fingerprint, b.cases, b.runs, b.commit[:10]) for b in found]
    print_table(("branch", "suite", "machine", "fingerprint", "cases", "runs", "commit"), rows, right=("cases", "runs"))


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """The forms in which one comparison is given; `files` says of which ending each file is."""

    fail_on: list[str]
    files: Mapping[Path, str]
    annotations: bool
    markdown: bool
    as_json: bool

    def give(self, found: "Comparison") -> int:
        """Print, then write what was asked for. The exit code; 3 where only a file that cannot be written is amiss."""
        from bench.cli.console import print_error, print_note
        from bench.comparison import formats
        from bench.comparison.outcome import EXIT_CODES

        code = found.exit_code(fail_on=self.fail_on)
        with _reader_may_leave():
            self._print(found)
        for file, ending in self.files.items():
            text = formats.as_file(found, ending, fail_on=self.fail_on)
            try:
                if text is None:
                    file.unlink(missing_ok=True)
                    print_note(f"{file} is not written: there is nothing that it could hold")
                else:
                    file.write_text(text, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                print_error(f"{file} could not be written: {error.strerror or error}")
                code = code or EXIT_CODES["incomplete"]
        return code

    def _print(self, found: "Comparison") -> None:
        """Standard output holds JSON or Markdown alone; annotations then go to standard error, which GitHub reads."""
        from bench.cli.show_verdicts import show_comparison
        from bench.comparison import formats

        if self.as_json:
            typer.echo(formats.as_json(formats.as_dict(found, fail_on=self.fail_on)), nl=False)
        if self.markdown:
            typer.echo(formats.as_markdown(found), nl=False)
        if self.annotations:
            typer.echo(formats.as_annotations(found), nl=False, err=self.as_json or self.markdown)
        if not (self.as_json or self.markdown or self.annotations):
            show_comparison(found)


def _outputs(
    fail_on: str, write: list[Path], junit: Path | None, *, annotations: bool, markdown: bool, as_json: bool
) -> _Outputs:
    """What was asked for, checked before anything is read or measured; InputError for what cannot be given."""
    from bench.cli.arguments import check_writable
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


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may end first (`| head`): that changes neither the exit code nor the files."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the latter is what rich makes of the former
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _faults(fail_on: str) -> list[str]:
    """Names out of `--fail-on`, checked before anything is measured."""
    from bench.comparison.outcome import FAULTS
    from bench.core.errors import UnknownNameError

    faults = [] if fail_on == "none" else [name.strip() for name in fail_on.split(",")]
    for name in faults:
        if name not in FAULTS:
            raise UnknownNameError("fault", name, FAULTS, where="--fail-on")
    return faults


def _limits(given: list[str]) -> dict[str, str]:
    """`METRIC=LIMIT` options; the last `=` parts them, for labels carry one too."""
    from bench.comparison.limits import read_rules

    limits: dict[str, str] = {}
    for text in given:
        metric, equals, limit = text.rpartition("=")
        if not equals or not metric:
            raise InputError(f"--gate {text!r} is not METRIC=LIMIT, such as --gate latency.p50_ms=3%")
        limits[metric] = limit
    read_rules(limits)
    return limits


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None:
        raise InputError(f"--budget {text!r} is not a time; allowed: seconds, minutes or hours, such as 90s, 10m, 1h")
    return float(match[1]) * SECONDS[match[2]]


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """A job that is cancelled ends as with Ctrl-C, so that what is temporary is removed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
