"""A comparison for people and programs: JSON, Markdown, GitHub annotations, JUnit XML, benchmark entries."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from itertools import accumulate, takewhile
from typing import Any
from xml.etree import ElementTree

from bench.comparison.verdicts import (
    FAULTS,
    VERDICTS,
    Comparison,
    MetricVerdict,
    UncomparedCase,
    Verdict,
    amount,
    one_line,
    percent,
)
from bench.core.control_characters import visible
from bench.core.errors import InputError
from bench.core.schema import Better
from bench.core.units import format_value, plural

# What XML 1.0 cannot hold, even escaped.
UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
URGENCY: tuple[Verdict, ...] = ("worse", "inconclusive", "better", "same")
MARKS: dict[Verdict, str] = {"worse": "🔴", "inconclusive": "🟡", "better": "🟢", "same": "⚪"}
# A GitHub comment has at most 65,536 characters: these are for the table and for the lists below it.
SHOWN_ROWS, TABLE_SIZE = 200, 40_000
MOST_SAME_ROWS, MOST_SAME_BESIDE_CHANGES = 6, 2  # more rows that are the same are folded
SHOWN_LINES, LISTS_SIZE = 40, 20_000
LONGEST_TEXT = 400
SMALLEST_SHARE = 5e-5  # half of 0.01 %, the last digit of a percentage


def shown_rows(comparison: Comparison) -> list[MetricVerdict]:
    """Return rows for people, urgent ones first: all that decide, and of the others those that changed.

    Rows that a changed layer explains are left out, because `cause_lines` has them. If nothing was compared, returns
    all rows, because their reasons explain why.
    """
    changed = ("worse", "better")
    explained = {id(row) for cause in comparison.causes for row in comparison.moved_by(cause)}
    rows = [
        row
        for row in comparison.rows
        if id(row) not in explained and (comparison.is_empty or row.is_deciding or row.verdict in changed)
    ]
    return sorted(rows, key=lambda row: (not row.is_deciding, URGENCY.index(row.verdict)))


def folded_rows(comparison: Comparison) -> tuple[list[MetricVerdict], list[MetricVerdict]]:
    """Return the rows to show, and those that are the same if there are many, which a summary replaces.

    Next to changes fewer of them are shown, so that the changes are seen.
    """
    rows = shown_rows(comparison)
    same = [row for row in rows if row.verdict == "same"]
    has_changes = len(same) < len(rows) or bool(comparison.causes)
    if len(same) <= (MOST_SAME_BESIDE_CHANGES if has_changes else MOST_SAME_ROWS):
        return rows, []
    return [row for row in rows if row.verdict != "same"], same


def cause_lines(comparison: Comparison) -> list[tuple[Verdict, str, list[str]]]:
    """Return verdict and changed layers of each changed model, and a line per case with the metrics they move."""
    found: list[tuple[Verdict, str, list[str]]] = []
    for cause in comparison.causes:
        rows = comparison.moved_by(cause)
        deciding = {row.verdict for row in rows if row.is_deciding} or {row.verdict for row in rows}
        if not rows:
            continue
        cases: dict[str, list[str]] = {}
        for row in rows:
            cases.setdefault(one_line(row.case), []).append(_moved(row))
        lines = [f"{case}: {', '.join(moved)}" for case, moved in cases.items()]
        source = f" ({cause.source})" if cause.source else ""
        found.append(("worse" if "worse" in deciding else "better", one_line(f"{cause}{source}"), lines))
    return sorted(found, key=lambda each: URGENCY.index(each[0]))


def _moved(row: MetricVerdict) -> str:
    """Return one metric under a cause: its change, with the interval if it is uncertain; `not gated` if it is not."""
    change = _change(row)
    if row.ratio is None:
        change = f"{format_value(row.base, row.unit)} to {format_value(row.head, row.unit)}"
    interval = row.interval and f" ({' to '.join(percent(end - 1) for end in row.interval)})"
    mark = "" if row.is_deciding else " (not gated)"
    return f"{one_line(row.metric)} {change}{interval or ''}{mark}"


def cells(row: MetricVerdict) -> tuple[str, str, str, str, str, str, str]:
    """Return verdict, case, metric, base, head, change and reason of a row as text."""
    marks = [word for word, holds in (("across", row.is_across), ("not gated", not row.is_deciding)) if holds]
    verdict = f"{row.verdict} ({', '.join(marks)})" if marks else row.verdict
    change = _change(row)
    base, head = format_value(row.base, row.unit), format_value(row.head, row.unit)
    return verdict, one_line(row.case), one_line(row.metric), base, head, change, one_line(row.reason)


def _change(row: MetricVerdict) -> str:
    """Return the change in percent; as an amount if the percentage rounds to 0 and the values differ."""
    if row.ratio is None:
        return "–"
    is_hidden = row.verdict != "same" and row.base != row.head and abs(row.ratio - 1) < SMALLEST_SHARE
    if is_hidden and row.base is not None and row.head is not None:
        return amount(row.head - row.base, row.unit)
    return percent(row.ratio - 1)


def headline(comparison: Comparison) -> str:
    """Return one line: the number of deciding verdicts of each kind, and the gaps of the comparison."""
    deciding = Counter(row.verdict for row in comparison.rows if row.is_deciding and not row.is_missing)
    verdicts = ", ".join(f"{deciding[verdict]} {verdict}" for verdict in URGENCY if deciding[verdict])
    gaps = {
        "lost": sum(row.is_deciding and row.is_missing for row in comparison.rows),
        "missing": len(comparison.missing),
        "added": len(comparison.added),
        "failed": len(comparison.failed),
        "unmeasured": len(comparison.unmeasured),
        "not gated": sum(not row.is_deciding for row in comparison.rows),
    }
    rest = ", ".join(f"{n} {name}" for name, n in gaps.items() if n)
    summary = verdicts or "nothing was compared"
    return f"{summary}; {rest}" if rest else summary


def sections(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return what could not be compared and the notes, as titled lists of lines; empty ones are left out."""
    found = [
        ("Missing in head", _counted(f"{each.case}: {each.why}" for each in comparison.missing)),
        ("Failed", _counted(map(_failure, comparison.failed))),
        ("Gated but not measured", list(comparison.unmeasured)),
        ("Added in head", _counted(f"{each.case}: {each.why}" for each in comparison.added)),
        ("Compared across unlike environments", [str(each) for each in comparison.unlike]),
        ("Notes", list(comparison.notes)),
    ]
    return [(title, list(map(one_line, lines))) for title, lines in found if lines]


def _failure(each: UncomparedCase) -> str:
    """Return a failure without the number of its run, so that runs that failed alike are one line."""
    why = re.sub(r"^run \d+ of (\d+) ended", r"a run of \1 ended", each.why)
    return f"{each.case} in {each.side}: {why}"


def _counted(lines: Iterable[str]) -> list[str]:
    """Return each line once, with how often it occurs."""
    return [line if count == 1 else f"{line} ({count} times)" for line, count in Counter(lines).items()]


def as_dict(comparison: Comparison, *, fail_on: Collection[str] = FAULTS) -> dict[str, Any]:
    """Return everything for JSON; numbers that are not finite are null."""
    found: dict[str, Any] = _finite(asdict(comparison))
    counts = {verdict: comparison.count(verdict) for verdict in VERDICTS}
    faults = sorted(comparison.faults)
    return {"exit_code": comparison.exit_code(fail_on=fail_on), "faults": faults, "verdicts": counts, **found}


def as_markdown(comparison: Comparison) -> str:
    """Return a summary for a job or a pull request: headline, table, gaps; short enough for a comment."""
    lines = [
        "### vbench compare",
        "",
        f"{headline(comparison)}.",
        "",
        f"Base {_code(comparison.base)}, head {_code(comparison.head)}.",
    ]
    causes = [
        line
        for verdict, title, found in cause_lines(comparison)
        for line in (f"- {MARKS[verdict]} **{verdict}**: {_plain(title)}", *(f"  - {_plain(each)}" for each in found))
    ]
    if causes:
        shown = _fitting(causes, most=SHOWN_ROWS, size=TABLE_SIZE // 4)
        left = len(causes) - len(shown)
        lines += ["", *shown, *([f"- and {plural(left, 'further line')}"] if left else [])]
    rows, same = folded_rows(comparison)
    lines += _table(rows, size=TABLE_SIZE // 2)
    if same:
        lines += ["", f"<details><summary>{len(same)} metrics are the same</summary>"]
        lines += [*_table(same, size=TABLE_SIZE // 4), "", "</details>"]
    room = LISTS_SIZE
    for title, found in sections(comparison):
        items = [f"- {_plain(line)}" for line in found]
        shown = _fitting(items, most=SHOWN_LINES, size=room)
        room -= sum(map(len, shown))
        left = len(items) - len(shown)
        lines += ["", f"**{title}**", "", *shown, *([f"- and {left} more"] if left else [])]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[MetricVerdict], *, size: int) -> list[str]:
    """Return a Markdown table of as many rows as fit into `size` characters, and how many are left out."""
    if not rows:
        return []
    lines = [_table_line(row) for row in rows]
    shown = _fitting(lines, most=SHOWN_ROWS, size=size)
    left = len(lines) - len(shown)
    return [
        "",
        "| | verdict | case | metric | base | head | change | why |",
        "|---|---|---|---|---:|---:|---:|---|",
        *shown,
        *(["", f"{plural(left, 'further row')} left out."] if left else []),
    ]


def _fitting(lines: Sequence[str], *, most: int, size: int) -> list[str]:
    """Return the first lines, at most `most` lines and `size` characters."""
    taken = list(takewhile(lambda sum_: sum_ <= size, accumulate(len(line) + 1 for line in lines[:most])))
    return list(lines[: len(taken)])


def as_annotations(comparison: Comparison) -> str:
    """Return workflow commands that GitHub shows next to a run: an error, a warning or a notice per line."""
    lines = [_command("error", "gated but not measured", rule) for rule in comparison.unmeasured]
    lines += [_command("error", f"missing: {each.case}", each.why) for each in comparison.missing]
    lines += [_command("error", f"failed: {each.case}", each.why) for each in comparison.failed if each.side == "head"]
    levels = {"worse": "error", "inconclusive": "warning", "better": "notice"}
    for cause in comparison.causes:
        rows = [row for row in comparison.moved_by(cause) if row.is_deciding]
        if rows:
            verdict = "worse" if any(row.verdict == "worse" for row in rows) else "better"
            text = "; ".join(f"{row.case}: {_moved(row)}" for row in rows[:SHOWN_LINES])
            lines.append(_command(levels[verdict], f"{verdict}: {cause}", text, source=cause.source))
    for row in shown_rows(comparison):
        if row.is_deciding and row.is_missing:
            lines.append(_command("error", f"lost: {row.metric}", f"{row.case}: {row.reason}"))
        elif row.is_deciding and row.verdict in levels:
            lines.append(_command(levels[row.verdict], f"{row.verdict}: {row.metric}", f"{row.case}: {row.reason}"))
    if comparison.is_empty:
        lines.append(_command("error", "nothing was compared", headline(comparison)))
    return "".join(f"{line}\n" for line in lines)


def as_junit(comparison: Comparison, *, fail_on: Collection[str] = FAULTS) -> str:
    """Return JUnit XML, one test per metric; metrics without a gate and faults not in `fail_on` are skipped tests."""
    root = ElementTree.Element("testsuites", name="vbench compare")
    cases = dict.fromkeys((row.suite, row.case) for row in comparison.rows)
    for suite, case in cases:
        tests = [_test(row, fail_on) for row in comparison.rows if (row.suite, row.case) == (suite, case)]
        _add_suite(root, f"{suite}: {case}", tests)
    gaps = [_gap(each, "missing", fail_on) for each in comparison.missing]
    gaps += [_gap(each, "failed", fail_on) for each in comparison.failed if each.side == "head"]
    gaps += [_outcome(_element("gate", rule), "error", "incomplete", rule, fail_on) for rule in comparison.unmeasured]
    if comparison.is_empty:
        gaps.append(_outcome(_element("gate", "something is compared"), "error", "incomplete", "nothing was", FAULTS))
    if gaps:
        _add_suite(root, "what could not be compared", gaps)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_benchmark_entries(comparison: Comparison, better: Better) -> list[dict[str, Any]]:
    """Return head's values as `customSmallerIsBetter` (`lower`) or `customBiggerIsBetter` (`higher`) entries.

    github-action-benchmark reads this format and keeps a series by name; `extra` is the verdict with its reason.
    """
    return [
        {
            "name": f"{name} {row.metric}",
            "unit": row.unit,
            "value": row.head,
            "extra": f"{row.verdict}: {row.reason}",
        }
        for name, row in _tracked(comparison)
        if row.better == better
    ]


def as_bencher(comparison: Comparison) -> dict[str, dict[str, dict[str, float]]]:
    """Return head's values in the Bencher Metric Format of `bencher run --adapter json`: by benchmark and measure.

    Labels are part of the benchmark's name, because a measure's name has at most 64 characters.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, row in _tracked(comparison):
        measure, brace, labels = row.metric.partition("{")
        assert row.head is not None
        found.setdefault(f"{name} {brace}{labels}".rstrip(), {})[measure] = {"value": row.head}
    return found


def _tracked(comparison: Comparison) -> list[tuple[str, MetricVerdict]]:
    """Return the rows with a known value and a better direction, each with a unique name of its case.

    Trackers start a new series if a name changes. So the name always has the suite, and the case id only if two cases
    with the same title have the metric.
    """
    alike = Counter(series for series, _ in {(_series(row), row.case_id) for row in comparison.rows})
    return [
        (f"{row.suite}: {row.case}" + (f" ({row.case_id})" if alike[_series(row)] > 1 else ""), row)
        for row in comparison.rows
        if row.better is not None and row.head is not None and math.isfinite(row.head)
    ]


def _series(row: MetricVerdict) -> tuple[str, str, str]:
    return row.suite, row.case, row.metric


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _table_line(row: MetricVerdict) -> str:
    verdict, case, metric, base, head, change, why = cells(row)
    named = [MARKS[row.verdict], verdict, _code(case), _code(metric)]
    return "| " + " | ".join([*named, *map(_plain, (base, head, change, why))]) + " |"


def _code(text: str) -> str:
    """Return text as Markdown code: no markup, no mention of a user, no end of a table cell."""
    return "`" + _short(text.replace("`", "'")).replace("|", "\\|") + "`"


def _short(text: str) -> str:
    """Return one line, cut if it is very long."""
    line = visible(one_line(text))
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def _plain(text: str) -> str:
    escaped = re.sub(r"([\\|*_~\[\]])", r"\\\1", _short(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")


def _command(level: str, title: str, message: str, *, source: str = "") -> str:
    """Return a workflow command, at `source`, a `file:line`, if it is known."""
    file, _, line = source.rpartition(":")
    place = f"file={_escaped(file, also=':,')},line={line}," if file and line.isdigit() else ""
    return f"::{level} {place}title={_escaped(one_line(title), also=':,')}::{_escaped(message)}"


def _escaped(text: str, *, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in f"%\r\n{also}" else c for c in visible(text))


def _add_suite(root: ElementTree.Element, name: str, tests: list[ElementTree.Element]) -> None:
    kinds = {kind: sum(test.find(kind) is not None for test in tests) for kind in ("failure", "error", "skipped")}
    counts = {"tests": len(tests), "failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _printable(name), **{k: str(n) for k, n in counts.items()}}
    )
    suite.extend(tests)


def _test(row: MetricVerdict, fail_on: Collection[str]) -> ElementTree.Element:
    test = _element(f"{row.suite}.{row.case}", row.metric)
    if not row.is_deciding:
        return _outcome(test, "skipped", "", f"not gated, {row.verdict}: {row.reason}", fail_on)
    if row.is_missing:
        return _outcome(test, "error", "incomplete", row.reason, fail_on)
    if row.verdict == "worse":
        return _outcome(test, "failure", "regression", row.reason, fail_on)
    if row.verdict == "inconclusive":
        return _outcome(test, "error", "inconclusive", row.reason, fail_on)
    ElementTree.SubElement(test, "system-out").text = _printable(f"{row.verdict}: {row.reason}")
    return test


def _gap(each: UncomparedCase, name: str, fail_on: Collection[str]) -> ElementTree.Element:
    return _outcome(_element(f"{each.suite}.{each.case}", name), "error", "incomplete", each.why, fail_on)


def _outcome(
    test: ElementTree.Element, kind: str, fault: str, message: str, fail_on: Collection[str]
) -> ElementTree.Element:
    """Return `test` with its result; a fault that is not in `fail_on` is skipped."""
    does_fail = kind != "skipped" and fault in fail_on
    attributes = {"message": _printable(message), **({"type": fault} if does_fail else {})}
    # Jenkins shows the attribute, GitLab the text.
    ElementTree.SubElement(test, kind if does_fail else "skipped", attributes).text = _printable(message)
    return test


def _element(classname: str, name: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", {"classname": _printable(classname), "name": _printable(name)})


def _printable(text: str) -> str:
    return UNPRINTABLE.sub("\ufffd", text)


def as_file(comparison: Comparison, name: str, *, fail_on: Collection[str] = FAULTS) -> str | None:
    """Return the comparison in the format that the file name's ending selects; raises InputError for other endings.

    Returns None if there is nothing to track, because programs that read entries reject an empty list.
    """
    return _ENDINGS[ending_of(name)](comparison, fail_on)


def ending_of(name: str) -> str:
    """Return the ending of a file name that selects the format; raises InputError for other endings."""
    for ending in _ENDINGS:
        if name.endswith(ending):
            return ending
    raise InputError(f"{name}: the ending selects the format; allowed: {', '.join(_ENDINGS)}")


def _unless_empty(entries: Collection[Any]) -> str | None:
    return as_json(entries) if entries else None


_ENDINGS: dict[str, Callable[[Comparison, Collection[str]], str | None]] = {
    ".md": lambda comparison, _: as_markdown(comparison),
    ".xml": lambda comparison, fail_on: as_junit(comparison, fail_on=fail_on),
    ".smaller.json": lambda comparison, _: _unless_empty(as_benchmark_entries(comparison, "lower")),
    ".bigger.json": lambda comparison, _: _unless_empty(as_benchmark_entries(comparison, "higher")),
    ".bencher.json": lambda comparison, _: _unless_empty(as_bencher(comparison)),
    ".json": lambda comparison, fail_on: as_json(as_dict(comparison, fail_on=fail_on)),
}
