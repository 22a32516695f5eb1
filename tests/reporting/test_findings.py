"""Who leads, in words."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.schema import Record
from bench.reporting.findings import chance_findings, leader_findings, ranking_gaps
from bench.reporting.results import collect


def test_a_leader_without_an_argument_is_labelled_by_its_model(make: SimpleNamespace) -> None:
    models = [("c3d", {"num_classes": 8}, 5), ("r3d", {"num_classes": 8}, 1), ("r3d", {}, 3)]
    records = [
        make.record(model, make.metric("latency.p50_ms", ms, "ms"), args=args, batch=1) for model, args, ms in models
    ]
    assert leader_findings(collect(records).board) == ["Lowest latency: r3d num_classes=8, 1.00 ms."]


def test_a_doubtful_row_neither_leads_nor_reaches_the_leader(make: SimpleNamespace) -> None:
    records = [
        make.timing("unsteady", ms=20, status="unsteady"),
        make.timing("level", ms=20.1),
        make.timing("fast", ms=20),
        make.timing("slow", ms=30),
    ]
    told = [sentence for sentence in leader_findings(collect(records).board) if "latency" in sentence]
    assert told == ["Lowest latency: fast, 20.0 ms (19.9 to 20.1); level reaches it within the intervals."]


def test_ways_of_training_do_not_make_a_model_reach_itself(make: SimpleNamespace) -> None:
    trained = [make.accuracy("fast", weights=weights) for weights in (None, "k700.pt")]
    records = [make.timing("fast", ms=20), make.timing("slow", ms=30), *trained]
    told = [sentence for sentence in leader_findings(collect(records).board) if "latency" in sentence]
    assert told == ["Lowest latency: fast, 20.0 ms (19.9 to 20.1)."]


def test_all_that_have_the_best_value_lead(make: SimpleNamespace) -> None:
    models = [("a", 5), ("b", 1), ("c", 1), ("d", 3)]
    records = [make.record(name, make.metric("latency.p50_ms", ms, "ms"), batch=1) for name, ms in models]
    assert leader_findings(collect(records).board) == ["Lowest latency: b and c, 1.00 ms."]


def test_a_single_row_is_described_metric_by_metric(make: SimpleNamespace) -> None:
    assert leader_findings(collect([make.timing(ms=20), make.accuracy(top1=90)]).board) == [
        "c3d: latency 20.0 ms, throughput 50 clips/s at batch 1, throughput 75 clips/s at batch 8, process memory "
        "877 MiB, top-1 90 % on motions and top-5 98 % on motions."
    ]


@pytest.mark.parametrize(
    ("top1", "is_above"),
    [((12.0, 14.0), False), ((12.0, 16.4), True)],  # half an interval is 3.3 and 3.6 of 400 videos; chance is 12.5
)
def test_accuracies_that_are_all_at_chance_are_named_first(
    make: SimpleNamespace, top1: tuple[float, ...], is_above: bool
) -> None:
    """Guessing among the eight classes of `motions` is right for one video in eight."""
    board = collect([make.accuracy(name, top1=each) for name, each in zip(("a", "b"), top1, strict=True)]).board
    expected = (
        "The accuracies on motions mean nothing yet: no top-1 is above the 12.5 % of guessing among 8 classes by more "
        "than its interval."
    )
    assert chance_findings(board) == ([] if is_above else [expected])


def test_chance_is_that_of_the_fewest_classes_and_needs_an_interval(make: SimpleNamespace) -> None:
    of_a_head = collect([make.accuracy("a", top1=30.0, dataset="mine", args={"num_classes": 3})]).board
    assert "33.3 % of guessing among 3 classes" in chance_findings(of_a_head)[0]
    assert chance_findings(collect([make.accuracy("a", top1=1.0, dataset="mine")]).board) == []
    metric = make.metric("accuracy.top1", 1.0, "%")
    assert chance_findings(collect([make.record("a", metric, dataset="motions", seed=0)]).board) == []


def latency(make: SimpleNamespace, model: str, ms: float, **rest: Any) -> Record:
    return make.record(model, make.metric("latency.p50_ms", ms, "ms"), batch=1, **rest)


def gaps(*records: Record) -> list[str]:
    return ranking_gaps(collect(records).board)


def test_a_ranking_has_no_gap(make: SimpleNamespace) -> None:
    assert gaps(latency(make, "a", 1), latency(make, "b", 2)) == []


def test_without_a_result_or_with_one_row_the_reason_is_given(make: SimpleNamespace) -> None:
    failure = make.record("a", status="oom", batch=1)
    assert gaps(failure) == ["There is no ranking, because no case has a result."]
    assert gaps(latency(make, "a", 1), failure) == ["There is no ranking, because this is the only row."]


def test_counts_alone_are_told_from_the_least_to_the_most(make: SimpleNamespace) -> None:
    assert gaps(
        *(make.counts(name, params=p, macs=5_000_000) for name, p in (("a", 2_000), ("b", 1_000), ("c", 3_000)))
    ) == [
        "There is no ranking, because neither an accuracy nor a speed was measured. "
        "Measured were parameters 1.00 k (b) to 3.00 k (c) and MACs 5.00 M everywhere."
    ]


def test_each_speed_without_a_leader_has_its_reason(make: SimpleNamespace) -> None:
    start = "Latency has no ranking: "
    count = make.counts("other")
    assert gaps(latency(make, "a", 1), count) == [f"{start}only a has a value."]
    unsteady = [latency(make, name, 1, status="unsteady") for name in "ab"]
    assert gaps(*unsteady) == [f"{start}of 2 values none may be ranked (unsteady)."]
    assert gaps(unsteady[0], latency(make, "b", 2)) == [f"{start}of 2 values only one may be ranked (unsteady)."]
    on_two = [latency(make, "a", 1), latency(make, "b", 2, environment=make.gpu_host)]
    assert gaps(*on_two) == [f"{start}each of the 2 machines has only one value that may be ranked."]
    assert gaps(latency(make, "a", 1), latency(make, "b", 1)) == [f"{start}all 2 values are equal."]
    equal = [latency(make, name, 1, environment=make.gpu_host) for name in "bc"]
    assert gaps(latency(make, "a", 1), *equal) == [f"{start}no machine has two different values."]


def test_the_first_page_says_why_nothing_is_ranked(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect([make.record("a", status="oom", batch=1)])))
    assert "There is no ranking, because no case has a result." in page.text
