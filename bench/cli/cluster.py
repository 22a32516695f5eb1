"""`vbench run --executor` up to the submission of its jobs, and the estimate of `vbench plan --executor`."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bench.cli.console import duration, print_table, print_text
from bench.core.errors import InputError
from bench.core.units import first_of, plural

if TYPE_CHECKING:
    from bench.core.yaml_tree import Tree
    from bench.runner.cluster_estimate import ClusterEstimate, GroupEstimate
    from bench.runner.submitting import Dispatched

J_PER_KWH = 3.6e6
ABSENT = "absent: "
NO_GPU_REQUEST = "GPU hours are unknown: no GPU is requested; `require:` of the suite, --gres or --gpus do"


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
    tree: "Tree",
    suite: Path,
    executor: str,
    *,
    command: Callable[[Path], list[str]],
    job: Mapping[str, Any],
    most_jobs: int,
    stage: str | None,
    announce: Callable[[str, str], None],
    **planning: Any,
) -> "Dispatched":
    """Plan the suite and submit workers for its pending runs; ends the command if there are none.

    `command` returns that of a worker for the path of the suite. If `stage` is not None, the jobs run from a copy of
    the working tree in this folder, or in the results folder if it is empty. `announce` is called with the kind of each
    step (`staged`, `submitted`, `unused`, `done`) and a line about it.
    """
    from bench.runner.folder_status import remove_unused_trees
    from bench.runner.running import plan
    from bench.runner.staging import stage_tree
    from bench.runner.submitting import dispatch
    from bench.store.record_store import STAGED_TREES

    planned = plan(tree, **planning, is_elsewhere=True)
    folder = planned.store.folder
    if not planned.pending:
        announce("done", f"{planned.suite.name}: all {len(planned.runs)} runs were done before; nothing was submitted")
        raise typer.Exit(0)
    copy = None
    if stage is not None:
        copy = stage_tree(Path(stage) if stage else folder / STAGED_TREES, working=Path.cwd())
        suite = copy.place_of(suite) if suite.exists() else suite
        announce("staged", str(copy))
    sent = dispatch(
        planned,
        executor,
        command=[*command(suite), "--out", str(folder.absolute())],
        options=job,
        most_jobs=most_jobs,
        stage=copy,
    )
    if copy is not None:
        for unused in remove_unused_trees(folder):
            announce("unused", f"removed: {unused}, from which no job runs any more")
    jobs = f"{plural(len(sent.jobs), 'job')}: {first_of(sent.jobs)}"
    announce("submitted", f"submitted {jobs}; state: vbench status {folder}")
    return sent


def require_executor(executor: str | None, options: Mapping[str, object]) -> None:
    """Raise InputError for an option of jobs without the executor that it is for."""
    for name, value in options.items():
        if executor is None and value is not None:
            raise InputError(f"--{name} is for jobs of a cluster; give --executor slurm or --executor ray as well")


def cluster_facts(estimate: "ClusterEstimate") -> dict[str, Any]:
    """The estimate for JSON. A value is null if it is unknown for any run; `known` sums are without those runs."""
    groups = [_group_facts(each) for each in estimate.groups]
    is_known = not any(each.without_time for each in estimate.groups)
    return {
        "groups": groups,
        "wall_h": _hours(estimate.wall_s) if is_known else None,
        "known_wall_h": _hours(estimate.wall_s),
        "gpu_h": _sum_if_known(groups, "gpu_h"),
        "energy_kwh": _sum_if_known(groups, "energy_kwh"),
        "time_limit_h": None if estimate.time_limit_s is None else _hours(estimate.time_limit_s),
        "machines": list(estimate.machines),
    }


def _group_facts(each: "GroupEstimate") -> dict[str, Any]:
    require, is_known = each.group.require, not each.without_time
    gpu_h = None if each.gpu_s is None else _hours(each.gpu_s)
    energy_kwh = each.total_joules / J_PER_KWH
    return {
        "timed": each.group.kind.is_timed,
        "nodes_of_a_job": each.group.kind.layout.nodes,
        "require": None if require is None else require.model_dump(exclude_none=True),
        "runs": len(each.group.cases),
        "jobs": each.jobs,
        "gpus_of_a_job": each.gpus,
        "wall_h": _hours(each.wall_s) if is_known else None,
        "known_wall_h": _hours(each.wall_s),
        "gpu_h": gpu_h if is_known else None,
        "known_gpu_h": gpu_h,
        "energy_kwh": None if each.without_energy else energy_kwh,
        "known_energy_kwh": energy_kwh if each.joules else None,
        "energy_by_part": {
            part: {"kwh": joules / J_PER_KWH, "runs": each.runs_by_part[part]} for part, joules in each.joules.items()
        },
        "runs_without_time": each.without_time,
        "runs_without_energy": each.without_energy,
        "unknown": list(each.unknown),
        "times_from": dict(each.sources),
    }


def _sum_if_known(groups: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [group[name] for group in groups]
    return None if None in values else sum(values)


def _hours(seconds: float) -> float:
    return seconds / 3600


def show_cluster_estimate(estimate: "ClusterEstimate", *, executor: str) -> None:
    """Print a row for each kind of request, then the unknown values with their reasons and the sources of the times."""
    if not estimate.groups:
        return
    print_text(f"on {executor}, if all jobs start at once:")
    columns = ("request", "runs", "jobs", "time", "GPU hours", "energy")
    print_table(columns, [_row(each) for each in estimate.groups], right=columns[1:])
    for line in dict.fromkeys(reason for each in estimate.groups for reason in each.unknown):
        if not line.startswith(ABSENT):  # the plan above has these
            print_text(f"time unknown: {line}")
    if any(each.gpus is None for each in estimate.groups):
        print_text(NO_GPU_REQUEST)
    without_energy = sum(each.without_energy for each in estimate.groups)
    if without_energy:
        print_text(
            f"energy unknown for {plural(without_energy, 'run')}: no record here holds joules of such cases "
            "(measure `energy`, or `accuracy` with a country)"
        )
    sources: Counter[str] = Counter()
    for each in estimate.groups:
        sources.update(each.sources)
    if sources:
        print_text("times from " + ", ".join(f"{name} ({number})" for name, number in sources.items()))
    if estimate.machines:
        print_text(f"earlier runs on {', '.join(estimate.machines)}")
    limit_s = estimate.time_limit_s
    if limit_s is not None and estimate.wall_s > limit_s:
        print_text(
            f"jobs end after --time {duration(limit_s)}, before all runs are done: give more, or run the command again"
        )


def _row(each: "GroupEstimate") -> tuple[object, ...]:
    least = "at least " if each.without_time else ""
    is_unknown = each.without_time == len(each.group.cases)
    if each.gpus == 0:
        gpu_hours = "none"
    else:
        gpu_hours = "unknown" if is_unknown or each.gpu_s is None else f"{least}{_hours(each.gpu_s):.2g}"
    time = "unknown" if is_unknown else least + duration(each.wall_s)
    return _request_text(each), len(each.group.cases), each.jobs, time, gpu_hours, _energy_text(each)


def _request_text(each: "GroupEstimate") -> str:
    require, parts = each.group.require, ["timed, a node each" if each.group.kind.is_timed else "not timed"]
    if (nodes := each.group.kind.layout.nodes) > 1:
        parts.append(f"{nodes} nodes")
    if each.gpus:
        name = f" ({require.gpu})" if require is not None and require.gpu else ""
        parts.append(plural(each.gpus, "GPU") + name)
    if require is not None and require.memory:
        parts.append(f"{require.memory} of memory")
    return ", ".join(parts)


def _energy_text(each: "GroupEstimate") -> str:
    """`at least 1.2 kWh (gpu 1.0, cpu 0.2 of 3 runs)`: the parts of the machine whose joules are known."""
    if not each.joules:
        return "unknown"
    runs, parts = len(each.group.cases), []
    for part, joules in each.joules.items():
        covered = each.runs_by_part[part]
        of = "" if covered == runs else f" of {plural(covered, 'run')}"
        parts.append(f"{part} {joules / J_PER_KWH:.2g}{of}")
    least = "at least " if each.without_energy else ""
    return f"{least}{each.total_joules / J_PER_KWH:.2g} kWh ({', '.join(parts)})"


def pairs_of(given: Sequence[str] | None) -> dict[str, str]:
    """Return the values of `--job-option NAME=VALUE` by name; raises InputError for another form."""
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise InputError(f"--job-option {name!r} is not NAME=VALUE, such as account=vision")
    return {name: value for name, _, value in pairs}
