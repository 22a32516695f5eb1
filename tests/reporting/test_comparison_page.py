"""The page of a comparison: the terminal's verdicts with their intervals."""

import math
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.comparison.verdicts import MetricVerdict
from bench.reporting.comparison_page import LONGEST_NAME, NAME_WIDTH, WIDTH, write_comparison_page

HOSTILE = "</svg><script>alert(1)</script>"


def verdict(case: str = "c3d", **rest: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "suite": "demo",
        "case_id": "0123",
        "case": case,
        "metric": "latency.p50_ms",
        "unit": "ms",
        "better": "lower",
        "base": 10.0,
        "head": 12.0,
        "runs": (5, 5),
        "verdict": "worse",
        "reason": "+20 %",
        "ratio": 1.2,
        "interval": (1.15, 1.25),
        "detectable": 0.03,
        "limit": "3%",
    }
    return asdict(MetricVerdict(**{**fields, **rest}))


def page_of(make: SimpleNamespace, folder: Path, rows: list[dict[str, Any]], **rest: Any) -> Any:
    facts = {"base": "main", "head": "topic", "headline": "1 worse", **rest}
    html = write_comparison_page(folder / "page.html", rows, **facts).read_text(encoding="utf-8")
    return make.page(html), html


def test_verdicts_have_both_sides_interval_and_detectable_change(make: SimpleNamespace, tmp_path: Path) -> None:
    page, _ = page_of(
        make, tmp_path, [verdict(), verdict("r3d", ratio=None, interval=None, head=None, detectable=None)]
    )
    assert page.tables["verdicts"][1][:9] == [
        "worse",
        "c3d|suite demo",
        "latency.p50_ms",
        "10 ms",
        "12 ms",
        "+20.0|+15.0 to +25.0",
        "3.0",
        "3%",
        "5 and 5",
    ]
    assert page.tables["verdicts"][2][4:7] == ["–", "–", "–"]
    assert "Base: main. Head: topic." in page.text


def test_points_are_placed_by_the_logarithm_of_the_ratio(make: SimpleNamespace, tmp_path: Path) -> None:
    """A half and a double are equally far from the line of no change."""
    rows = [verdict("a", ratio=r, interval=None, detectable=None) for r in (0.5, 1.0, 2.0)]
    _, html = page_of(make, tmp_path, rows)
    left, middle, right = (float(x) for x in re.findall(r'<circle class="worse" cx="([\d.]+)"', html))
    assert middle == NAME_WIDTH + (WIDTH - NAME_WIDTH) / 2
    assert math.isclose(middle - left, right - middle, abs_tol=0.11)


def test_names_in_a_comparison_are_text(make: SimpleNamespace, tmp_path: Path) -> None:
    page, html = page_of(make, tmp_path, [verdict(HOSTILE, metric=HOSTILE)], lists=[(HOSTILE, [HOSTILE])], base=HOSTILE)
    assert html.count("<script>") == 1, "the page's own script"
    assert page.text.count(HOSTILE) >= 5


def test_a_comparison_of_nothing_is_a_page(make: SimpleNamespace, tmp_path: Path) -> None:
    page, _ = page_of(
        make, tmp_path, [], headline="nothing was compared", lists=[("Missing in head", ["c3d: no record"])]
    )
    assert "nothing was compared" in page.text
    assert "c3d: no record" in page.text


def test_urgent_verdicts_come_first_and_are_drawn_if_there_are_many(make: SimpleNamespace, tmp_path: Path) -> None:
    """A hundred rows, of which sixty are drawn; the one that is worse is the last of them."""
    rows = [verdict(f"even {number}", verdict="same") for number in range(99)] + [verdict("bad one", verdict="worse")]
    _, html = page_of(make, tmp_path, rows)
    assert html.index("bad one") < html.index("even 0")


def test_changed_layers_come_before_the_verdicts_that_they_move(make: SimpleNamespace, tmp_path: Path) -> None:
    causes = [("worse", "net: blocks.<2> added: +1 GMACs (nets.py:19)", ["net 16x1x112: macs.forward +5.0 %"])]
    _, html = page_of(make, tmp_path, [verdict()], causes=causes)
    places = [
        html.index(text) for text in ("Changed layers", "blocks.&lt;2&gt; added", "macs.forward +5.0 %", "Verdicts<")
    ]
    assert places == sorted(places)
    assert "Changed layers" not in page_of(make, tmp_path, [verdict()])[1]


def test_a_small_change_is_not_written_as_none(make: SimpleNamespace, tmp_path: Path) -> None:
    """One parameter more of 78 million is 1.3e-6 %, and worse if the limit is 0 %."""
    base, head = 78_409_573, 78_409_574
    changed = verdict(base=base, head=head, unit="elements", ratio=head / base, interval=None, metric="params.total")
    page, _ = page_of(make, tmp_path, [changed])
    assert page.tables["verdicts"][1][5] == "+0.0000013"
    assert page.titles["verdicts"][1][3:5] == ["78,409,573 elements", "78,409,574 elements"]


@pytest.mark.parametrize("end", ["", f":factory argument={'v' * 80} 16x1x112"])
def test_long_names_of_cases_stay_distinguishable(make: SimpleNamespace, tmp_path: Path, end: str) -> None:
    names = [f"{'package.' * 12}model_{number}{end}" for number in range(3)]
    _, html = page_of(make, tmp_path, [verdict(name) for name in names])
    drawn = re.findall(r'<text x="0" y="[^"]+">(.*?)</text>', html)
    assert len(set(drawn)) == 3
    assert all(len(text) <= LONGEST_NAME for text in drawn)
    assert html.count('<td class="text long broken">') == 3, "so that the other columns stay on the page"
