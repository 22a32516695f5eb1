"""What other programs read of a comparison: valid, complete, and unharmed by what names may hold."""

import json
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.comparison import formats
from bench.comparison.comparing import compare
from bench.comparison.verdicts import Comparison, MetricVerdict, UncomparedCase
from bench.core.errors import InputError
from bench.core.schema import Metric, Record

NASTY = 'm|`<b>"@x,:%\x00]]>\nz'
QUIET = [10.0, 10.02, 9.98, 10.01, 9.99]


@pytest.fixture
def mixed(record: Callable[..., Record], latency: Callable[..., Metric]) -> Comparison:
    """One verdict of each kind, one case missing, one failed, and a name that would break every form."""

    def side(factor: float) -> list[Record]:
        def metrics(v: float, noise: float) -> list[Metric]:
            return [
                latency(factor * v),
                latency(v / factor, name="latency.first_ms"),
                latency(v, name="latency.last_ms"),
                latency(noise, name="latency.odd_ms"),
            ]

        noisy = [10.0, 13.0, 8.2, 11.6, 9.5]
        return [record(*metrics(v, n), run=i, model=NASTY) for i, (v, n) in enumerate(zip(QUIET, noisy, strict=True))]

    base = [*side(1.0), record(latency(1.0), model="gone")]
    return compare(base, [*side(1.2), record(model="broken", status="oom")])


def test_json_holds_everything_and_no_number_that_json_lacks(mixed: Comparison) -> None:
    found = json.loads(formats.as_json(formats.as_dict(mixed)))
    assert found["exit_code"] == 3
    assert found["faults"] == ["incomplete", "inconclusive", "regression"]
    assert found["verdicts"] == {"same": 1, "better": 1, "worse": 1, "inconclusive": 1}
    assert {row["metric"]: row["verdict"] for row in found["rows"]}["latency.p50_ms"] == "worse"
    assert formats._finite({"a": [float("nan"), 1.0, float("inf")]}) == {"a": [None, 1.0, None]}


def test_markdown_keeps_its_table_whatever_a_name_holds(mixed: Comparison) -> None:
    text = formats.as_markdown(mixed)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert "worse" in table[2]  # the urgent ones first
    bars = [line.replace("\\|", "").count("|") for line in table]
    assert set(bars) == {9}
    assert "**Missing in head**" in text
    assert "**Failed**" in text
    assert "<b>" not in "".join(line for line in text.splitlines() if line.startswith("- "))


def test_annotations_are_one_line_each_and_escaped(mixed: Comparison) -> None:
    lines = formats.as_annotations(mixed).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::error", "::warning", "::notice"]
    assert all(line.count("::") >= 2 for line in lines)


def test_junit_can_be_parsed_and_its_counts_are_right(mixed: Comparison) -> None:
    for fail_on, expected in (
        (("regression", "inconclusive", "incomplete"), (1, 3)),
        (("regression",), (1, 0)),
        ((), (0, 0)),
    ):
        root = ElementTree.fromstring(formats.as_junit(mixed, fail_on=fail_on))
        suites = root.findall("testsuite")
        assert (len(root.findall(".//failure")), len(root.findall(".//error"))) == expected
        assert sum(int(s.get("failures", "")) for s in suites) == expected[0]
        assert sum(int(s.get("errors", "")) for s in suites) == expected[1]
        assert sum(int(s.get("tests", "")) for s in suites) == len(root.findall(".//testcase")) == 6


def test_an_empty_comparison_fails_in_every_form() -> None:
    empty = compare([], [])
    assert "nothing was compared" in formats.as_markdown(empty)
    assert formats.as_annotations(empty).startswith("::error")
    assert ElementTree.fromstring(formats.as_junit(empty, fail_on=())).find(".//error") is not None


def test_benchmark_entries_are_split_by_better_direction(mixed: Comparison) -> None:
    entries = formats.as_benchmark_entries(mixed, "lower")
    assert {tuple(sorted(entry)) for entry in entries} == {("extra", "name", "unit", "value")}
    assert len(entries) == 4
    assert formats.as_benchmark_entries(mixed, "higher") == []


@pytest.fixture
def alike(record: Callable[..., Record], latency: Callable[..., Metric]) -> Comparison:
    """The same case in two suites, and twice in one of them, with two values of one metric each."""
    places: list[dict[str, Any]] = [
        {"suite": "x"},
        {"suite": "y"},
        {"suite": "y", "measures": {"latency": {}, "cold": {}}},
    ]

    def side(day: int) -> list[Record]:
        def metrics(value: float) -> list[Metric]:
            return [latency(value, labels={"batch": batch}) for batch in ("1", "8")]

        return [
            record(*metrics(value), run=run, started_at=f"2026-01-{day:02d}T00:00:{run:02d}", **place)
            for place in places
            for run, value in enumerate(QUIET)
        ]

    return compare(side(1), side(2))


def test_every_entry_is_a_separate_series(alike: Comparison) -> None:
    """By its name github-action-benchmark knows what to compare an entry with."""
    names = [entry["name"] for entry in formats.as_benchmark_entries(alike, "lower")]
    assert len(names) == len(set(names)) == 6
    assert names[0] == "x: c3d 16x1x112 latency.p50_ms{batch=1}"
    ids = sorted({row.case_id for row in alike.rows if row.suite == "y"})
    assert len(ids) == 2
    assert all(any(f"y: c3d 16x1x112 ({case_id})" in name for name in names) for case_id in ids)


def test_a_series_keeps_its_name_when_its_suite_measures_more(
    record: Callable[..., Record], latency: Callable[..., Metric], params: Callable[[int], Metric]
) -> None:
    """What counts stands in a case of its own, of the same title as the one that times."""

    def compared(*more: Record) -> Comparison:
        return compare(*([*(record(latency(v), run=i) for i, v in enumerate(QUIET)), *more] for _ in "bh"))

    counted = record(params(7), measures={"params": {}})
    [alone] = formats.as_benchmark_entries(compared(), "lower")
    both = formats.as_benchmark_entries(compared(counted), "lower")
    assert [entry["name"] for entry in both] == [alone["name"], "s: c3d 16x1x112 params.total"]
    assert formats.as_bencher(compared(counted)) == {
        "s: c3d 16x1x112": {"latency.p50_ms": {"value": 10.0}, "params.total": {"value": 7}}
    }


@pytest.fixture
def lost(record: Callable[..., Record], latency: Callable[..., Metric]) -> Comparison:
    """Head no longer knows one of two metrics."""
    known = [record(latency(v), latency(v, name="latency.first_ms"), run=i) for i, v in enumerate(QUIET)]
    return compare(known, [r.model_copy(update={"metrics": (latency(None), r.metrics[1])}) for r in known])


def test_a_metric_that_head_lost_is_a_named_error(lost: Comparison) -> None:
    assert lost.exit_code() == 3
    assert formats.headline(lost) == "1 same; 1 lost"
    [line] = formats.as_annotations(lost).splitlines()
    assert line.startswith("::error title=lost%3A latency.p50_ms::c3d 16x1x112: known in base, unknown in head")


def test_the_headline_counts_deciding_verdicts(record: Callable[..., Record], latency: Callable[..., Metric]) -> None:
    noise = [10.0, 13.0, 8.2, 11.6, 9.5]
    runs = [
        record(latency(v), latency(n, name="latency.odd_ms"), run=i)
        for i, (v, n) in enumerate(zip(QUIET, noise, strict=True))
    ]
    gated = compare(runs, runs, gate={"latency.p50_ms": "3%"})
    assert gated.exit_code() == 0
    assert formats.headline(gated) == "1 same; 1 not gated"


def test_an_empty_comparison_states_why(record: Callable[..., Record], latency: Callable[..., Metric]) -> None:
    runs = [record(latency(None, note="no counter here"), run=i) for i in range(5)]
    nothing = compare(runs, runs)
    assert nothing.exit_code() == 3
    assert formats.headline(nothing) == "nothing was compared; 1 not gated"
    assert "no counter here" in formats.as_markdown(nothing)
    assert "nothing was compared" in formats.as_annotations(nothing)


def test_bencher_reads_values_by_benchmark_and_measure(alike: Comparison, mixed: Comparison) -> None:
    """Against the published schema: objects of objects of objects with a number `value`; measures of 64 characters."""
    found = json.loads(formats.as_file(alike, "a.bencher.json") or "")
    assert found["x: c3d 16x1x112 {batch=1}"] == {"latency.p50_ms": {"value": 10.0}}
    assert sum(len(measures) for measures in found.values()) == 6
    for measures in (*found.values(), *formats.as_bencher(mixed).values()):
        for name, each in measures.items():
            assert len(name) <= 64
            assert [(key, type(value)) for key, value in each.items()] == [("value", float)]


def test_nothing_to_track_is_no_file(mixed: Comparison) -> None:
    """An empty list is an error to github-action-benchmark."""
    assert formats.as_file(mixed, "a.bigger.json") is None
    assert formats.as_file(compare([], []), "a.bencher.json") is None


@pytest.mark.parametrize("name", ["a.md", "a.xml", "a.json", "a.smaller.json", "a.bencher.json"])
def test_the_ending_of_a_file_chooses_its_format(mixed: Comparison, name: str) -> None:
    text = formats.as_file(mixed, name)
    assert text is not None
    parsed: Any = {"md": str, "xml": ElementTree.fromstring, "json": json.loads}[name.rsplit(".", maxsplit=1)[-1]](text)
    assert parsed is not None
    with pytest.raises(InputError, match=r"allowed: \.md"):
        formats.as_file(mixed, "a.pdf")


def make_row(number: int, *, reason: str) -> MetricVerdict:
    return MetricVerdict(
        suite="s",
        case_id=f"c{number}",
        case=f"resnet3d_50 kernel_depth={number} precision=bf16 batch=8 16x1x112",
        metric="latency.p50_ms",
        unit="ms",
        better="lower",
        base=10.0,
        head=10.9,
        runs=(5, 5),
        verdict="worse",
        reason=reason,
    )


@pytest.mark.parametrize("rows", [0, 3, 1000])
@pytest.mark.parametrize("gaps", [0, 3, 500])
@pytest.mark.parametrize("length", [1, 60, 2000])
def test_markdown_fits_a_comment_and_names_what_it_leaves_out(rows: int, gaps: int, length: int) -> None:
    """GitHub refuses a comment of more than 65,536 characters."""
    text = ("why *not* <b> " * length)[: 3 * length]
    failed = [UncomparedCase(suite="s", case_id=f"{n}", case=f"c{n}", side="head", why=text) for n in range(gaps)]
    comparison = Comparison(
        base="b" * length,
        head="h",
        rows=tuple(make_row(n, reason=text) for n in range(rows)),
        failed=tuple(failed),
        missing=tuple(failed),
        notes=tuple(f"{n}: {text}" for n in range(gaps)),
    )
    shown = formats.as_markdown(comparison)
    assert len(shown) < 65_536
    table = [line for line in shown.splitlines() if line.startswith("| 🔴")]
    left = sum(int(n) for n in re.findall(r"^(\d+) further rows? left out", shown, re.MULTILINE))
    assert len(table) + left == rows
    listed = [line for line in shown.splitlines() if line.startswith("- ") and not line.startswith("- and ")]
    assert len(listed) + sum(int(n) for n in re.findall(r"^- and (\d+) more$", shown, re.MULTILINE)) == 3 * gaps
    if rows == gaps == 3:
        assert (len(table), len(listed)) == (3, 9)


def test_gitlab_finds_the_reason_in_the_text_and_jenkins_in_the_attribute(mixed: Comparison) -> None:
    root = ElementTree.fromstring(formats.as_junit(mixed))
    told = [each for kind in ("failure", "error", "skipped") for each in root.iter(kind)]
    assert len(told) == 4
    assert all(each.text and each.text == each.get("message") for each in told)
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(names) == len(set(names))


def test_equal_values_that_decide_nothing_have_no_change_in_percent(runs: Callable[..., list[Record]]) -> None:
    """Not `+0 s`, which is for changes that a percentage would hide."""
    [row] = compare(runs([10.0]), runs([10.0])).rows
    assert row.verdict == "inconclusive"
    assert formats.cells(row)[5] == "+0.00 %"


def test_texts_for_people_hold_no_control_characters(record: Callable[..., Record]) -> None:
    name = "m\x1b[2J\u202e\x07"
    found = compare([record(model=name, run=run) for run in range(2)], [record(model="other")])
    for text in (formats.as_markdown(found), formats.as_annotations(found)):
        assert not {"\x1b", "\u202e", "\x07"} & set(text)
        assert "x1b" in text
