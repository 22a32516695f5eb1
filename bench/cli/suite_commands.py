"""The commands `run`, `plan` and `report`."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import STAGE, AsJson, RecipeChanges, WaitIdle, check_folder, seconds_of, wait_idle_seconds
from bench.cli.cluster import (
    cluster_facts,
    pairs_of,
    require_executor,
    show_cluster_estimate,
    submit,
    worker_command,
)
from bench.cli.console import duration, print_json, print_table, print_text
from bench.cli.run_display import LiveRun, first_finding, print_prediction_files, print_summary, write_report
from bench.cli.run_events import JsonEvents
from bench.cli.run_serving import served_report
from bench.core.errors import InputError
from bench.core.units import plural

if TYPE_CHECKING:
    from bench.core.yaml_tree import Tree
    from bench.runner.running import Plan, Rerun
    from bench.runner.selection import Selection
    from bench.runner.work_queue import SharedWorker


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


Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Only every N-th case from the I-th on, such as 3/8.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Only cases whose title, model or measure matches; repeatable."),
]
CaseIds = Annotated[
    list[str] | None,
    typer.Option("--case", metavar="ID", help="Only this case, by the id that `plan` prints; repeatable."),
]
CLUSTER = "On a cluster"
ExecutorName = Annotated[
    str | None,
    typer.Option("--executor", metavar="NAME", help="The engine of a cluster: slurm or ray.", rich_help_panel=CLUSTER),
]
MaxJobs = Annotated[int, typer.Option(min=1, metavar="N", help="Most jobs at once.", rich_help_panel=CLUSTER)]
Gres = Annotated[
    str | None, typer.Option(metavar="LIST", help="SLURM's resources of a job: gpu:1.", rich_help_panel=CLUSTER)
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="GPUs of a job of Ray; those that the suite requires.", rich_help_panel=CLUSTER
    ),
]
JobTime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Limit of a SLURM job: 2:00:00, 1-12; one hour.", rich_help_panel=CLUSTER),
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="N", min=0, max=65535, help="Port of --serve; a free one if not given."),
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print failed runs, the summary and the report only.")] = False,
    shard: Shard = None,
    only: Only = None,
    case: CaseIds = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Start no run after this time, such as 2h; cases without a result come first."
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Run one case at a time on each: cuda:0,cuda:1 or all; cpu,cpu for untimed cases."
        ),
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER:TARGET", help="Send records also to mlflow:URI, wandb:PROJECT or trackio:PROJECT."
        ),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Print each event as a line of JSON instead of text.")
    ] = False,
    trust: Trust = False,
    identify: Identify = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the report in a browser of this machine while the suite runs.")
    ] = False,
    port: Port = None,
    executor: ExecutorName = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once the jobs are submitted.", rich_help_panel=CLUSTER)
    ] = False,
    max_jobs: MaxJobs = 16,
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="SLURM's partition.", rich_help_panel=CLUSTER)
    ] = None,
    gres: Gres = None,
    gpus: Gpus = None,
    time: JobTime = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Ray's cluster; RAY_ADDRESS.", rich_help_panel=CLUSTER)
    ] = None,
    job_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another option of sbatch; repeatable.", rich_help_panel=CLUSTER),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            STAGE,
            metavar="[=DIR]",
            help="Run jobs from a copy of the working tree, in DIR or in the results folder; edits do not reach it.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    submission: Annotated[str | None, typer.Option(hidden=True)] = None,
    kind: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the pending cases of a suite, then write its report.

    Code of the suite runs: its plug-ins and `module:factory` models.
    """
    from bench.runner.devices import lanes_from_text
    from bench.runner.running import run as run_suite
    from bench.runner.sending import open_sinks
    from bench.runner.submitting import follow

    check_folder(out)
    wait_idle_s = wait_idle_seconds(wait_idle)
    tree = read_trusted_suite(suite, small=small, trust=trust, changes=changes)
    chosen = _selection(shard, only, case, kind=kind)
    options: dict[str, Any] = {"out": out, "small": small, "rerun": _rerun(rerun), "selection": chosen}
    sinks = open_sinks(sink or ())
    events = JsonEvents() if log_json else None
    of_a_job = {"address": address, "partition": partition, "gres": gres, "gpus": gpus, "time": time}
    require_executor(executor, {**of_a_job, "job-option": job_option, "detach": detach or None, "stage": stage})
    if executor is not None:
        if devices is not None or budget is not None:
            raise InputError("--devices and --budget are for this machine; give jobs their limits by --gres and --time")
        command = partial(
            worker_command,
            flags={"--small": small, "--trust": trust, "--identify": identify},
            values={"--rerun": rerun, "--wait-idle": wait_idle, "--shard": shard},
            lists={"--set": changes, "--only": only, "--case": case},
        )
        job = {**of_a_job, "options": pairs_of(job_option)}
        sent = submit(
            tree,
            suite,
            executor,
            command=command,
            job=job,
            most_jobs=max_jobs,
            stage=stage,
            announce=(lambda kind, text: print_text(text)) if events is None else events.step,
            **options,
        )
        if detach:
            raise typer.Exit(0)
        measure = partial(follow, sent, sinks=sinks)
    else:
        measure = partial(
            run_suite,
            tree,
            **options,
            identify=identify,
            wait_idle_s=wait_idle_s,
            worker=_shared_worker(worker, submission, out=out),
            lanes=() if devices is None else lanes_from_text(devices),
            sinks=sinks,
            budget_s=None if budget is None else seconds_of(budget, flag="--budget"),
        )
    served = partial(served_report, tree, port=_served_port(port, serve=serve))
    if events is not None:
        with served(events.show, announce=events.serving) as show:
            summary = measure(on_event=show)
        events.end(summary, write_report(summary.folder) if summary.has_results else None)
        raise typer.Exit(summary.exit_code)
    live = LiveRun(is_quiet=quiet, writes_report=not serve)
    announce = partial(print_text, "report while the suite runs:")
    with live.running(), served(live.show, announce=announce) as show:
        summary = measure(on_event=show)
    if worker is not None:  # the report is written by who follows all workers
        print_summary(summary)
        raise typer.Exit(0)
    for note in summary.notes:
        print_text(note)
    print_summary(summary)
    if not summary.has_results:
        print_text("nothing was measured, so there is no report")
        raise typer.Exit(summary.exit_code)
    print_prediction_files(summary)
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
    shard: Shard = None,
    only: Only = None,
    case: CaseIds = None,
    trust: Trust = False,
    as_json: AsJson = False,
    why: Annotated[bool, typer.Option("--why", help="Explain why each pending run would run.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="List only stale results, and what changed.")] = False,
    executor: ExecutorName = None,
    max_jobs: MaxJobs = 16,
    gres: Gres = None,
    gpus: Gpus = None,
    time: JobTime = None,
) -> None:
    """Show the cases of a suite, which of them are done, and how long the rest will take.

    With --executor, also the hours, GPU hours and energy of its jobs on a cluster.
    Code of the suite runs: its plug-ins and `module:factory` models.
    """
    from bench.runner.running import plan as plan_suite

    check_folder(out)
    if stale and (as_json or executor is not None):
        other = "--json" if as_json else "--executor"
        raise InputError(f"--stale lists results as text, so {other} is not for it; --json has the reason of each case")
    of_a_job = {"gres": gres, "gpus": gpus, "time": time}
    require_executor(executor, of_a_job)
    tree = read_trusted_suite(suite, small=small, trust=trust, changes=changes)
    chosen = _selection(shard, only, case)
    planned = plan_suite(tree, out=out, small=small, selection=chosen, is_elsewhere=executor is not None)
    if executor is not None:
        from bench.runner.cluster_estimate import estimate_on_cluster
        from bench.runner.submitting import open_executor

        estimate = estimate_on_cluster(planned, open_executor(executor, of_a_job), most_jobs=max_jobs)
        if as_json:
            print_json({**_plan_facts(planned), "cluster": {"executor": executor, **cluster_facts(estimate)}})
        else:
            show_plan(planned)
            show_cluster_estimate(estimate, executor=executor)
    elif as_json:
        print_json(_plan_facts(planned))
    elif stale:
        _print_reasons(planned, only="stale")
    else:
        show_plan(planned)
    if why and not as_json and not stale:
        _print_reasons(planned)


def _shared_worker(name: str | None, submission: str | None, *, out: Path | None) -> "SharedWorker | None":
    from bench.runner.executor import Submission
    from bench.runner.work_queue import SharedWorker

    if name is None:
        return None
    marks = None if submission is None or out is None else Submission.read(out, submission).marks
    return SharedWorker(name=name, marks=marks)


def _selection(
    shard: str | None, only: list[str] | None, cases: list[str] | None, *, kind: str | None = None
) -> "Selection":
    from bench.runner.job_kind import JobKind
    from bench.runner.selection import Selection, shard_from_text

    return Selection(
        shard=None if shard is None else shard_from_text(shard),
        only=tuple(only or ()),
        cases=tuple(cases or ()),
        kind=None if kind is None else JobKind.from_text(kind),
    )


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
    with_frames: Annotated[
        bool,
        typer.Option("--with-frames", help="Show frames of the videos behind errors; check that you may publish them."),
    ] = False,
    root: Annotated[
        Path | None, typer.Option("--root", help="With --with-frames: the folder of the data set, if it has moved.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the site again after every new record; open pages follow.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the site in a browser of this machine; open pages follow.")
    ] = False,
    port: Port = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", metavar="MODULE", help="A module with sections of your own.")
    ] = None,
) -> None:
    """Write an HTML report of stored results: a folder of pages over data files, or a single file."""
    from bench.core.registry import import_plugins
    from bench.reporting.site import report as write_site

    import_plugins(plugin or [])
    place = out or Path("report.html" if single_file else "report")
    for flag in [flag for flag, is_given in (("--watch", watch), ("--serve", serve)) if is_given and single_file]:
        raise InputError(f"{flag} writes a folder, and --single-file one file; give one of them")
    if with_frames and (watch or serve):
        raise InputError("--with-frames reads videos, so a report that is written again (--watch, --serve) has none")
    served_port = _served_port(port, serve=serve)
    if watch or serve:
        from bench.reporting.watching import LiveReport, serving
        from bench.reporting.watching import watch as write_again

        live = LiveReport(list(results), out=place, title=title)
        with serving(live, port=served_port) if served_port is not None else nullcontext("") as address:
            if address:
                print_text(f"report: {address} until Ctrl-C")
            write_again(live, wait=sleep, on_written=lambda index: print_text(f"report: {index}"))
    index = write_site(results, out=place, title=title, single_file=single_file, with_frames=with_frames, root=root)
    print_text(f"report: {index}")


def _served_port(port: int | None, *, serve: bool) -> int | None:
    """The port of the server, 0 for any free one; None without a server."""
    if port is not None and not serve:
        raise InputError("--port is the port of --serve, which is not given")
    return (port or 0) if serve else None


def _plan_facts(planned: "Plan") -> dict[str, Any]:
    pending = planned.pending
    left = {(case.id, index) for case, index in pending}
    reasons, estimate = planned.reasons(), planned.estimate()
    elsewhere = Counter(case.id for case, _ in planned.not_here)
    return {
        "suite": planned.suite.name,
        "out": str(planned.store.folder),
        "runs": sum(case.runs for case in planned.suite.cases),
        "left": len(pending),
        "unsupported": len(planned.not_here),
        "estimate_s": None if estimate.unknown else round(estimate.left_s, 1),
        "unknown": estimate.unknown,
        "absent": list(planned.absent),
        "other_environments": planned.other_environments(),
        "doubtful": dict(planned.doubtful()),
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "measures": list(case.measures),
                "runs": case.runs,
                "left": sum((case.id, index) in left for index in range(case.runs)),
                "unsupported": planned.unsupported.get(case.id) if elsewhere[case.id] else None,
                "done": case.runs - elsewhere[case.id] - sum((case.id, index) in left for index in range(case.runs)),
                "run_s": None if (run_s := estimate.run_s(case)) is None else round(run_s, 1),
                "why": list(dict.fromkeys(reasons[case.id, i] for i in range(case.runs) if (case.id, i) in left)),
                "point": case.point.model_dump(mode="json", exclude_none=True),
            }
            for case in planned.suite.cases
        ],
    }


def show_plan(planned: "Plan") -> None:
    from bench.runner.running import unsupported_lines

    facts = _plan_facts(planned)
    rows = [
        (
            c["id"],
            c["title"],
            ", ".join(c["measures"]),
            f"{c['done']}/{c['runs']}",
            "unknown" if c["run_s"] is None else f"about {duration(c['run_s'])}",
        )
        for c in facts["cases"]
    ]
    print_table(("case", "point", "measures", "done", "time of a run"), rows, right=("done", "time of a run"))
    left = _time_left(planned) if facts["left"] else "nothing is left to run"
    done = sum(c["done"] for c in facts["cases"])
    print_text(f"{facts['suite']}: {plural(len(rows), 'case')}, {done} of {facts['runs']} runs done; {left}")
    for line in unsupported_lines(planned):
        print_text(line)
    for line in facts["absent"]:
        print_text(f"absent: {line}")
    for line in facts["other_environments"]:
        print_text(f"measured in another environment: {line}")
    if facts["doubtful"]:
        kinds = ", ".join(f"{number} {status}" for status, number in sorted(facts["doubtful"].items()))
        print_text(f"doubtful, so not ranked: {kinds}; repeat them on an idle machine with --rerun all --wait-idle")


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
