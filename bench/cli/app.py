"""The command line: arguments, one call, text, exit code. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.data import data_app
from bench.cli.gate import ab, baseline_app, compare, history
from bench.cli.models import evaluate, features, models, predict, profile, train, weights_app
from bench.cli.predictions import predictions
from bench.core.errors import BenchError
from bench.core.import_path import see_working_folder

if TYPE_CHECKING:
    from bench.runner.running import Plan

app = typer.Typer(
    name="vbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmarks and analyses video action-recognition models: what they cost, what they give, how sure that is.",
)
app.add_typer(data_app, name="data")
app.add_typer(baseline_app, name="baseline")
app.add_typer(weights_app, name="weights")

FAULT, INTERRUPTED = 70, 130
SHARED = ("run", "train", "eval")  # several processes can run these together, under torchrun
# click's UsageError, or that of the copy of click which newer versions of typer carry.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

SuitePath = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file, such as suites/quickstart.yaml.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Results folder; results/<suite> if not given.")]
Small = Annotated[bool, typer.Option("--small", help="The suite's small form: synthetic data, minutes on a CPU.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def run(suite: SuitePath, out: OutFolder = None, small: Small = False) -> None:
    """Run what is left of a suite, then write its report."""
    from bench.cli.console import say
    from bench.cli.show_run import LiveRun, say_predictions, say_summary, write_report
    from bench.runner.running import run as run_suite

    with LiveRun().running() as live:
        summary = run_suite(suite, out=out, small=small, on_event=live.show)
    for note in summary.notes:
        say(note)
    say_summary(summary)
    say_predictions(summary)
    say(f"report: {write_report(summary.folder)}")
    raise typer.Exit(summary.exit_code)


@app.command()
def plan(suite: SuitePath, out: OutFolder = None, small: Small = False, as_json: AsJson = False) -> None:
    """Show the cases of a suite, what is done, and about how long the rest takes."""
    from bench.cli.console import as_json as print_json
    from bench.runner.running import plan as plan_suite

    planned = plan_suite(suite, out=out, small=small)
    if as_json:
        print_json(_plan_facts(planned))
    else:
        _show_plan(planned)


COMMANDS: tuple[Callable[..., None], ...] = (
    profile,
    models,
    train,
    evaluate,
    predict,
    predictions,
    features,
    compare,
    ab,
    history,
)
for command in COMMANDS:
    app.command("eval" if command is evaluate else None)(command)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results folders or records files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the site.")] = Path("report"),
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", metavar="MODULE", help="A module with sections of your own.")
    ] = None,
) -> None:
    """Write an HTML report of stored results."""
    from bench.cli.console import say
    from bench.core.registry import import_plugins
    from bench.reporting.site import report as write_report

    import_plugins(plugin or [])
    say(f"report: {write_report(results, out=out, title=title)}")


@app.command()
def doctor(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Also how to quiet the GPU, and what is not allowed here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has, what is missing, and what would disturb a measurement."""
    from bench.cli.console import as_json as print_json
    from bench.cli.console import table
    from bench.runner.doctor import examine

    findings = examine(with_gpu=gpu)
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        table(("", "state", "found", "remedy"), [(f.topic, f.state, f.found, f.remedy) for f in findings])
    raise typer.Exit(3 if any(finding.state == "missing" for finding in findings) else 0)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Options of vbench itself."""
    if version:
        import bench

        typer.echo(f"vbench {bench.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the command `vbench`. The user's plug-ins and factories are found from the working folder."""
    see_working_folder()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files can hold what no text can
    arguments = sys.argv[1:]
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") != "1" and arguments[:1] and arguments[0] in SHARED
    sys.exit(_shared_exit_code(arguments) if is_one_of_several else _exit_code(arguments))


def _exit_code(arguments: list[str]) -> int:
    """Run one command; every way it can end becomes an exit code and, where it failed, one clear text."""
    return _guarded(lambda: app(args=arguments, prog_name="vbench", standalone_mode=False))


def _shared_exit_code(arguments: list[str]) -> int:
    """The same where torchrun started several of us: the first runs the command, the others lend it their ranks."""
    from bench.runner.rank_processes import together

    return _guarded(lambda: together(lambda: _exit_code(arguments)))


def _guarded(call: Callable[[], Any]) -> int:
    from bench.cli.console import show_error

    try:
        code = call()
    except BenchError as error:
        show_error(str(error))
        return error.exit_code
    except USAGE_ERROR as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        show_error("stopped; everything finished is kept, and the same command goes on from here")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # our own fault: the traceback goes to a file, one line to the user
        show_error(f"a fault of vbench itself: {type(error).__name__}: {error}; traceback in {_keep_traceback()}")
        return FAULT
    return code if isinstance(code, int) else 0


def _keep_traceback() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="vbench-fault-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name


def _plan_facts(planned: "Plan") -> dict[str, Any]:
    pending = planned.pending
    left = {(case.id, index) for case, index in pending}
    return {
        "suite": planned.suite.name,
        "out": str(planned.store.folder),
        "runs": sum(case.runs for case in planned.suite.cases),
        "left": len(pending),
        "estimate_s": round(planned.estimate_s(pending), 1),
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "measures": list(case.measures),
                "runs": case.runs,
                "left": sum((case.id, index) in left for index in range(case.runs)),
                "point": case.point.model_dump(mode="json", exclude_none=True),
            }
            for case in planned.suite.cases
        ],
    }


def _show_plan(planned: "Plan") -> None:
    from bench.cli.console import duration, say, table

    facts = _plan_facts(planned)
    rows = [
        (c["id"], c["title"], ", ".join(c["measures"]), f"{c['runs'] - c['left']}/{c['runs']}") for c in facts["cases"]
    ]
    table(("case", "point", "measures", "done"), rows, right=("done",))
    left = f"about {duration(facts['estimate_s'])} for the rest" if facts["left"] else "nothing is left to run"
    say(f"{facts['suite']}: {len(rows)} cases, {facts['runs'] - facts['left']} of {facts['runs']} runs done; {left}")


if __name__ == "__main__":
    main()
