"""Charts without a script: points are where their values are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.static_chart import BOTTOM, BOX_LEFT, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, static_chart


def scatter(xs: list[float], ys: list[float], **rest: object) -> dict[str, object]:
    return {"type": "scatter", "mode": "markers", "x": xs, "y": ys, **rest}


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle class="\w+" cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_points_are_at_their_values_with_a_margin_of_a_twentieth() -> None:
    svg = str(static_chart([scatter([0.0, 5.0, 10.0], [0.0, 5.0, 10.0])], {}, alt=""))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    expected = [(LEFT + width * s, HEIGHT - BOTTOM - height * s) for s in (0.05 / 1.1, 0.5, 1.05 / 1.1)]
    assert places(svg) == [pytest.approx(each, abs=0.06) for each in expected]


def test_a_logarithmic_axis_places_a_tenfold_always_equally_far() -> None:
    layout = {"xaxis": {"type": "log"}}
    (a, _), (b, _), (c, _) = places(str(static_chart([scatter([1.0, 10.0, 100.0], [1, 1, 2])], layout, alt="")))
    assert b - a == pytest.approx(c - b, abs=0.11)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5), st.booleans())
def test_ticks_are_few_and_on_the_axis(values: list[float], is_log: bool) -> None:
    values = [abs(value) + 1e-6 for value in values] if is_log else values
    axis = Axis.over(values, 0.0, 100.0, is_log=is_log)
    assert len(axis.ticks) < 70
    assert all(-0.1 <= place <= 100.1 for place, _ in axis.ticks)


def test_names_of_points_are_text() -> None:
    svg = str(static_chart([scatter([1.0], [1.0], text=["&lt;b&gt;x"])], {}, alt='"<i>'))
    assert "&lt;b&gt;x" in svg
    assert "<i>" not in svg


def test_a_line_without_markers_keeps_the_text_at_its_end() -> None:
    trace = scatter([1.0, 2.0], [1.0, 2.0], mode="lines+text", text=["", "7"])
    svg = str(static_chart([trace], {}, alt=""))
    assert "<circle" not in svg
    assert re.findall(r"<text [^>]*>(7)</text>", svg) == ["7"]


@pytest.mark.parametrize("traces", [[], [{"type": "box", "x": [1], "y": [1]}], [scatter([], [])]])
def test_other_charts_have_no_static_form(traces: list[dict[str, object]]) -> None:
    assert static_chart(traces, {}, alt="") == ""


def test_boxes_are_at_their_quantiles() -> None:
    """Over 0 to 100 with a margin of 5 the axis has 110 units."""
    trace = {"type": "box", "y": ["a &lt;b&gt;"], "lowerfence": [0.0], "q1": [25.0], "median": [50.0], "q3": [75.0]}
    svg = str(static_chart([{**trace, "upperfence": [100.0]}], {}, alt=""))
    unit = (WIDTH - RIGHT - BOX_LEFT) / 110
    (x, width) = map(float, re.findall(r'class="box" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)[0])
    assert (x, width) == pytest.approx((BOX_LEFT + 30 * unit, 50 * unit), abs=0.11)
    (low, high) = map(float, re.findall(r'class="whisker" x1="([\d.]+)" x2="([\d.]+)"', svg)[0])
    assert (low, high) == pytest.approx((BOX_LEFT + 5 * unit, BOX_LEFT + 105 * unit), abs=0.11)
    assert "a &lt;b&gt;" in svg
