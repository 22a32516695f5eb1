"""The command `vbench`: the root app, signals and exit codes. A command imports heavy packages when it runs."""

import errno
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from itertools import pairwise
from typing import Annotated, Any, TextIO

import typer

from bench.cli.arguments import AsJson, with_optional_values
from bench.cli.console import print_error, print_json, print_note, print_table
from bench.cli.data import data_app
from bench.cli.diagnose import diagnose
from bench.cli.examples import add_examples
from bench.cli.explain import explain
from bench.cli.gate import ab, baseline_app, bisect, compare
from bench.cli.help_panels import Group, lay_out_help
from bench.cli.history import history
from bench.cli.init import init
from bench.cli.listings import measures_app, recipes_app, show_help, suites_app
from bench.cli.models import models
from bench.cli.predictions import predictions
from bench.cli.profile_command import profile
from bench.cli.query import query
from bench.cli.results import results_app
from bench.cli.status import status
from bench.cli.suite_commands import plan, report, run
from bench.cli.train import evaluate, features, predict, train
from bench.cli.weights import weights_app
from bench.core.errors import BenchError, InputError, StopSignal, nearest, suggest
from bench.core.files import reason_of
from bench.core.import_path import add_working_folder


class CommandStoppedError(Exception):
    """Carries a KeyboardInterrupt past click, versions of which turn it into different exceptions."""

    def __init__(self, stop: KeyboardInterrupt) -> None:
        super().__init__(str(stop))
        self.stop = stop


class ReaderGoneError(Exception):
    """Carries a BrokenPipeError of standard output past click, which would exit with 1: a regression here."""


class _Commands(Group):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_optional_values(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as stop:
            raise CommandStoppedError(stop) from None
        except BrokenPipeError:
            raise ReaderGoneError from None
        return result


app = typer.Typer(
    name="vbench",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure what video action-recognition models cost and how accurate they are, with uncertainties.",
)

FAULT = 70
DISTRIBUTION = "vbench-video"  # its name on package indexes
# Errors of the system that no code of ours can prevent: a full or read-only disk, a quota, too long a name, and a file
# where a folder is needed or the other way round.
OUTSIDE_ERRORS = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG,
        errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    }
)  # fmt: skip
SHARED = ("run", "train", "eval")  # several processes can run these together, under torchrun
# click's UsageError, or that of the copy of click which newer versions of typer carry.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


# Commands by the heading under which `vbench --help` lists them.
COMMANDS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Measure": (profile, init, run, plan, status, report),
    "Train and evaluate": (train, evaluate, predict, predictions, diagnose, explain, features),
    "Guard": (compare, ab, baseline_app, history, bisect),
    "Look up": (models, weights_app, data_app, suites_app, recipes_app, measures_app, results_app, query),
}
NAMES: dict[Any, str] = {evaluate: "eval"}
for heading, commands in COMMANDS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, rich_help_panel=heading)
        else:
            app.command(NAMES.get(command), rich_help_panel=heading)(command)
app.command("help", rich_help_panel="Look up")(show_help)


@app.command(rich_help_panel="Look up")
def doctor(
    gpu: Annotated[bool, typer.Option("--gpu", help="Also show how to reduce the noise of the GPU.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check what this machine has, what is missing, and what would disturb a measurement."""
    from bench.runner.doctor import check_machine

    findings = check_machine(with_gpu=gpu)
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        print_table(("", "state", "found", "remedy"), [(f.topic, f.state, f.found, f.remedy) for f in findings])
    raise typer.Exit(3 if any(finding.state == "missing" for finding in findings) else 0)


add_examples(app)
lay_out_help(app)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Options of vbench itself."""
    if version:
        import bench

        typer.echo(f"vbench {bench.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the command `vbench`. The user's plug-ins and factories are found in the working folder."""
    add_working_folder()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    _stop_on_signals()
    warnings.showwarning = _show_warning
    arguments = sys.argv[1:]
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") != "1" and arguments[:1] and arguments[0] in SHARED
    sys.exit(run_shared_command(arguments) if is_one_of_several else run_command(arguments))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in the code, which does not help a user."""
    print_note(f"warning: {message}")


def _stop_on_signals() -> None:
    """Let SIGTERM, SIGHUP and SIGUSR2, with which clusters evict or warn a job, stop the command as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise StopSignal(number)

    for wanted in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        if signal.getsignal(wanted) is signal.SIG_DFL:  # under nohup SIGHUP stays ignored
            signal.signal(wanted, stop)


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; an error becomes one clear text on standard error."""

    def call() -> Any:
        try:
            os.getcwd()
        except FileNotFoundError:
            raise InputError("the working folder was removed; change to a folder that exists") from None
        return app(args=arguments, prog_name="vbench", standalone_mode=False)

    return exit_code_of(call, arguments=arguments)


def command_in(arguments: Sequence[str]) -> list[str]:
    """Return the names of the command that arguments begin with, such as `data`, `verify`; none if there is none."""
    command, names = typer.main.get_command(app), []
    for argument in arguments:
        if argument not in getattr(command, "commands", {}):
            break
        command = command.commands[argument]  # type: ignore[attr-defined]
        names.append(argument)
    return names


def run_shared_command(arguments: list[str]) -> int:
    """Run one command that torchrun started several times: the first runs it, the others run worker processes."""
    from bench.runner.rank_processes import run_on_first_launcher

    return exit_code_of(lambda: run_on_first_launcher(lambda: run_command(arguments)), arguments=arguments)


def exit_code_of(call: Callable[[], Any], *, arguments: Sequence[str] = ()) -> int:
    """The exit code for whatever `call` returns or raises; prints errors.

    An error that no page of the documentation explains names the help of the command in `arguments`.
    """
    try:
        code = call()
    except BenchError as error:
        more = f"vbench help {error.page}" if error.page else " ".join(["vbench", *command_in(arguments), "--help"])
        print_error(str(error), more=more)
        return error.exit_code
    except USAGE_ERROR as error:
        return _usage_error(error, arguments)
    except CommandStoppedError as stopped:
        return _stopped(stopped.stop)
    except (KeyboardInterrupt, typer.Abort) as stop:
        return _stopped(stop)
    except (ReaderGoneError, BrokenPipeError):  # as in `vbench compare … | head`, which must not pass for a verdict
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        return _absent_dependency(error)
    except OSError as error:
        if error.errno not in OUTSIDE_ERRORS:
            return _fault(error)
        print_error(f"{error.filename or 'a file'}: {reason_of(error)}")
        return 2
    except Exception as error:  # a fault of vbench: the traceback goes to a file, one line to the user
        return _fault(error)
    return code if isinstance(code, int) else 0


def _usage_error(error: Any, arguments: Sequence[str]) -> int:
    """Print the error in a command line. If only the subcommand is missing, print the help of the command."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        print_error(usage_line(error, arguments), more=f"{error.ctx.command_path} --help" if error.ctx else None)
    return 2


def usage_line(error: Any, arguments: Sequence[str]) -> str:
    """click's message about `arguments` as one line in the form of our other errors, with the nearest spelling.

    It is, for example, "Invalid value for '--to': 'cvs' is not one of 'csv', 'jsonl'."
    """
    text = error.format_message().replace("Value error, ", "")  # pydantic's words, in newer versions of typer
    hint = ""
    if command := re.match(r"No such command '(.*?)'", text):
        text, hint = command[0], suggest(command[1], error.ctx.command.commands)
    elif hasattr(error, "possibilities"):
        text, hint = f"No such option: {error.option_name}", nearest(error.option_name, error.possibilities or ())
    elif choice := re.search(r"'([^']*)' is not one of (.*)", text):
        hint = nearest(choice[1], re.findall(r"'([^']*)'", choice[2]))
    elif ": Input should " in text:  # a message of pydantic, which lacks the value that was found
        text, options = text.replace(": Input should ", ": should "), getattr(error.param, "opts", ())
        values = [value for option, value in pairwise(arguments) if option in options]
        text += f", found {values[-1]!r}" if values else ""
    line = " ".join(text.split()).rstrip(".")
    return f"{line[:1].lower()}{line[1:]}" + (f"; {hint}" if hint else "")


def _absent_dependency(error: ModuleNotFoundError) -> int:
    """Print which package a light installation lacks for this command; any other absent module is a fault of ours."""
    from importlib.metadata import PackageNotFoundError, requires

    package = (error.name or "").partition(".")[0]
    try:
        needed = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires(DISTRIBUTION) or ()}
    except PackageNotFoundError:
        needed = set()
    if package not in needed:
        return _fault(error)
    print_error(
        f"this command needs {package}, which is not installed; a whole installation has it: pip install {DISTRIBUTION}"
    )
    return 2


def _fault(error: Exception) -> int:
    try:
        where = f"traceback in {_keep_traceback()}"
    except OSError:  # the temporary folder is full or read-only
        where = traceback.format_exc()
    print_error(f"a fault of vbench itself: {type(error).__name__}: {error}; {where}")
    return FAULT


def _stopped(stop: BaseException) -> int:
    """Print that the command was stopped; returns 128 plus the number of the signal."""
    detail = f" {stop.detail}" if isinstance(stop, StopSignal) and stop.detail else ""
    print_error(f"stopped{detail}; finished results are stored, and the same command continues from here")
    return 128 + (stop.signal if isinstance(stop, StopSignal) else signal.SIGINT)


def _keep_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="vbench-fault-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name


if __name__ == "__main__":
    main()
