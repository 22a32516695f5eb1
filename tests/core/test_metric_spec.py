"""Declared metrics: what a declaration accepts, and what the measures of this package declare."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.metric_spec import MetricSpec
from bench.core.registry import MEASURES, find_metric_spec, metric_problem, register_measure

ALL_MEASURES = {entry.name: entry for entry in MEASURES}
WAIT = MetricSpec("mine.wait_ms", "ms", "lower", title="Wait", meaning="time in the queue")


def test_a_value_has_the_name_unit_and_direction_of_its_declaration() -> None:
    metric = WAIT.metric(2.5, labels={"batch": "8"}, note="rough")
    assert (metric.key, metric.value, metric.unit, metric.better) == ("mine.wait_ms{batch=8}", 2.5, "ms", "lower")
    assert metric.note == "rough"


@given(st.one_of(st.none(), st.floats(allow_nan=True), st.integers(-(10**9), 10**9)))
def test_a_value_that_is_not_finite_becomes_unknown(value: float | None) -> None:
    metric = WAIT.metric(value)
    assert metric.value == value if value is not None and abs(value) < float("inf") else metric.value is None


@pytest.mark.parametrize(
    ("name", "better", "title", "meaning", "words"),
    [
        ("Mine.wait", "lower", "W", "m", "metric 'Mine.wait' cannot be declared"),
        ("wait", "lower", "W", "m", "such as 'sparsity.zeros_percent'"),
        ("mine.wait{batch=8}", "lower", "W", "m", "measure.quantity_unit"),
        ("mine.wait", "less", "W", "m", "better 'lower', 'higher' or None"),
        ("mine.wait", "lower", " ", "m", "metric 'mine.wait' is declared without a title"),
        ("mine.wait", "lower", "W", "", "metric 'mine.wait' is declared without a meaning"),
    ],
)
def test_a_declaration_that_cannot_be_shown_is_refused(
    name: str, better: str, title: str, meaning: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        MetricSpec(name, "ms", better, title=title, meaning=meaning)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metrics", "duration_s", "words"),
    [
        ([WAIT, WAIT], 1.0, "measure 'mine' declares metric 'mine.wait_ms' twice"),
        ([MetricSpec("other.wait_ms", "ms", None, title="W", meaning="m")], 1.0, "begin with 'mine.'"),
        ([WAIT], -1.0, "measure 'mine' declares duration_s=-1.0"),
        ([WAIT], float("nan"), "a number of seconds, 0 or more"),
        ([WAIT], float("inf"), "a number of seconds, 0 or more"),
    ],
)
def test_a_measure_that_declares_something_odd_is_refused(
    metrics: list[MetricSpec], duration_s: float, words: str
) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        register_measure("mine", depends_on=(), version=1, metrics=metrics, duration_s=duration_s)
    assert "mine" not in MEASURES


def test_a_labelled_name_finds_the_declaration_of_its_base() -> None:
    top1 = find_metric_spec("accuracy.top1")
    assert top1 is not None
    assert find_metric_spec("accuracy.top1{mode=attentive}") is top1
    assert find_metric_spec("accuracy.top1_of_none") is None
    assert find_metric_spec("gone.total") is None


def test_every_measure_declares_metrics_a_headline_and_a_duration() -> None:
    for entry in MEASURES:
        assert any(spec.headline and spec.stands_in_for is None for spec in entry.metrics), entry.name
        assert entry.duration_s > 0


def test_no_two_metrics_have_one_title() -> None:
    titles = [spec.title for entry in MEASURES for spec in entry.metrics]
    assert sorted(titles) == sorted(set(titles))


def test_stand_ins_name_a_headline_of_their_own_measure() -> None:
    for entry in MEASURES:
        headlines = {spec.name for spec in entry.metrics if spec.headline}
        assert {spec.stands_in_for for spec in entry.metrics if spec.stands_in_for} <= headlines


@pytest.mark.parametrize("name", ["latency.p50_ms", "latency.p50_ms{batch=8}", "latency.*", "*.p50_ms", "parity.*"])
def test_the_name_of_a_declared_metric_or_a_pattern_of_some_is_no_problem(name: str) -> None:
    assert metric_problem(name, ALL_MEASURES) == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("latency.p50_m", "did you mean: latency.p50_ms"),
        ("latncy.p50_ms{batch=8}", "did you mean: latency.p50_ms"),
        ("macs.total", "did you mean: "),
        ("nothing*", "are known, among them"),
    ],
)
def test_a_misspelt_metric_is_named_with_the_nearest_one(name: str, hint: str) -> None:
    problem = metric_problem(name, ALL_MEASURES)
    assert problem.startswith(f"unknown metric {name.partition('{')[0]!r}; ")
    assert hint in problem


def test_a_measure_that_declares_no_metrics_may_have_any() -> None:
    undeclared = replace(ALL_MEASURES["latency"], name="mine", metrics=())
    assert metric_problem("mine.anything_ms", {**ALL_MEASURES, "mine": undeclared}) == ""
    assert metric_problem("mine.anything_ms", ALL_MEASURES) != ""
