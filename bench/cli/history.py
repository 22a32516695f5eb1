"""The command history: one metric over commits, or the alarms of all series.

Modules of the other rooms are imported inside the commands, so that `vbench --help` stays fast.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.arguments import AsJson
from bench.cli.console import print_json, print_table, print_text
from bench.cli.gate import BaselineFolder, Branch, Html, page_file
from bench.core.errors import InputError

if TYPE_CHECKING:
    from bench.comparison.alarms import Overview
    from bench.comparison.history import History, LevelChange, LevelDrift, MachineSeries

MIN_COMMITS = 10


def history(
    metric: Annotated[
        str | None,
        typer.Argument(metavar="METRIC", help="Such as latency.p50_ms, with labels if needed; a pattern without CASE."),
    ] = None,
    case: Annotated[
        str | None, typer.Argument(metavar="CASE", help="A case's id, or part or pattern of its title.")
    ] = None,
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
    """Show a metric over commits and the first commit of every new level; without CASE, the alarms of all series.

    Alarms are grouped by commit and cause. Each machine is a series of its own. Flaky series give no alarms.
    """
    from bench.comparison.baselines import current_branch, history_files
    from bench.comparison.series import read_series
    from bench.core.repository import given_repository, remote_repository
    from bench.core.units import plural

    if case is None and former:
        raise InputError("--former needs a CASE that continues it; `renamed:` in the suite does it for all series")
    files = given or history_files(current_branch(folder) if branch is None else branch, root=folder)
    pages = [file for file in (html, atom) if page_file(file) is not None]
    linked = None if repository is None else given_repository(repository)
    known = read_series(files)
    if metric is None or case is None or any(sign in metric for sign in "*?["):
        from bench.comparison.alarms import overview_of

        overview = overview_of(known, metric=metric or "*", case=case or "*", repository=folder)
        facts = asdict(overview)
        if as_json:
            print_json(facts)
        else:
            _show_overview(overview)
        if pages:
            from bench.reporting.history_page import write_alarm_feed, write_alarm_page

            linked = linked or remote_repository(folder)
            if html is not None:
                write_alarm_page(html, facts, repository=linked)
            if atom is not None:
                write_alarm_feed(atom, facts, repository=linked)
        return
    from bench.comparison.history import history_of

    found = history_of(known, metric, case, repository=folder, former=former or [])
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


def _show_overview(overview: "Overview") -> None:
    """Print each changed commit with its causes and metrics, then drifts, flaky series and steps that are no alarm."""
    from bench.comparison.alarms import moved_text
    from bench.comparison.noise import LASTING
    from bench.comparison.verdicts import one_line, percent
    from bench.core.units import plural

    machines = f" on {plural(len(overview.machines), 'kind')} of machine" if overview.machines else ""
    print_text(f"{plural(overview.series, 'series', 'series')} over {plural(overview.commits, 'commit')}{machines}")
    for group in (*overview.alarms, *overview.improvements):
        print_text(f"{group.verdict} from {one_line(group.first)}, after {one_line(group.last_before)}:")
        for cause in group.causes:
            print_text(f"  {cause}")
        cases: dict[tuple[str, str], list[str]] = {}
        for moved in group.moved:
            cases.setdefault((moved.case, moved.machine), []).append(moved_text(moved))
        for (title, machine), texts in cases.items():
            print_text(f"  {title}: {', '.join(texts)}{_on(machine, overview.machines)}")
    if overview.drifts:
        print_text("drifts, with no single commit as their cause:")
        for drift in overview.drifts:
            change = "changed" if drift.change is None else percent(drift.change)
            commits = f"{one_line(drift.first[:10])} to {one_line(drift.last[:10])}"
            where = _on(drift.machine, overview.machines)
            print_text(f"  {drift.case}: {drift.metric} {change} ({drift.verdict}) from {commits}{where}")
    if overview.quarantine:
        print_text("in quarantine, without alarms:")
        for each in overview.quarantine:
            until = plural(each.until_commits, "more commit")
            where = _on(each.machine, overview.machines)
            print_text(f"  {each.case}: {each.metric}{where}: {each.why}; until {until} on one level")
    if overview.unconfirmed:
        steps = "1 step is" if overview.unconfirmed == 1 else f"{overview.unconfirmed} steps are"
        print_text(f"{steps} no alarm: shorter than {LASTING} commits, small, within the noise or in quarantine")
    if overview.without_canary:
        print_text(f"{plural(overview.without_canary, 'series', 'series')} not normalised by a canary")
    print_text(plural(len(overview.alarms), "alarm") if overview.alarms else "no alarm")


def _on(machine: str, names: "Mapping[str, str]") -> str:
    return f" on {names[machine]} ({machine})" if len(names) > 1 and machine in names else ""


def _show_history(history: "History") -> None:
    """Print one line per commit, marked if the level changed, then each step in a sentence."""
    from bench.comparison.verdicts import one_line
    from bench.core.units import format_value, plural

    changes = {(change.first.commit, change.machine): change for change in history.changes}
    is_normalised = any(machine.canary for machine in history.machines)
    has_machines = len(history.machines) > 1
    rows = []
    for each in history.commits:
        value, normal = format_value(each.value, history.unit), format_value(each.normalised, history.unit)
        normalised = [normal] if is_normalised else []
        machine = [each.machine] if has_machines else []
        mark = _mark(changes.get((each.commit, each.machine)))
        rows.append((each.started_at[:16], one_line(each.commit[:10]), *machine, value, *normalised, each.runs, mark))
    columns = ["measured", "commit", *["machine"] * has_machines, "value", *["normalised"] * is_normalised, "runs", ""]
    print_text(one_line(f"{history.metric} of {history.case.title}"))
    print_table(tuple(columns), rows, right=("value", "normalised", "runs"))
    for about in history.machines:
        print_text(_machine_sentence(about, history.unit))
    if history.former:
        print_text(f"continues {', '.join(map(one_line, history.former))}")
    for runs, why in _left_out(history):
        if runs:
            print_text(f"{plural(runs, 'run')} left out: {why}")
    if history.order == "measured" and len(history.commits) > 1:
        print_text("in the order of measuring: git here does not know all commits, and not all records have dates")
    for change in history.changes:
        where = f" on {change.machine}" if has_machines else ""
        print_text(f"{_change_sentence(change, history.unit)}{where}{'; an alarm' if change.is_alarm else ''}")
    for drift in history.drifts:
        print_text(_drift_sentence(drift, history.unit))
    if not (history.changes or history.drifts):
        print_text(f"no step in {plural(len(history.commits), 'commit')}{_power(history)}")


def _machine_sentence(machine: "MachineSeries", unit: str) -> str:
    """Return what one machine contributes: its level, its noise, the canary, and a quarantine."""
    from bench.comparison.verdicts import one_line, percent
    from bench.core.units import format_value, plural

    noise = percent(machine.noise, signed=False)
    parts = [f"{machine.id} ({one_line(machine.name)}): {plural(machine.commits, 'commit')}"]
    parts += [f"level {format_value(machine.level, unit)}", f"noise {noise} a commit"]
    if machine.canary:
        missing = f", {plural(machine.without_canary, 'run')} without" if machine.without_canary else ""
        parts.append(f"normalised by the canary ({machine.canary}{missing})")
    else:
        parts.append("not normalised by a canary")
    text = ", ".join(parts)
    if machine.quarantine is None:
        return text
    until = plural(machine.quarantine.until_commits, "more commit")
    return f"{text}; in quarantine, without alarms: {machine.quarantine.why}; until {until} on one level"


def _drift_sentence(drift: "LevelDrift", unit: str) -> str:
    from bench.comparison.verdicts import one_line, percent
    from bench.core.units import format_value

    change = percent(drift.after / drift.before - 1) if drift.before > 0 else "changed"
    levels = f"{format_value(drift.before, unit)} before, {format_value(drift.after, unit)} after"
    commits = f"{one_line(drift.first.commit)} to {one_line(drift.last.commit)}"
    where = f" on {drift.machine}" if drift.machine else ""
    return f"drift, {drift.verdict}: {change} ({levels}) from {commits}{where}; no single commit is its cause"


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
