"""What other programs read of a comparison: valid, complete, and unharmed by what names may hold."""

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.comparison import formats
from bench.comparison.comparing import compare
from bench.comparison.outcome import Comparison
from bench.errors import InputError
from bench.schema import Metric, Record

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
    assert found["verdicts"] == {"same": 1, "faster": 1, "slower": 1, "inconclusive": 1}
    assert {row["metric"]: row["verdict"] for row in found["rows"]}["latency.p50_ms"] == "slower"
    assert formats._finite({"a": [float("nan"), 1.0, float("inf")]}) == {"a": [None, 1.0, None]}


def test_markdown_keeps_its_table_whatever_a_name_holds(mixed: Comparison) -> None:
    text = formats.as_markdown(mixed)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert "slower" in table[2]  # the urgent ones first
    bars = [line.replace("\\|", "").count("|") for line in table]
    assert set(bars) == {9}
    assert "**Missing in head**" in text
    assert "**Failed**" in text
    assert "<b>" not in "".join(line for line in text.splitlines() if line.startswith("- "))


def test_annotations_are_one_line_each_and_escaped(mixed: Comparison) -> None:
    lines = formats.as_annotations(mixed).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::error", "::warning", "::notice"]
    assert all(line.count("::") >= 2 for line in lines)


def test_junit_can_be_parsed_and_counts_what_it_holds(mixed: Comparison) -> None:
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


def test_benchmark_entries_are_parted_by_what_is_better(record: Callable[..., Record], mixed: Comparison) -> None:
    entries = formats.as_benchmark_entries(mixed, "lower")
    assert {tuple(sorted(entry)) for entry in entries} == {("extra", "name", "unit", "value")}
    assert len(entries) == 4
    assert formats.as_benchmark_entries(mixed, "higher") == []


@pytest.mark.parametrize("name", ["a.md", "a.xml", "a.json", "a.smaller.json", "a.bigger.json"])
def test_a_file_is_written_as_its_name_says(mixed: Comparison, name: str) -> None:
    text = formats.as_file(mixed, name)
    parsed: Any = {"md": str, "xml": ElementTree.fromstring, "json": json.loads}[name.rsplit(".", maxsplit=1)[-1]](text)
    assert parsed is not None
    with pytest.raises(InputError, match=r"allowed: \.md"):
        formats.as_file(mixed, "a.pdf")
