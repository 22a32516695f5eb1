"""A metric over commits, or the alarms of all, as one HTML file, and regressions as an Atom feed (RFC 4287)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.core.repository import Repository
from bench.core.schema import digest
from bench.core.units import choose_scale, format_signed, format_value, plural
from bench.reporting.rendering import DrawnSection, harmless, link_list, render
from bench.reporting.site import write_single_page
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

WIDTH, HEIGHT, LEFT, BOTTOM = 860.0, 300.0, 70.0, 26.0
ATOM = "http://www.w3.org/2005/Atom"
TEMPLATE = """
<figure class="chart">
<svg class="history" data-explained viewBox="0 0 {{ width }} {{ height }}" role="group" aria-label="{{ alt }}">
{% for y, text in ticks %}
<line class="rule" x1="{{ left }}" x2="{{ width }}" y1="{{ y }}" y2="{{ y }}"></line>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{% endfor %}
{% for level in levels %}
<line class="level" x1="{{ level.x }}" x2="{{ level.end }}" y1="{{ level.y }}" y2="{{ level.y }}"></line>
{% endfor %}
{% for point in points %}
<a href="#{{ point.row }}" data-links="{{ point.links }}"><title>{{ point.text }}</title>
<circle class="{{ point.kind }}" cx="{{ point.x }}" cy="{{ point.y }}" r="{{ 6 if point.kind != 'even' else 4 }}">\
</circle></a>
{% endfor %}
</svg>
<figcaption>{{ alt }}. Horizontal lines are levels; a new level begins at a marked commit.</figcaption>
</figure>
{% for change in changes %}
<p class="loud"><strong>{{ change.verdict | capitalize }}{{ change.where }} from \
<a href="#{{ change.row }}"><code>{{ change.commit }}</code></a> on.</strong> {{ change.text }} {% if change.page %}
<a href="{{ change.page }}">What changed between the two</a>.{% endif %}</p>
{% endfor %}
"""


def write_history_page(
    file: Path, history: Mapping[str, Any], *, repository: Repository | None = None, notes: Sequence[str] = ()
) -> Path:
    """Write a page of `history` (as `vbench history --json` prints it) and return its path.

    Commits lead to their pages in the `repository`, if one is given.
    """
    title = f"{history['metric']} of {history['case']}"
    sections = [
        DrawnSection(name="chart", title="Over commits", html=_chart(history, repository)),
        DrawnSection(name="commits", title="Commits", html=_table(history, repository).html()),
    ]
    if machines := history.get("machines"):
        sections.append(DrawnSection(name="machines", title="Machines", html=_machines(machines, history["unit"])))
    if drifts := history.get("drifts"):
        sections.append(DrawnSection(name="drifts", title="Drifts", html=_drifts(drifts)))
    if notes:
        lines = render("<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>", notes=notes)
        sections.append(DrawnSection(name="notes", title="Left out", html=lines))
    return write_single_page(file, sections, title=title, description="")


def write_regression_feed(file: Path, history: Mapping[str, Any], *, repository: Repository | None = None) -> Path:
    """Write an Atom feed with one entry per commit from which on the metric is worse; returns its path.

    Entries link to the pages of their commits in the `repository`, if one is given.
    """
    name = harmless(f"{history['metric']} of {history['case']}")
    regressions = [change for change in history["changes"] if change["verdict"] == "worse"]
    newest = max((commit["started_at"] for commit in history["commits"]), default="1970-01-01T00:00:00+00:00")
    feed = ElementTree.Element("feed", xmlns=ATOM)
    _add(feed, "title", f"Regressions of {name}")
    _add(feed, "id", f"urn:vbench:{digest(name)}")
    _add(feed, "updated", newest)
    _add(ElementTree.SubElement(feed, "author"), "name", "vbench")
    for change in reversed(regressions):
        commit = change["first"]["commit"]
        entry = ElementTree.SubElement(feed, "entry")
        # Several machines may become worse at one commit, and ids of entries must be unique.
        machine = change["machine"] if len(history.get("machines", ())) > 1 else ""
        where = f" on {harmless(machine)}" if machine else ""
        _add(entry, "title", f"{name} is worse{where} from {harmless(commit[:10])} on")
        _add(entry, "id", f"urn:vbench:{digest(name)}:{digest(commit)}{f':{digest(machine)}' if machine else ''}")
        _add(entry, "updated", change["first"]["started_at"])
        if page := _commit_page(repository, commit):
            ElementTree.SubElement(entry, "link", rel="alternate", href=page)
        _add(entry, "content", harmless(_change_text(change, history["unit"])))
    file.write_text(ElementTree.tostring(feed, encoding="unicode", xml_declaration=True) + "\n", encoding="utf-8")
    return file


def write_alarm_page(file: Path, overview: Mapping[str, Any], *, repository: Repository | None = None) -> Path:
    """Write a page of `overview` (as `vbench history --json` prints it without a case) and return its path.

    Commits lead to their pages in the `repository`, if one is given.
    """

    def commit_cell(commit: str) -> TableCell:
        return TableCell(text=commit, href=_commit_page(repository, commit))

    names = overview["machines"]
    drifts = [{**each, "machine": names.get(each["machine"], "")} for each in overview["drifts"]]
    flaky = [{**each, "machine": names.get(each["machine"], "")} for each in overview["quarantine"]]
    groups = [*overview["alarms"], *overview["improvements"]]
    sections = [
        DrawnSection(
            name="alarms",
            title="Alarms and improvements",
            html=_text_table(
                "alarm-table",
                "Commits with a new level, and what changed there",
                ("Verdict", "From commit", "After", "Cause", "Metrics"),
                [
                    (
                        g["verdict"],
                        commit_cell(g["first"]),
                        commit_cell(g["last_before"]),
                        "; ".join(g["causes"]),
                        _moved_text(g, names),
                    )
                    for g in groups
                ],
            ),
        ),
        DrawnSection(name="drifts", title="Drifts", html=_drifts(drifts)),
        DrawnSection(
            name="quarantine",
            title="Quarantine",
            html=_text_table(
                "quarantine-table",
                "Flaky series, which give no alarms",
                ("Case", "Metric", "Machine", "Why", "Until"),
                [
                    (
                        each["case"],
                        each["metric"],
                        each["machine"],
                        each["why"],
                        f"{plural(each['until_commits'], 'more commit')} on one level",
                    )
                    for each in flaky
                ],
            ),
        ),
    ]
    title = f"{plural(len(overview['alarms']), 'alarm')} in {plural(overview['commits'], 'commit')}"
    return write_single_page(file, sections, title=title, description="")


def write_alarm_feed(file: Path, overview: Mapping[str, Any], *, repository: Repository | None = None) -> Path:
    """Write an Atom feed with one entry per alarm, a commit from which on metrics are worse; returns its path.

    Entries link to the pages of their commits in the `repository`, if one is given.
    """
    feed = ElementTree.Element("feed", xmlns=ATOM)
    _add(feed, "title", "Alarms")
    _add(feed, "id", "urn:vbench:alarms")
    newest = max((group["measured_at"] for group in overview["alarms"]), default="1970-01-01T00:00:00+00:00")
    _add(feed, "updated", newest)
    _add(ElementTree.SubElement(feed, "author"), "name", "vbench")
    for group in reversed(overview["alarms"]):
        entry = ElementTree.SubElement(feed, "entry")
        causes = harmless("; ".join(group["causes"])) or plural(len(group["moved"]), "metric")
        _add(entry, "title", f"Worse from {harmless(group['first'][:10])} on: {causes}")
        _add(entry, "id", f"urn:vbench:alarm:{digest(group['first'])}")
        _add(entry, "updated", group["measured_at"])
        if page := _commit_page(repository, group["first"]):
            ElementTree.SubElement(entry, "link", rel="alternate", href=page)
        _add(entry, "content", harmless(_moved_text(group, overview["machines"])))
    file.write_text(ElementTree.tostring(feed, encoding="unicode", xml_declaration=True) + "\n", encoding="utf-8")
    return file


def _moved_text(group: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the metrics of an alarm with their changes: `net 16x1x112: latency.p50_ms +5.0 % on H100`."""
    found = []
    for moved in group["moved"]:
        change = "changed" if moved["change"] is None else f"{format_signed(100 * moved['change'], 1)} %"
        machine = f" on {names[moved['machine']]}" if moved["machine"] in names else ""
        found.append(f"{moved['case']}: {moved['metric']} {change}{machine}")
    return "; ".join(found)


def _text_table(name: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str | TableCell]]) -> Any:
    """Return a table of text; `none` if it has no rows."""
    if not rows:
        return render("<p>None.</p>")
    made = tuple(
        TableRow(cells=tuple(cell if isinstance(cell, TableCell) else TableCell(text=cell) for cell in row))
        for row in rows
    )
    return Table(name=name, caption=caption, heads=tuple(ColumnHead(name=head) for head in heads), rows=made).html()


def _machines(machines: Sequence[Mapping[str, Any]], unit: str) -> Any:
    """Return the table of the machines of a history, with the noise, the canary and a quarantine of each."""
    rows = [
        (
            machine["id"],
            machine["name"],
            str(machine["commits"]),
            format_value(machine["level"], unit),
            f"{100 * machine['noise']:.2f} %",
            machine["canary"] or "none",
            (machine["quarantine"] or {}).get("why", ""),
        )
        for machine in machines
    ]
    heads = ("Machine", "Name", "Commits", "Level", "Noise of one commit", "Normalised by the canary", "In quarantine")
    return _text_table("machine-table", "Each machine is a series of its own", heads, rows)


def _drifts(drifts: Sequence[Mapping[str, Any]]) -> Any:
    """Return the table of drifts: of one history, whose commits are mappings, or of an overview."""
    rows = []
    for drift in drifts:
        first, last = (end["commit"] if isinstance(end, Mapping) else end for end in (drift["first"], drift["last"]))
        before = drift.get("before", 0)
        change = drift["change"] if "change" in drift else drift["after"] / before - 1 if before > 0 else None
        text = "changed" if change is None else f"{format_signed(100 * change, 1)} %"
        what = f"{drift['case']}: {drift['metric']}" if "case" in drift else "this metric"
        rows.append((what, drift["machine"], text, drift["verdict"], first, last))
    heads = ("Series", "Machine", "Change", "Verdict", "From commit", "To commit")
    return _text_table("drift-table", "Levels that move gradually: no single commit is the cause", heads, rows)


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text


def _commit_page(repository: Repository | None, commit: str) -> str:
    """The address of the page of a commit; empty if there is none."""
    return repository.commit_page(commit) if repository else ""


def _chart(history: Mapping[str, Any], repository: Repository | None) -> Any:
    commits, unit = history["commits"], history["unit"]
    machines = {each["id"]: each for each in history.get("machines", ())}
    is_relative = len(machines) > 1  # machines of unlike speed are drawn as shares of their own levels
    values = [_drawn(commit, commit["value"], machines, is_relative=is_relative) for commit in commits]
    drawn_unit = "%" if is_relative else unit
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    scale = choose_scale(values, drawn_unit)

    def x_of(number: int) -> float:
        return round(LEFT + 12 + number * (WIDTH - LEFT - 24) / max(1, len(commits) - 1), 1)

    def y_of(value: float) -> float:
        return 8 + round((high - value) / (high - low) * (HEIGHT - BOTTOM - 8), 1)

    places = {_key(commit): number for number, commit in enumerate(commits)}
    firsts = {_key(change["first"]): change for change in history["changes"]}
    points = [
        {
            "x": x_of(number),
            "y": y_of(value),
            "row": _row_id(number),
            "links": link_list(
                [
                    (f"#{_row_id(number)}", "Row of the table"),
                    (_commit_page(repository, commit["commit"]), "Its commit"),
                ]
            ),
            "kind": firsts.get(_key(commit), {}).get("verdict", "even"),
            "text": f"{commit['commit'][:10]}: {format_value(commit['value'], unit)}",
        }
        for number, (commit, value) in enumerate(zip(commits, values, strict=True))
    ]
    levels = [] if is_relative else _levels(history, x_of, y_of, places)
    changes = [
        {
            "verdict": change["verdict"],
            "where": f" on {change['machine']}" if len(machines) > 1 else "",
            "commit": change["first"]["commit"][:10],
            "row": _row_id(places[_key(change["first"])]),
            "text": _change_text(change, unit),
            "page": repository.changes_page(change["last_before"]["commit"], change["first"]["commit"])
            if repository
            else "",
        }
        for change in history["changes"]
    ]
    marks = [low + pad, (low + high) / 2, high - pad]
    return render(
        TEMPLATE,
        points=points,
        levels=levels,
        changes=changes,
        ticks=[(y_of(value), scale.text(value)) for value in marks],
        alt=f"{history['metric']} over {plural(len(commits), 'commit')}, in "
        + ("percent of the level of each machine" if is_relative else scale.unit or "its own unit"),
        width=f"{WIDTH:g}",
        height=f"{HEIGHT:g}",
        left=LEFT,
    )


def _key(commit: Mapping[str, Any]) -> tuple[str, str]:
    return commit["commit"], commit.get("machine", "")


def _drawn(
    commit: Mapping[str, Any], value: float, machines: Mapping[str, Mapping[str, Any]], *, is_relative: bool
) -> float:
    """Return the value without the speed of the machine; `is_relative`: in percent of the machine's level."""
    normal: float = commit.get("normalised", value)
    return 100 * normal / machines[commit["machine"]]["level"] if is_relative else normal


def _levels(history: Mapping[str, Any], x_of: Any, y_of: Any, places: Mapping[Any, int]) -> list[dict[str, float]]:
    """One horizontal line per level: from its first commit to the one before the next level."""
    changes, last = history["changes"], len(history["commits"]) - 1
    if not changes:
        return []
    starts = [0, *(places[_key(change["first"])] for change in changes)]
    heights = [changes[0]["step"]["before"], *(change["step"]["after"] for change in changes)]
    ends = [*(start - 1 for start in starts[1:]), last]
    return [
        {"x": x_of(start), "end": x_of(end), "y": y_of(height)}
        for start, end, height in zip(starts, ends, heights, strict=True)
    ]


def _change_text(change: Mapping[str, Any], unit: str) -> str:
    step = change["step"]
    before, after = format_value(step["before"], unit), format_value(step["after"], unit)
    share = f" ({format_signed(100 * (step['after'] / step['before'] - 1), 1)} %)" if step["before"] > 0 else ""
    return f"{before} before, {after} after{share}; the last commit before is {change['last_before']['commit'][:10]}."


def _table(history: Mapping[str, Any], repository: Repository | None) -> Table:
    verdicts = {_key(change["first"]): change["verdict"] for change in history["changes"]}
    machines = history.get("machines", ())
    unit, has_machines = history["unit"], len(machines) > 1
    is_normalised = any(machine["canary"] for machine in machines)
    heads = (
        ColumnHead(name="Commit"),
        ColumnHead(name="Measured"),
        *([ColumnHead(name="Machine")] if has_machines else []),
        ColumnHead(name="Value", unit=unit, is_number=True, meaning="median over the runs of the commit"),
        *(
            [
                ColumnHead(
                    name="Normalised", unit=unit, is_number=True, meaning="without the speed that the canary shows"
                )
            ]
            if is_normalised
            else []
        ),
        ColumnHead(name="Runs", is_number=True),
        ColumnHead(name="New level"),
    )
    rows = tuple(
        TableRow(
            cells=(
                TableCell(text=commit["commit"], href=_commit_page(repository, commit["commit"])),
                TableCell(text=commit["started_at"]),
                *([TableCell(text=commit["machine"])] if has_machines else []),
                TableCell(text=format_value(commit["value"], unit), sort=commit["value"]),
                *(
                    [TableCell(text=format_value(commit["normalised"], unit), sort=commit["normalised"])]
                    if is_normalised
                    else []
                ),
                TableCell(text=str(commit["runs"]), sort=commit["runs"]),
                TableCell(text=verdicts[_key(commit)]) if _key(commit) in verdicts else TableCell(),
            ),
            anchor=_row_id(number),
        )
        for number, commit in enumerate(history["commits"])
    )
    return Table(name="commit-table", caption="Commits in their order", heads=heads, rows=rows)


def _row_id(number: int) -> str:
    return f"commit-{number + 1}"
