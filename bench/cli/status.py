"""The command `status`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.arguments import AsJson
from bench.cli.console import duration, print_json, print_table, print_text
from bench.core.units import first_of, plural

if TYPE_CHECKING:
    from bench.runner.executor import JobState
    from bench.runner.folder_status import FolderStatus


def status(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A results folder.")],
    as_json: AsJson = False,
) -> None:
    """Show the finished runs of a results folder, and the workers of the rest, on any machine."""
    from bench.runner.folder_status import folder_status

    found = folder_status(folder)
    if as_json:
        print_json(_facts(found))
    else:
        _show(found)


def _facts(found: "FolderStatus") -> dict[str, object]:
    return {
        "folder": str(found.folder),
        "suite": found.suite,
        "planned": found.planned,
        "left": found.left,
        "statuses": dict(found.statuses),
        "working": [
            {**asdict(lease.facts), "silent_s": round(lease.silent_s, 1), "has_expired": lease.has_expired}
            for lease in found.working
        ],
        "jobs": [asdict(job) for job in found.jobs],
        "problem": found.problem or None,
        "staged_trees": [{"folder": str(tree.folder), "jobs": list(tree.jobs)} for tree in found.staged_trees],
    }


def _show(found: "FolderStatus") -> None:
    of = "" if found.planned is None else f" of {found.planned}"
    parts = [f"{number} {name}" for name, number in sorted(found.statuses.items())]
    print_text(
        f"{found.suite or found.folder}: {found.statuses.total()}{of} runs have a result: {', '.join(parts) or 'none'}"
    )
    if found.working:
        rows = [
            (
                lease.facts.title,
                lease.facts.worker,
                lease.facts.host,
                lease.facts.started_at,
                f"{duration(lease.silent_s)} ago{' (lost)' if lease.has_expired else ''}",
            )
            for lease in found.working
        ]
        print_table(("case", "worker", "machine", "since", "last sign"), rows)
    if found.jobs:
        print_table(("job", "state", "node", "reason"), _job_rows(found.jobs))
    for tree in found.staged_trees:
        users = f"used by {plural(len(tree.jobs), 'job')}" if tree.jobs else "no job runs from it"
        print_text(f"staged tree {tree.folder}: {users}")
    if found.problem:
        print_text(f"jobs could not be asked: {found.problem}")
    if found.left:
        left = plural(found.left, "run")
        print_text(
            f"{left} to do" if found.is_active else f"{left} to do, and nobody works on them: run the suite again"
        )


def _job_rows(jobs: Sequence["JobState"]) -> list[tuple[str, ...]]:
    """A row for the jobs of each state, node and reason: a thousand jobs that wait for the same are one row."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        alike.setdefault((job.phase.replace("_", " "), job.node, job.reason), []).append(job.job)
    return [(first_of(names), *state) for state, names in alike.items()]
