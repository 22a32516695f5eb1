"""The gate on records small enough to judge by eye, and on arbitrary ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.comparison.comparing import compare
from bench.comparison.verdicts import VERDICTS, Comparison
from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import Environment, Metric, Record
from bench.store import RecordStore

Runs = Callable[..., list[Record]]
Make = Callable[..., Any]

QUIET = [10.00, 10.02, 9.98, 10.01, 9.99]
NOISY = [10.0, 11.0, 9.2, 10.6, 9.5]


def times(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def only(comparison: Comparison) -> Any:
    assert len(comparison.rows) == 1
    return comparison.rows[0]


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [
        (1.0, "same", 0),
        (1.01, "same", 0),
        (0.99, "same", 0),
        (1.05, "worse", 1),
        (0.95, "better", 0),
        (2.0, "worse", 1),
    ],
)
def test_a_change_beyond_three_percent_is_called_and_one_within_is_not(
    runs: Runs, factor: float, verdict: str, code: int
) -> None:
    comparison = compare(runs(QUIET), runs(times(QUIET, factor)))
    row = only(comparison)
    assert (row.verdict, comparison.exit_code()) == (verdict, code)
    assert row.ratio == pytest.approx(factor)
    assert row.interval[0] <= row.ratio <= row.interval[1]
    assert (row.detectable is not None) == (verdict == "same")


def test_the_better_direction_is_read_from_the_metric(runs: Runs, record: Make) -> None:
    def throughput(factor: float) -> list[Record]:
        values = enumerate(times(QUIET, factor))
        return [
            record(Metric(name="throughput.clips_per_s", value=v, unit="clips/s", better="higher"), run=i)
            for i, v in values
        ]

    assert only(compare(throughput(1), throughput(1.1))).verdict == "better"
    assert only(compare(throughput(1), throughput(0.9))).verdict == "worse"


@pytest.mark.parametrize(("limit", "named"), [("max_drop", "-"), ("max_rise", "+")])
def test_the_change_that_would_have_been_seen_is_to_the_side_that_is_guarded(
    runs: Runs, limit: str, named: str
) -> None:
    """On the scale of logarithms both sides are alike; a drop by half is as far as a rise by the double."""
    head = runs(times(QUIET, 1.001))
    row = only(compare(runs(QUIET), head, gate={"latency.p50_ms": {limit: "50%"}}))
    assert row.detectable == pytest.approx(0.5, abs=0.02)
    assert row.detectable > 0.5
    assert f"minimum detectable change: {named}50." in row.reason


def test_noise_as_wide_as_the_limit_is_inconclusive_and_names_the_runs_needed(runs: Runs) -> None:
    comparison = compare(runs(NOISY), runs(NOISY[::-1]))
    assert only(comparison).verdict == "inconclusive"
    assert "repeat:" in only(comparison).reason or "quieter" in only(comparison).reason
    assert comparison.exit_code() == 4


def test_fewer_than_four_runs_cannot_tell(runs: Runs) -> None:
    comparison = compare(runs(QUIET[:3]), runs(times(QUIET, 2)))
    assert only(comparison).verdict == "inconclusive"
    assert "3 runs in base and 5 in head" in only(comparison).reason
    assert "repeat: 5" in only(comparison).reason
    assert comparison.exit_code() == 4


def test_many_samples_of_one_process_are_no_runs(record: Make, latency: Make) -> None:
    many = tuple(10.0 + 0.001 * n for n in range(500))
    base = [record(latency(10.2, samples=many))]
    head = [record(latency(12.2, samples=tuple(s + 2 for s in many)))]
    assert only(compare(base, head)).verdict == "inconclusive"


def test_exact_metrics_compare_at_one_run(record: Make, params: Make) -> None:
    base, same, more, fewer = ([record(params(n))] for n in (1000, 1000, 1001, 900))
    assert only(compare(base, same)).verdict == "same"
    assert only(compare(base, more)).verdict == "worse"
    assert only(compare(base, fewer)).verdict == "better"
    assert only(compare(base, more, gate={"params.total": "1%"})).verdict == "same"
    assert only(compare(base, more, gate={"params.total": "1"})).verdict == "same"
    assert only(compare(base, more, gate={"params.total": "0"})).verdict == "worse"


@pytest.mark.parametrize(("factor", "code"), [(1, 0), (2, 1)])
def test_a_count_decides_with_one_run(record: Make, factor: int, code: int) -> None:
    """MACs with operators that nobody counts are not exact; they are the same in every run all the same."""

    def side(macs: float) -> list[Record]:
        return [record(Metric(name="macs.forward", value=macs, unit="MACs", better="lower"))]

    assert compare(side(1e9), side(factor * 1e9)).exit_code() == code
    assert compare(side(1e9), side(factor * 1e9), is_interim=True).exit_code() == code


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        ({}, {"my::conv": 1}, "different operators: none in base, my::conv (1 call) in head"),
        ({"my::conv": 1}, {}, "my::conv (1 call) in base, none in head"),
        ({"my::conv": 1}, {"my::conv": 2}, "my::conv (2 calls) in head"),
        ({"a::a": 1}, {"b::b": 1}, "a::a (1 call) in base, b::b (1 call) in head"),
    ],
)
def test_counts_that_leave_out_different_work_are_not_compared(
    record: Make, base: dict[str, int], head: dict[str, int], told: str
) -> None:
    """A layer swapped for one that nobody counts would look like fewer MACs."""

    def side(macs: float, uncounted: dict[str, int]) -> list[Record]:
        metric = Metric(name="macs.forward", value=macs, unit="MACs", better="lower", is_exact=not uncounted)
        whole = Metric(name="params.total", value=1, unit="elements", better="lower", is_exact=True)
        return [record(metric, whole, uncounted_operators=uncounted)]

    for one, other in ((1e9, 5e8), (5e8, 1e9), (1e9, 1e9)):
        compared = compare(side(one, base), side(other, head))
        verdicts = {row.metric: (row.verdict, row.reason) for row in compared.rows}
        assert verdicts["macs.forward"][0] == "inconclusive"
        assert told in verdicts["macs.forward"][1]
        assert verdicts["params.total"][0] == "same"
    assert compare(side(1e9, base), side(1e9, base)).exit_code() == 0


def test_runs_that_disagree_on_an_exact_metric_are_no_count(record: Make, params: Make) -> None:
    row = only(compare([record(params(1), run=0), record(params(2), run=1)], [record(params(1))]))
    assert row.verdict == "inconclusive"
    assert "disagree" in row.reason


def test_a_metric_without_direction_changes_without_being_worse(record: Make) -> None:
    def side(value: int) -> list[Record]:
        return [record(Metric(name="shape.layers", value=value, unit="", is_exact=True))]

    row = only(compare(side(3), side(4)))
    assert (row.verdict, row.is_deciding) == ("inconclusive", False)
    assert "the metric states no better direction" in row.reason
    ruled = compare(side(3), side(4), gate={"shape.layers": {"max_rise": "0"}})
    assert (only(ruled).verdict, ruled.exit_code()) == ("worse", 1)


def test_with_a_rule_only_metrics_with_a_rule_decide(record: Make, params: Make, latency: Make) -> None:
    base = [record(latency(v), params(10), run=i) for i, v in enumerate(QUIET)]
    head = [record(latency(1.2 * v), params(10), run=i) for i, v in enumerate(QUIET)]
    assert compare(base, head).exit_code() == 1
    assert compare(base, head, gate={"params.*": "0"}).exit_code() == 0
    assert compare(base, head, gate={"latency.p50_ms": "25%"}).exit_code() == 0
    assert compare(base, head, gate={"latency.p50_ms": "1ms"}).exit_code() == 1


def test_a_rule_of_one_side_lets_the_other_go(runs: Runs) -> None:
    gate = {"latency.p50_ms": {"max_rise": "3%"}}
    assert only(compare(runs(QUIET), runs(times(QUIET, 0.5)), gate=gate)).verdict == "better"
    assert only(compare(runs(QUIET), runs(times(QUIET, 1.05)), gate=gate)).verdict == "worse"


def test_further_views_on_samples_do_not_decide_unasked(record: Make, latency: Make) -> None:
    def side() -> list[Record]:
        tails = (5.0, 9.0, 30.0, 7.0, 18.0)
        return [
            record(latency(v, samples=(v, v)), latency(t, name="latency.p99_ms"), run=i)
            for i, (v, t) in enumerate(zip(QUIET, tails, strict=True))
        ]

    comparison = compare(side(), side())
    assert {row.metric: row.is_deciding for row in comparison.rows} == {"latency.p50_ms": True, "latency.p99_ms": False}
    assert comparison.exit_code() == 0
    assert compare(side(), side(), gate={"latency.*": "3%"}).exit_code() == 4


@pytest.mark.parametrize(
    ("rule", "meant"), [("latency.p51_ms", "; did you mean: latency.p50_ms?"), ("energy.*", ""), ("energy.j", "")]
)
def test_a_rule_without_a_matching_metric_is_incomplete(runs: Runs, rule: str, meant: str) -> None:
    comparison = compare(runs(QUIET), runs(QUIET), gate={rule: "3%", "latency.p50_ms": "3%"})
    assert comparison.unmeasured == (f"{rule}: no compared case has such a metric{meant}",)
    assert comparison.exit_code() == 3


@pytest.fixture
def suite(tmp_path: Path, runs: Runs) -> Callable[..., Path]:
    """Results of a suite of this name, with the gate of that suite."""

    def write(name: str, factor: float = 1.0, **gate: str) -> Path:
        store = RecordStore(tmp_path / f"{name}{len(list(tmp_path.iterdir()))}")
        for record in runs(times(QUIET, factor), suite=name):
            store.append(record)
        store.write_suite({"name": name, "gate": {key.replace("__", "."): limit for key, limit in gate.items()}})
        return store.folder

    return write


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.05, 0), (1.2, 1)])
def test_a_suite_of_a_new_name_without_a_gate_keeps_the_one_it_had(
    suite: Callable[..., Path], factor: float, code: int
) -> None:
    base = suite("old", latency__p50_ms="10%")
    comparison = compare(base, suite("new", factor))
    assert (comparison.unmeasured, comparison.exit_code()) == ((), code)
    assert only(comparison).limit == "10%"


def test_a_suite_of_a_new_name_goes_by_its_own_gate(suite: Callable[..., Path], runs: Runs) -> None:
    base = suite("old", energy__j_per_clip="10%")
    assert compare(base, suite("new", 1.05, latency__p50_ms="10%")).exit_code() == 0
    assert compare(base, suite("new", 1.05, latency__p50_ms="1%")).exit_code() == 1
    lost = compare(base, suite("new"))
    assert lost.unmeasured == ("energy.j_per_clip: no compared case of suite new has such a metric",)
    assert lost.exit_code() == 3


def test_a_gated_suite_of_which_nothing_was_compared_is_incomplete(suite: Callable[..., Path], runs: Runs) -> None:
    base, other = suite("old", latency__p50_ms="10%"), suite("stays")
    gone = compare([base, other], other)
    assert gone.unmeasured == ("latency.p50_ms: no compared case of suite old has such a metric",)
    assert gone.exit_code() == 3


def test_metrics_that_head_lost_are_incomplete(record: Make, runs: Runs, latency: Make, params: Make) -> None:
    base = [record(latency(v), params(1), run=i) for i, v in enumerate(QUIET)]
    for head in (
        [record(params(1), run=i) for i in range(5)],
        [record(latency(None, note="no clock"), params(1), run=i) for i in range(5)],
    ):
        comparison = compare(base, head)
        lost = next(row for row in comparison.rows if row.metric == "latency.p50_ms")
        assert (lost.verdict, lost.is_missing, comparison.exit_code()) == ("inconclusive", True, 3)
    assert compare([record(params(1))], base).exit_code() == 0


def test_missing_added_and_failed_cases_are_distinguished(record: Make, runs: Runs) -> None:
    base = [*runs(QUIET), *runs(QUIET, model="r3d"), *runs(QUIET, model="x3d")]
    head = [*runs(QUIET), *runs(QUIET, model="i3d"), record(model="x3d", status="oom")]
    comparison = compare(base, head)
    assert [each.case for each in comparison.missing] == ["r3d 16x1x112"]
    assert [each.case for each in comparison.added] == ["i3d 16x1x112"]
    assert [(each.case, each.side) for each in comparison.failed] == [("x3d 16x1x112", "head")]
    assert "oom: RuntimeError: no" in comparison.failed[0].why
    assert comparison.exit_code() == 3
    assert comparison.exit_code(fail_on=["regression"]) == 0


def test_a_case_that_only_base_failed_does_not_stop_its_repair(record: Make, runs: Runs) -> None:
    base = [*runs(QUIET), record(model="x3d", status="error")]
    comparison = compare(base, [*runs(QUIET), *runs(QUIET, model="x3d")])
    assert [each.side for each in comparison.failed] == ["base"]
    assert [each.why for each in comparison.added] == ["failed in base"]
    assert comparison.exit_code() == 0


def test_a_failed_run_done_again_is_forgotten_and_one_left_is_not(record: Make, runs: Runs, latency: Make) -> None:
    again = [record(status="timeout", run=2, started_at="2025"), *runs(QUIET)]
    assert compare(runs(QUIET), again).exit_code() == 0
    left = [*runs(QUIET), record(status="timeout", run=5)]
    assert compare(runs(QUIET), left).exit_code() == 3


def test_only_the_newest_state_of_the_code_counts(runs: Runs) -> None:
    old = runs(times(QUIET, 3), freshness="old", started_at="2025")
    assert only(compare(runs(QUIET), [*old, *runs(QUIET)])).verdict == "same"


def test_doubtful_runs_are_counted_in_the_reason(record: Make, runs: Runs, latency: Make) -> None:
    statuses = ("drifting", "ok", "unsteady", "ok", "ok")
    head = [
        record(latency(value), run=i, status=status)
        for i, (value, status) in enumerate(zip(times(QUIET, 1.2), statuses, strict=True))
    ]
    row = only(compare(runs(QUIET), head))
    assert row.verdict == "worse"
    assert row.reason.endswith("; 2 of 5 runs in head are drifting or unsteady")
    assert (row.doubt, only(compare(runs(QUIET), runs(QUIET))).doubt) == (
        "2 of 5 runs in head are drifting or unsteady",
        "",
    )


def test_throttled_runs_do_not_count_as_runs(record: Make, runs: Runs, latency: Make) -> None:
    hot = [record(latency(20.0), run=i, status="throttled") for i in range(2)]
    row = only(compare(runs(QUIET), [*runs(QUIET[:3]), *hot[1:]]))
    assert row.runs == (5, 3)
    assert "1 throttled run left out" in row.reason


@pytest.mark.parametrize("gate", [None, {"latency.p50_ms": "3%", "params.total": "0"}, {"latency.p50_ms": "3%"}])
@pytest.mark.parametrize("is_head_hot", [False, True])
def test_a_metric_of_which_base_has_only_throttled_runs_is_incomplete(
    record: Make, latency: Make, params: Make, gate: dict[str, str] | None, is_head_hot: bool
) -> None:
    def side(value: float, *, is_hot: bool) -> list[Record]:
        status = "throttled" if is_hot else "ok"
        return [record(latency(value), params(5), run=i, status=status) for i in range(5)]

    comparison = compare(side(10, is_hot=True), side(30, is_hot=is_head_hot), gate=gate)
    row = next(row for row in comparison.rows if row.metric == "latency.p50_ms")
    assert (row.verdict, row.is_deciding, row.is_missing) == ("inconclusive", True, True)
    assert "5 runs throttled" in row.reason
    assert comparison.exit_code() == 3
    assert comparison.is_empty == (gate == {"latency.p50_ms": "3%"})


def test_in_turns_throttled_runs_of_base_are_followed_by_others(record: Make, latency: Make, runs: Runs) -> None:
    hot = [record(latency(10.0), run=i, status="throttled") for i in range(5)]
    assert only(compare(hot, runs(QUIET), is_interim=True)).is_open
    assert not only(compare(hot, runs(QUIET))).is_open


@pytest.mark.parametrize(("base", "head"), [([], []), ([1.0] * 5, []), ([], [1.0] * 5)])
def test_nothing_compared_is_never_fine(runs: Runs, base: list[float], head: list[float]) -> None:
    comparison = compare(runs(base), runs(head))
    assert comparison.is_empty
    assert comparison.exit_code() == comparison.exit_code(fail_on=[]) == 3


def test_a_folder_in_which_a_run_broke_before_its_first_record_is_incomplete(tmp_path: Path, runs: Runs) -> None:
    (tmp_path / "logs").mkdir()
    assert compare(runs(QUIET), tmp_path).exit_code() == 3


def test_incomplete_precedes_regression_which_precedes_inconclusive(record: Make, latency: Make) -> None:
    def side(factor: float) -> list[Record]:
        noisy = [latency(n, name="latency.p99_ms") for n in NOISY]
        return [
            record(latency(factor * v), noise, run=i) for i, (v, noise) in enumerate(zip(QUIET, noisy, strict=True))
        ]

    comparison = compare(side(1), side(1.2))
    assert comparison.faults == {"regression", "inconclusive"}
    assert comparison.exit_code() == 1
    assert comparison.exit_code(fail_on=["inconclusive"]) == 4
    assert compare(side(1), [*side(1.2), record(model="x", status="oom")]).exit_code() == 3
    with pytest.raises(UnknownNameError, match="did you mean: regression"):
        comparison.exit_code(fail_on=["regresion"])


def test_a_processor_that_does_not_matter_is_not_reported_as_unknown(runs: Runs) -> None:
    """A side with a GPU is not held against the other's processor, though both name one."""
    base = runs(QUIET)
    usual = base[0].environment
    head = runs(QUIET, environment=usual.model_copy(update={"hardware": {"cpu": "EPYC", "cpu_threads_usable": 2}}))
    with pytest.raises(InputError, match=r"hardware\.gpu: H100 in base, unknown in head") as told:
        compare(base, head)
    assert "cpu" not in str(told.value)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"hardware": {"gpu": "A100"}}, "hardware.gpu: H100 in base, A100 in head"),
        ({"hardware": {"gpu": None}}, "hardware.gpu: H100 in base, unknown in head"),
        ({"hardware": {"gpu_driver": "580"}}, "gpu_driver"),
        ({"software": {"torch": "3.0.0"}}, "torch.*: 2 in base, 3 in head"),
        ({"software": {"python": "3.13.0"}}, "python"),
        ({"software": {"cudnn": 8907}}, "cudnn"),
    ],
)
def test_unlike_environments_are_refused_by_name_unless_across(
    runs: Runs, environment: dict[str, dict[str, Any]], named: str
) -> None:
    base = runs(QUIET)
    usual = base[0].environment
    other = Environment(**{k: {**getattr(usual, k), **environment.get(k, {})} for k in ("hardware", "software")})
    head = runs(times(QUIET, 1.1), environment=other)
    with pytest.raises(InputError, match=named):
        compare(base, head)
    comparison = compare(base, head, across=True)
    assert (only(comparison).verdict, only(comparison).is_across) == ("worse", True)
    assert comparison.unlike


@pytest.mark.parametrize("software", [{"torch": "2.13.1"}, {"cudnn": 91100}])
def test_minor_versions_are_noted_and_compared(runs: Runs, software: dict[str, Any]) -> None:
    base = runs(QUIET)
    environment = base[0].environment.model_copy(update={"software": {**base[0].environment.software, **software}})
    comparison = compare(base, runs(QUIET, environment=environment))
    assert any(next(iter(software)) in note for note in comparison.notes)
    assert only(comparison).verdict == "same"


def test_counts_compare_between_machines(record: Make, params: Make) -> None:
    other = Environment(hardware={"gpu": "A100"})
    assert compare([record(params(1))], [record(params(1), environment=other)]).exit_code() == 0


def trained(record: Make, factor: float, gpu: str) -> list[Record]:
    """Five trainings: an accuracy, which is of the videos, and the seconds they took, which are of the machine."""
    top = Metric(name="accuracy.top1", value=50.0, unit="%", better="higher", interval=(48.0, 52.0))
    return [
        record(
            top,
            Metric(name="accuracy.train_seconds", value=factor * v, unit="s", better="lower"),
            run=i,
            measures={"accuracy": {}},
            environment=Environment(hardware={"gpu": gpu}),
        )
        for i, v in enumerate(QUIET)
    ]


def depths(runs: Runs, *, model: str, factor: float = 1.0, **argument: list[int]) -> list[Record]:
    """Five runs of a model for each value of its one argument, the second of them slower by `factor`."""
    [(name, values)] = argument.items()
    return [
        each
        for place, value in enumerate(values)
        for each in runs(times(QUIET, factor if place else 1.0), model=model, args={name: value})
    ]


def test_arguments_separate_the_cases_of_two_models(runs: Runs) -> None:
    base, head = depths(runs, model="c3d", depth=[1, 3]), depths(runs, model="r3d", depth=[1, 3], factor=1.2)
    for sides in ((base, head), (base, depths(runs, model="c3d", depth=[1, 3], factor=1.2))):
        comparison = compare(*sides, differing=["model"])
        assert [row.verdict for row in comparison.rows] == ["same", "worse"]
        assert not comparison.missing
    assert len(compare(base[:5], depths(runs, model="r3d", width=[8]), differing=["model"]).rows) == 1


def test_partners_that_are_known_are_the_pairs_and_others_are_left_over(runs: Runs) -> None:
    base, head = depths(runs, model="c3d", depth=[1, 3]), depths(runs, model="r3d", width=[8, 9], factor=1.2)
    ids = [list(dict.fromkeys(record.case_id for record in side)) for side in (base, head)]
    partners = dict(zip(ids[1], ids[0], strict=True))
    comparison = compare(base, head, differing=["model"], partners=partners)
    assert [(row.case_id, row.verdict) for row in comparison.rows] == [(ids[1][0], "same"), (ids[1][1], "worse")]
    half = compare(base, head, differing=["model"], partners={ids[1][0]: ids[0][0]})
    assert [each.case_id for each in (*half.missing, *half.added)] == [ids[0][1], ids[1][1]]


def test_ambiguous_cases_are_missing_and_do_not_pass(runs: Runs) -> None:
    """Two models on either side, of which it cannot be said which is which; the third case is compared."""
    base = [*runs(QUIET), *runs(QUIET, model="r3d"), *runs(QUIET, batch=8)]
    comparison = compare(base, base, differing=["model"])
    assert (len(comparison.rows), len(comparison.missing), len(comparison.added)) == (1, 2, 2)
    assert comparison.exit_code() == 3


@pytest.mark.parametrize("gate", [{"accuracy.train_seconds": "3%"}, {"accuracy.*": "3%"}])
def test_times_of_trainings_are_compared_on_one_machine_only(record: Make, gate: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"hardware\.gpu: H100 in base, H200 in head"):
        compare(trained(record, 1, "H100"), trained(record, 3, "H200"), gate=gate)
    comparison = compare(trained(record, 1, "H100"), trained(record, 3, "H200"), gate=gate, across=True)
    assert all(row.is_across for row in comparison.rows)


@pytest.mark.parametrize("gate", [None, {"accuracy.top1": "0.5pt"}])
def test_accuracies_that_alone_decide_compare_between_machines(record: Make, gate: dict[str, str] | None) -> None:
    comparison = compare(trained(record, 1, "H100"), trained(record, 3, "H200"), gate=gate)
    top, seconds = comparison.rows
    assert (top.verdict, top.is_across, comparison.exit_code()) == ("same", False, 0)
    assert (seconds.verdict, seconds.is_deciding, seconds.interval) == ("inconclusive", False, None)
    assert "machines differ (hardware.gpu: H100 in base, H200 in head)" in seconds.reason
    alike = compare(trained(record, 1, "H100"), trained(record, 3, "H100"), gate=gate)
    assert [row.verdict for row in alike.rows] == ["same", "worse"]


def test_cases_that_differ_in_precision_are_compared_only_across(runs: Runs) -> None:
    base, head = runs(QUIET, precision="fp32"), runs(times(QUIET, 0.5), precision="bf16")
    with pytest.raises(InputError, match="precision: fp32 in base, bf16 in head"):
        compare(base, head)
    assert only(compare(base, head, across=True)).verdict == "better"


def test_another_protocol_is_refused(record: Make) -> None:
    def side(resize: int) -> list[Record]:
        top = Metric(name="accuracy.top1", value=50.0, unit="%", better="higher", interval=(45.0, 55.0))
        return [record(top, measures={"accuracy": {}}, details={"protocol": {"resize": resize}})]

    with pytest.raises(InputError, match=r"protocol.resize: 128 in base, 256 in head"):
        compare(side(128), side(256))


VALUES = st.one_of(st.none(), st.integers(-5, 5), st.floats(), st.sampled_from([0.0, 1e-300, 1e300, 5e-324]))
METRICS = st.builds(
    Metric,
    name=st.sampled_from(["latency.p50_ms", "params.total", "accuracy.top1", "other.thing"]),
    value=VALUES,
    unit=st.sampled_from(["ms", "%", "B", ""]),
    better=st.sampled_from(["lower", "higher", None]),
    is_exact=st.booleans(),
    interval=st.one_of(st.none(), st.just((1.0, 2.0))),
    samples=st.sampled_from([(), (1.0, 2.0)]),
)
SPECS = st.tuples(
    st.lists(METRICS, max_size=3),
    st.integers(0, 5),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["ok", "ok", "ok", "unsteady", "throttled", "oom", "skipped"]),
    st.sampled_from(["f", "g"]),
    st.sampled_from([None, None, 1, 2, 3]),
    st.sampled_from(["2026-01-01T00:00:00", "2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00", "noon"]),
)


@settings(max_examples=80)
@given(
    st.lists(SPECS, max_size=14),
    st.lists(SPECS, max_size=14),
    st.sampled_from([{}, {"*": "3%"}, {"o*": {"max_drop": "1"}}]),
)
def test_arbitrary_records_give_one_verdict_per_case_and_metric(
    record: Make, base: list[Any], head: list[Any], gate: dict[str, Any]
) -> None:
    sides = [
        [
            record(*m, run=run, model=name, status=status, freshness=state, seed=seed, started_at=at)
            for m, run, name, status, state, seed, at in side
        ]
        for side in (base, head)
    ]
    try:
        comparison = compare(*sides, gate=gate)
    except InputError as error:
        assert "no better direction" in str(error)  # a rule that the metric cannot be held to
        return
    places = [(row.suite, row.case_id, row.metric) for row in comparison.rows]
    assert len(places) == len(set(places))
    for row in comparison.rows:
        assert row.verdict in VERDICTS
        assert row.reason
    good = [{r.case_id for r in side if r.is_good} for side in sides]
    named = {row.case_id for row in comparison.rows}
    assert named <= good[0] & good[1]
    assert comparison.exit_code() in (0, 1, 3, 4)
    assert comparison.rows or comparison.exit_code() == 3


def test_a_noise_limit_is_the_spread_of_base_against_itself(runs: Callable[..., list[Record]]) -> None:
    quiet = [100.0, 100.5, 99.5, 100.2, 99.8, 100.4, 99.6, 100.0]
    loud = [100.0, 106.0, 94.0, 103.0, 97.0, 108.0, 92.0, 100.0]
    rule = {"latency.p50_ms": "noise"}
    for base, verdict in ((quiet, "worse"), (loud, "inconclusive")):
        [row] = compare(runs(base), runs([1.04 * each for each in base]), gate=rule).rows
        assert row.verdict == verdict
        assert re.fullmatch(r"noise \(\d+\.\d%\)", row.limit)
    [row] = compare(runs(quiet), runs(quiet), gate={"latency.p50_ms": {"max_rise": "2noise"}}).rows
    assert row.verdict == "same"


def test_a_limit_of_noise_needs_enough_runs_of_base(runs: Callable[..., list[Record]]) -> None:
    [row] = compare(runs([100.0] * 7), runs([100.0] * 20), gate={"latency.p50_ms": "noise"}).rows
    assert (row.verdict, row.is_open) == ("inconclusive", False)
    assert "base has 7 runs, and at least 8 are needed" in row.reason
    [row] = compare(runs([0.0] * 9), runs([1.0] * 9), gate={"latency.p50_ms": "noise"}).rows
    assert "values above 0" in row.reason


def test_measures_of_other_versions_are_unlike(runs: Callable[..., list[Record]]) -> None:
    def at(version: int) -> list[Record]:
        return runs([10.0] * 5, details={"measure_versions": {"latency": version, "params": 1}})

    with pytest.raises(InputError, match=r"measure.latency \(version\): 2 in base, 3 in head"):
        compare(at(2), at(3))
    assert compare(at(2), at(2)).rows
    assert compare(runs([10.0] * 5), at(3)).rows


def test_a_new_measure_with_options_does_not_refuse_the_old_ones(runs: Callable[..., list[Record]]) -> None:
    old, new = {"latency": {"max_s": 1}}, {"latency": {"max_s": 1}, "energy": {"min_s": 10}}
    for base, head in ((old, new), (new, old), (new, new)):
        assert compare(runs(QUIET, measures=base), runs(QUIET, measures=head)).rows[0].verdict == "same"
    other = {"latency": {"max_s": 2}, "energy": {"min_s": 10}}
    with pytest.raises(InputError, match=r"measure\.latency\.max_s: 1 in base, 2 in head"):
        compare(runs(QUIET, measures=old), runs(QUIET, measures=other))
    with pytest.raises(InputError, match=r"measure\.energy\.min_s"):
        compare(runs(QUIET, measures=new), runs(QUIET, measures={**new, "energy": {"min_s": 5}}))


def test_a_head_with_different_outputs_is_not_faster(runs: Callable[..., list[Record]]) -> None:
    def with_parity(value: float, is_within: bool) -> list[Record]:
        return runs([value] * 5, details={"parity": {"is_within_tolerance": is_within}})

    found = compare(with_parity(10.0, True), with_parity(5.0, False))
    assert [(each.side, "parity" in each.why) for each in found.failed] == [("head", True)]
    assert compare(with_parity(10.0, False), with_parity(5.0, False)).failed == ()
    assert compare(with_parity(10.0, True), with_parity(5.0, True)).failed == ()
    assert compare(runs([10.0] * 5), with_parity(5.0, False)).failed != ()


def test_a_pattern_skips_metrics_that_its_limit_cannot_apply_to(
    record: Callable[..., Record], latency: Callable[..., Metric]
) -> None:
    """Else one metric without a direction, or in another unit, would end the whole comparison."""

    def side(day: int, factor: float = 1.0) -> list[Record]:
        return [
            record(
                latency(factor * value),
                Metric(name="latency.intensity", value=3.0, unit="x"),
                Metric(name="latency.peak_bytes", value=1000, unit="B", better="lower", is_exact=True),
                run=run,
                started_at=f"2026-01-{day:02d}T00:00:{run:02d}",
            )
            for run, value in enumerate([10.0, 10.02, 9.98, 10.01, 9.99])
        ]

    for pattern, limit, judged in (
        ("*", "3%", {"latency.p50_ms", "latency.peak_bytes"}),
        ("latency.*", "1ms", {"latency.p50_ms"}),
        ("latency.*", "1KiB", {"latency.peak_bytes"}),
    ):
        found = compare(side(1), side(2), gate={pattern: limit})
        assert {row.metric for row in found.rows if row.is_deciding} == judged
        assert found.exit_code() == 0
    assert compare(side(1), side(2, 1.2), gate={"*": "3%"}).exit_code() == 1
    assert compare(side(1), side(2), gate={"*": "1J"}).unmeasured == ("*: no compared case has such a metric",)
    for name, limit in (("latency.intensity", "3%"), ("latency.p50_ms", "1KiB")):
        with pytest.raises(InputError, match=f"gate of {name}"):
            compare(side(1), side(2), gate={name: limit})


@pytest.mark.parametrize(
    ("suite", "given"),
    [
        ("throughput.clips_per_s", "throughput.clips_per_s{batch=8}"),
        ("throughput.*", "throughput.clips_per_s"),
        ("throughput.*", "throughput.clips*"),
        ("throughput.clips_per_s{batch=8}", "throughput.*"),
    ],
)
def test_a_rule_overridden_by_a_more_specific_one_counts_as_measured(
    record: Callable[..., Record], tmp_path: Path, suite: str, given: str
) -> None:
    for side in ("base", "head"):
        store = RecordStore(tmp_path / side)
        store.write_suite({"name": "s", "gate": {suite: {"max_drop": "3%"}, "latency.p99_ms": {"max_rise": "3%"}}})
        for run, value in enumerate(QUIET):
            metric = Metric(
                name="throughput.clips_per_s", value=value, unit="clips/s", better="higher", labels={"batch": "8"}
            )
            store.append(record(metric, run=run))
    found = compare(tmp_path / "base", tmp_path / "head", gate={given: "5%"})
    assert [(row.verdict, row.limit) for row in found.rows] == [("same", "5%")]
    assert [rule.partition(":")[0] for rule in found.unmeasured] == ["latency.p99_ms"]


@pytest.mark.parametrize(("count", "verdict"), [(100, "same"), (101, "worse"), (99, "better")])
def test_a_count_has_no_noise(
    record: Callable[..., Record], params: Callable[[int], Metric], count: int, verdict: str
) -> None:
    [row] = compare([record(params(100))], [record(params(count))], gate={"params.*": "noise"}).rows
    assert (row.verdict, row.limit) == (verdict, "noise (0.0%)")


def test_a_comparison_of_instructions_says_that_they_are_not_time(record: Make, runs: Runs) -> None:
    given = {"name": "instructions.forward", "unit": "instructions", "better": "lower", "labels": {"by": "perf"}}
    base, head = (
        [record(Metric.model_validate({**given, "value": value + run}), run=run) for run in range(5)]
        for value in (1e9, 1.1e9)
    )
    found = compare(base, head)
    [row] = found.rows
    assert (row.metric, row.verdict) == ("instructions.forward{by=perf}", "worse")
    assert any(note.startswith("instructions are not time") for note in found.notes)
    assert not any("instructions" in note for note in compare(runs([1, 2]), runs([1, 2])).notes)
