"""Summaries over runs, seeds and unlike cases, computed by hand."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.core.doubts import timing_doubts
from bench.core.errors import InputError
from bench.core.schema import Record
from bench.reporting.case_results import (
    LeftOutWarning,
    MetricSummary,
    RecordedMetric,
    is_run_on_each_machine,
    summarise_values,
)
from bench.reporting.results import collect
from bench.reporting.site import report
from bench.store import read_records


def summary(records: list[Record], key: str) -> MetricSummary:
    """The summary of one metric over `records`."""
    found = [(record, record.metric(key)) for record in records]
    return summarise_values(
        [RecordedMetric(record=r, metric=m, doubts=timing_doubts(r, m)) for r, m in found if m is not None]
    )


def test_the_mean_over_seeds_has_students_interval(make: SimpleNamespace) -> None:
    seeds = [make.record("m", make.metric("accuracy.top1", v, "%"), seed=s) for s, v in enumerate((90.0, 92.0, 94.0))]
    found = summary(seeds, "accuracy.top1")
    half = 4.302652729911275 * 2.0 / math.sqrt(3)  # t(0.975, 2) times s / sqrt(n)
    assert (found.value, found.low, found.high) == pytest.approx((92.0, 92.0 - half, 92.0 + half))


def test_seeds_that_agree_by_chance_keep_the_interval_of_the_test_videos(make: SimpleNamespace) -> None:
    seeds = [make.record("m", make.metric("accuracy.top1", 80.0, "%", interval=(76.0, 83.5)), seed=s) for s in (0, 1)]
    found = summary(seeds, "accuracy.top1")
    assert (found.value, found.low, found.high) == (80.0, 76.0, 83.5)


def test_an_interval_of_a_share_ends_at_100(make: SimpleNamespace) -> None:
    seeds = [make.record("m", make.metric("accuracy.top1", v, "%"), seed=s) for s, v in enumerate((97.0, 99.0))]
    found = summary(seeds, "accuracy.top1")
    assert (found.value, found.high) == (98.0, 100.0)
    assert found.low == pytest.approx(98.0 - 12.706204736432095)


def test_few_runs_give_median_and_range_and_many_the_interval_of_the_median(make: SimpleNamespace) -> None:
    values = (11.0, 10.0, 12.0, 10.5, 13.0)
    five = [
        make.record("m", make.metric("latency.p50_ms", v, "ms"), batch=1, run_index=i) for i, v in enumerate(values)
    ]
    found = summary(five, "latency.p50_ms")
    assert (found.value, found.low, found.high, found.how) == (11.0, 10.0, 13.0, "median of 5 runs, with their range")
    six = [*five, make.record("m", make.metric("latency.p50_ms", 14.0, "ms"), batch=1, run_index=5)]
    found = summary(six, "latency.p50_ms")
    assert (found.value, found.low, found.high) == (11.5, 10.0, 14.0)
    assert "95 %" in found.how


def test_one_run_keeps_the_interval_of_its_own_samples(make: SimpleNamespace) -> None:
    found = summary([make.timing(ms=20.0)], "latency.p50_ms")
    assert (found.value, found.low, found.high) == (20.0, 19.9, 20.12)


def test_runs_of_an_exact_count_that_disagree_are_doubted(make: SimpleNamespace) -> None:
    records = [make.counts(params=10, run_index=0), make.counts(params=11, run_index=1)]
    assert summary(records, "params.total").doubts == ("runs disagree",)
    assert summary(records[:1] * 2, "params.total").doubts == ()


def test_unsteady_timings_are_doubted_but_counts_of_the_same_record_are_not(make: SimpleNamespace) -> None:
    record = make.record(
        "m", make.metric("latency.p50_ms", 3.0, "ms"), make.metric("params.total", 5), status="unsteady"
    )
    assert summary([record], "latency.p50_ms").doubts == ("unsteady",)
    assert summary([record], "params.total").doubts == ()


def test_a_status_concerns_the_timing_that_stopped_so(make: SimpleNamespace) -> None:
    at = {"batch": "8"}
    record = make.record(
        "m",
        make.metric("throughput.clips_per_s", 9.0, "clips/s", labels={"batch": "1"}, stopped_because="precise"),
        make.metric("throughput.clips_per_s", 8.0, "clips/s", labels=at, stopped_because="unsteady"),
        make.metric("memory.peak_rss_bytes", 7.0, "B"),
        batch=1,
        status="unsteady",
    )
    assert summary([record], "throughput.clips_per_s{batch=8}").doubts == ("unsteady",)
    assert summary([record], "throughput.clips_per_s{batch=1}").doubts == ()
    assert summary([record], "memory.peak_rss_bytes").doubts == ()


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_known_stays_unknown_with_its_reason(make: SimpleNamespace, value: float | None) -> None:
    records = [make.record("m", make.metric("energy.j_per_clip", value, "J", note="no counter"), batch=1)]
    found = summary(records, "energy.j_per_clip")
    assert found.value is None
    assert found.how == "no counter"


def test_unknown_runs_do_not_pull_a_median_down(make: SimpleNamespace) -> None:
    runs = [
        make.record("m", make.metric("energy.j_per_clip", v, "J"), run_index=i) for i, v in enumerate((None, 4.0, 6.0))
    ]
    assert summary(runs, "energy.j_per_clip").value == 5.0


def test_a_count_with_uncounted_operators_is_a_lower_bound(make: SimpleNamespace) -> None:
    record = make.counts(uncounted_operators={"aten::mv": 3})
    assert summary([record], "macs.forward").is_lower_bound
    assert not summary([record], "params.total").is_lower_bound


def test_the_latest_good_record_of_a_run_counts(make: SimpleNamespace) -> None:
    old, new = make.timing(ms=10), make.timing(ms=20)
    failed = make.timing(ms=99, status="error")
    results = collect([new, failed, old])
    (case,) = results.cases
    assert [run.metric("latency.p50_ms").value for run in case.runs] == [20]
    assert [record.status for record in results.failures] == ["error"]
    assert results.replaced == 2


def test_a_failure_that_was_measured_later_is_no_failure(make: SimpleNamespace) -> None:
    results = collect([make.timing(status="oom"), make.timing()])
    assert results.failures == ()


def test_decoding_belongs_to_its_machine_though_no_axis_of_a_run_is_set(make: SimpleNamespace) -> None:
    decoded = make.record("m", make.metric("decode.clips_per_s", 9.0, "clips/s"))
    counted = make.record("m", make.metric("params.total", 5))
    assert is_run_on_each_machine(decoded.case)
    assert not is_run_on_each_machine(counted.case)


def test_runs_in_turns_with_another_side_do_not_replace_those_by_themselves(make: SimpleNamespace) -> None:
    alone, taken = (make.timing("c3d", details=details) for details in ({}, {"in_turns": "steps"}))
    with pytest.warns(LeftOutWarning, match="1 of 2 records"):
        results = collect([alone, taken])
    assert [case.runs for case in results.cases] == [(alone,)]
    assert results.replaced == 0


@pytest.mark.parametrize(
    ("unit", "values", "ends"),
    [
        ("s", (10.0, 50.0), (0.0, None)),
        ("J", (10.0, 50.0), (0.0, None)),
        ("%", (4.0, 90.0), (0.0, 100.0)),
        ("fraction", (0.04, 0.9), (0.0, 1.0)),
        ("%", (80.0, 170.0), (0.0, None)),  # an efficiency
        ("pt", (-4.0, 50.0), (None, None)),
        ("J", (-30.0, 10.0), (None, None)),
    ],
)
def test_intervals_end_where_the_unit_does(
    make: SimpleNamespace, unit: str, values: tuple[float, float], ends: tuple[float | None, float | None]
) -> None:
    """Of two seeds Student's interval is 12.7 half differences wide on either side."""
    seeds = [make.record("m", make.metric("accuracy.x", v, unit), seed=s) for s, v in enumerate(values)]
    found = summary(seeds, "accuracy.x")
    middle, half = sum(values) / 2, 12.706204736432095 * abs(values[1] - values[0]) / 2
    low, high = (own if own is not None else end for own, end in zip(ends, (middle - half, middle + half), strict=True))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_report_of_turn_taking_runs_alone_is_an_error_that_names_them(make: SimpleNamespace, tmp_path: Path) -> None:
    taken = make.timing("c3d", details={"in_turns": "steps"})
    with pytest.raises(InputError, match="all 1 record are of vbench ab, whose sides took turns"):
        report([taken], out=tmp_path)


def parity(make: SimpleNamespace, value: float | None, **rest: object) -> Record:
    return make.record("m", make.metric("parity.max_difference", value, "fraction"), precision="bf16", **rest)


def test_a_worst_case_over_runs_is_the_worst_run(make: SimpleNamespace) -> None:
    runs = [parity(make, value, run_index=i) for i, value in enumerate((0.0047, 0.0087, 0.0075))]
    found = summary(runs, "parity.max_difference")
    assert (found.value, found.has_interval, found.how) == (0.0087, False, "the worst of 3 runs")


def test_a_worst_agreement_is_the_lowest(make: SimpleNamespace) -> None:
    metrics = [make.metric("parity.top1_agreement", value, "%") for value in (100.0, 97.0, 99.0)]
    runs = [make.record("m", metric, precision="bf16", run_index=i) for i, metric in enumerate(metrics)]
    assert summary(runs, "parity.top1_agreement").value == 97.0


def test_a_worst_case_is_unknown_if_one_of_its_runs_is(make: SimpleNamespace) -> None:
    """Outputs that are not finite are worse than any difference."""
    runs = [parity(make, value, run_index=i) for i, value in enumerate((0.0047, None))]
    assert summary(runs, "parity.max_difference").value is None


def test_values_of_unlike_cases_are_not_blended(make: SimpleNamespace) -> None:
    """Of parity the worst case is shown, of anything else the value of the most specific case."""
    cases = [parity(make, 0.004, batch=4), parity(make, 0.009)]
    assert summary(cases, "parity.max_difference").value == 0.009
    memories = [
        make.record("m", make.metric("memory.peak_rss_bytes", value, "B"), precision="bf16", batch=batch)
        for batch, value in ((None, 10.0), (4, 30.0))
    ]
    found = summary(memories, "memory.peak_rss_bytes")
    assert found.value == 30.0
    assert "1 other case" in found.note


@pytest.mark.parametrize(("ratio", "is_doubted"), [(1.04, False), (1.57, True), (0.67, True), (0.97, False)])
def test_timings_whose_canary_moved_are_doubted_and_their_memory_is_not(
    make: SimpleNamespace, ratio: float, is_doubted: bool
) -> None:
    canary = {"matmul_ms": {"before": 1.0, "after": 1.0, "ratio": 1.0}, "copy_ms": {"before": 1, "ratio": ratio}}
    record = make.timing(details={"canary": canary})
    assert (summary([record], "latency.p50_ms").doubts == ("drifting",)) == is_doubted
    assert summary([record], "memory.peak_rss_bytes").doubts == ()


def test_a_timing_from_before_drift_was_tested_is_judged_by_its_samples(make: SimpleNamespace) -> None:
    """The record that was published with an interval of 7.87 to 8.15 ms."""
    record = read_records(Path(__file__).parents[1] / "core" / "drifting_latency.jsonl")[0]
    record = record.model_copy(update={"details": {}})
    found = summary([record], "latency.p50_ms")
    assert (found.doubts, found.is_ranked) == (("drifting", "unsteady"), False)
    assert found.low < 5.70 < 8.86 < found.high
    assert summary([record], "latency.p90_ms").doubts == ("drifting", "unsteady")


def test_only_the_timing_that_drifted_is_doubted(make: SimpleNamespace) -> None:
    drift = {"latency.p50_ms": {"pattern": "step", "change": 0.07}}
    record = make.timing(status="drifting", details={"drift": drift})
    assert summary([record], "latency.p50_ms").doubts == summary([record], "latency.p99_ms").doubts == ("drifting",)
    assert summary([record], "throughput.clips_per_s{batch=8}").is_ranked


def test_an_accuracy_under_an_assumed_protocol_is_marked_and_still_ranked(make: SimpleNamespace) -> None:
    details = {"protocol": {"assumed": ["mean", "std"]}}
    given = make.accuracy(weights="k700.pt", recipe=None, details=details)
    found = summary([given], "accuracy.top1")
    assert (found.remarks, found.is_ranked) == (("assumed protocol",), True)
    trained_here = make.accuracy(details=details)
    assert summary([trained_here], "accuracy.top1").remarks == ()
