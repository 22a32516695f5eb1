"""What `vbench run --executor` does before its workers are followed."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bench.cli.console import print_text
from bench.core.errors import InputError
from bench.core.units import plural

if TYPE_CHECKING:
    from bench.core.yaml_tree import Tree
    from bench.runner.submitting import Dispatched


def worker_command(
    suite: Path,
    *,
    flags: Mapping[str, bool],
    values: Mapping[str, str | None],
    lists: Mapping[str, Sequence[str] | None],
) -> list[str]:
    """Return the command of a worker, which runs the same part of the same suite with the same options."""
    return [
        *(sys.executable, "-m", "bench", "run", str(suite.absolute() if suite.exists() else suite)),
        *(flag for flag, is_given in flags.items() if is_given),
        *(part for flag, value in values.items() if value is not None for part in (flag, value)),
        *(part for flag, given in lists.items() for value in given or () for part in (flag, value)),
    ]


def submit(
    tree: "Tree", executor: str, command: Sequence[str], *, job: Mapping[str, Any], most_jobs: int, **planning: Any
) -> "Dispatched":
    """Plan the suite and submit workers for its pending runs; ends the command if there are none."""
    from bench.runner.running import plan
    from bench.runner.submitting import dispatch

    planned = plan(tree, **planning, is_elsewhere=True)
    folder = planned.store.folder
    if not planned.pending:
        print_text(f"{planned.suite.name}: all {len(planned.runs)} runs were done before; nothing was submitted")
        raise typer.Exit(0)
    sent = dispatch(
        planned, executor, command=[*command, "--out", str(folder.absolute())], options=job, most_jobs=most_jobs
    )
    print_text(f"submitted {plural(len(sent.jobs), 'job')}: {', '.join(sent.jobs)}; state: vbench status {folder}")
    return sent


def pairs_of(given: Sequence[str] | None) -> dict[str, str]:
    """Return the values of `--job-option NAME=VALUE` by name; raises InputError for another form."""
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise InputError(f"--job-option {name!r} is not NAME=VALUE, such as account=vision")
    return {name: value for name, _, value in pairs}
