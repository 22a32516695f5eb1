"""Charts as data."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.chart import Chart, as_script, axis, escaped, log_axis, merged, tick_labels
from bench.reporting.results import collect


def with_colours(data: Any) -> Any:
    """`data` with the style sheet's colours replaced by one that plotly's own checks know."""
    if isinstance(data, dict):
        return {key: with_colours(value) for key, value in data.items()}
    if isinstance(data, list):
        return [with_colours(value) for value in data]
    return "#123456" if isinstance(data, str) and data.startswith("var(--") else data


def test_plotly_accepts_every_chart_of_a_report(make: SimpleNamespace) -> None:
    import plotly.graph_objects as go

    page = make.page(make.report(collect(make.quickstart(), [make.quickstart_facts])))
    figures = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert len(figures) == 6
    for figure in figures:
        go.Figure(with_colours(figure))


def test_data_cannot_end_their_script_element() -> None:
    hostile = {"name": "</script><script>alert(1)</script>&amp;", "x": [1.0, math.nan, math.inf]}
    text = str(as_script(hostile))
    assert "<" not in text
    assert json.loads(text) == {"name": hostile["name"], "x": [1.0, None, None]}


def test_plotly_shows_markup_in_names_as_it_is_written() -> None:
    assert escaped("<b>a</b> & b") == "&lt;b&gt;a&lt;/b&gt; &amp; b"
    assert axis("<i>x</i>")["title"]["text"] == "&lt;i&gt;x&lt;/i&gt;"


def test_a_chart_has_a_text_alternative(make: SimpleNamespace) -> None:
    html = Chart(name="n", traces=[], caption="Cap <b>", alt="Told").html()
    assert 'aria-label="Told"' in html
    assert "Cap &lt;b&gt;" in html


def test_long_names_on_an_axis_are_cut_and_stay_unique() -> None:
    assert tick_labels(["c3d depth=1, fp32", "c3d depth=3, fp32", "r3d"], longest=12) == [
        "c3d depth=1…",
        "c3d depth=3…",
        "r3d",
    ]
    names = ["trained:kinetics700/first", "trained:kinetics700/other", "fp32"]
    assert tick_labels(names, longest=13) == ["traine…/first", "traine…/other", "fp32"]
    assert tick_labels(["aaaa-1-bbbb", "aaaa-2-bbbb", "aaaa-2-bbbb"], longest=8) == [
        "aaaa-1-…",
        "aaaa-2-…",
        "aaaa-2-…\N{ZERO WIDTH SPACE}",
    ]


@given(names=st.lists(st.text("ab&\N{ZERO WIDTH SPACE}", max_size=9)))
def test_no_two_places_of_an_axis_have_one_name(names: list[str]) -> None:
    labels = tick_labels(names, longest=5)
    assert len(set(labels)) == len(labels) == len(names)


def test_ticks_of_a_logarithmic_axis_are_full_numbers() -> None:
    found = log_axis("x", [3.0, 60.0, math.nan])
    shown = [text for tick, text in zip(found["tickvals"], found["ticktext"], strict=True) if 3 <= tick <= 60]
    assert shown == ["5", "10", "20", "50"]
    wide = log_axis("x", [0.01, 1000.0])
    assert [text for tick, text in zip(wide["tickvals"], wide["ticktext"], strict=True) if 0.01 <= tick <= 1000] == [
        "0.01", "0.1", "1", "10", "100", "1000"
    ]  # fmt: skip
    assert log_axis("x", [])["type"] == "log"


@pytest.mark.parametrize("over", [{"a": {"b": 2}}])
def test_layouts_are_laid_over_each_other(over: dict[str, Any]) -> None:
    base = {"a": {"b": 1, "c": 3}, "d": 4}
    assert merged(base, over) == {"a": {"b": 2, "c": 3}, "d": 4}
    assert base["a"] == {"b": 1, "c": 3}
