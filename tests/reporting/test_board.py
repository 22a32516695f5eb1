"""Cases joined into rows."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.schema import Record
from bench.reporting.board import Board, Column, group_of
from bench.reporting.results import collect


def board_of(records: list[Record]) -> Board:
    return collect(records).board


def column(board: Board, metric: str, **labels: str) -> Column:
    return next(c for c in board.columns if c.metric == metric and dict(c.labels) == labels)


def value(board: Board, row: int, metric: str, **labels: str) -> float | None:
    return board.rows[row].summaries[column(board, metric, **labels)].value


def test_counts_timings_and_accuracies_of_one_model_are_one_row(make: SimpleNamespace) -> None:
    board = board_of(
        [make.counts(params=7), make.timing(ms=20), make.accuracy(top1=90), make.accuracy(top1=92, seed=1)]
    )
    (row,) = board.rows
    assert row.factors == {
        "clip": "16x1x112",
        "precision": "fp32",
        "memory_format": "contiguous",
        "compile": "off",
        "recipe": "quick",
    }
    found = [value(board, 0, m) for m in ("params.total", "latency.p50_ms", "accuracy.top1")]
    assert found == [7, 20, 91]
    assert value(board, 0, "throughput.clips_per_s", batch="8") == 75


def test_each_execution_mode_is_a_row_with_the_counts_and_accuracies_of_its_model(make: SimpleNamespace) -> None:
    board = board_of([make.counts(params=7), *(make.timing(ms=m, precision=p) for p, m in (("fp32", 9), ("bf16", 4)))])
    assert board.varying == ("precision",)
    assert [(r.factors["precision"], value(board, i, "params.total")) for i, r in enumerate(board.rows)] == [
        ("fp32", 7),
        ("bf16", 7),
    ]


def test_ways_of_running_and_of_training_are_crossed(make: SimpleNamespace) -> None:
    timings = [make.timing(ms=ms, precision=p) for p, ms in (("fp32", 9), ("bf16", 4))]
    trained = [make.accuracy(top1=t, recipe=r) for r, t in (("quick", 50), ("long", 60))]
    board = board_of([*timings, *trained])
    rows = {
        (r.factors["precision"], r.factors["recipe"]): (
            value(board, i, "latency.p50_ms"),
            value(board, i, "accuracy.top1"),
        )
        for i, r in enumerate(board.rows)
    }
    assert rows == {
        ("fp32", "quick"): (9, 50),
        ("fp32", "long"): (9, 60),
        ("bf16", "quick"): (4, 50),
        ("bf16", "long"): (4, 60),
    }


def test_a_model_from_weights_and_one_without_weights_have_rows_of_their_own(make: SimpleNamespace) -> None:
    afresh = [make.accuracy(top1=t, seed=s) for s, t in enumerate((92, 93))]
    begun = [make.accuracy(top1=t, weights=w) for w, t in (("inflated:stills/quick_stills", 80), ("k700.pt", 60))]
    board = board_of([make.counts(params=7), make.timing(ms=20), *begun, *afresh])
    found = {
        board.label(row, board.columns): tuple(
            value(board, i, metric) for metric in ("params.total", "latency.p50_ms", "accuracy.top1")
        )
        for i, row in enumerate(board.rows)
    }
    assert found == {
        "c3d (inflated:stills/quick_stills)": (7, 20, 80),
        "c3d (k700.pt)": (7, 20, 60),
        "c3d (no weights)": (7, 20, 92.5),
    }


def test_weights_as_they_are_and_fine_tuned_have_rows_of_their_own(make: SimpleNamespace) -> None:
    given = make.accuracy(top1=30, weights="k700.pt", recipe=None)
    tuned = make.accuracy(top1=60, weights="k700.pt")
    board = board_of([tuned, given])
    found = {board.label(row, board.columns): value(board, i, "accuracy.top1") for i, row in enumerate(board.rows)}
    assert found == {"c3d (quick)": 60, "c3d (no recipe)": 30}


def test_decoding_of_a_data_set_is_the_same_however_the_model_was_trained(make: SimpleNamespace) -> None:
    decoding = make.record("c3d", make.metric("decode.clips_per_s", 50, better="higher"), dataset="motions")
    trained = [make.accuracy(top1=t, weights=w) for w, t in ((None, 92), ("k700.pt", 60))]
    board = board_of([decoding, *trained])
    assert [value(board, i, "decode.clips_per_s") for i in range(len(board.rows))] == [50, 50]


def test_a_case_that_leaves_an_axis_open_joins_every_row_that_fixes_it(make: SimpleNamespace) -> None:
    memory = make.record("c3d", make.metric("memory.peak_allocated_bytes", 5, "B"), precision="fp32")
    board = board_of([memory, make.timing(ms=1, batch=1), make.timing(ms=8, batch=8)])
    assert [value(board, i, "memory.peak_allocated_bytes") for i in range(len(board.rows))] == [5, 5]
    assert [row.factors["batch"] for row in board.rows] == [1, 8]


def test_other_arguments_or_another_clip_make_another_row(make: SimpleNamespace) -> None:
    records = [
        make.counts(args={"depth": 3}),
        make.counts(args={"depth": 1}),
        make.counts(args={"depth": 3}, clip="8x1x64"),
    ]
    assert len(board_of(records).rows) == 3


def test_accuracies_on_different_sets_are_different_columns(make: SimpleNamespace) -> None:
    board = board_of(
        [make.accuracy(top1=70, dataset="ucf101", split=1), make.accuracy(top1=50, dataset="hmdb51", split=1)]
    )
    (row,) = board.rows
    found = {c.protocol_text: r.value for c, r in row.summaries.items() if c.metric == "accuracy.top1"}
    assert found == {"ucf101, split 1, 1x1 views": 70, "hmdb51, split 1, 1x1 views": 50}


def test_arguments_that_all_models_share_are_not_repeated_in_every_row(make: SimpleNamespace) -> None:
    board = board_of([make.counts(args={"depth": d, "num_classes": 8}) for d in (1, 3)])
    assert board.constant_args == {"num_classes": 8}
    assert [board.label(row, board.columns) for row in board.rows] == ["c3d depth=1", "c3d depth=3"]


def test_a_label_names_what_differs_from_other_rows_with_the_columns(make: SimpleNamespace) -> None:
    """Models that were not timed have no other precision; c3d was never trained from weights."""
    timed = [make.timing("c3d", batch=b) for b in (1, 8)]
    trained = [make.accuracy("r3d", weights=weights) for weights in (None, "k700.pt")]
    board = board_of([*timed, make.accuracy("c3d"), *trained, make.counts("slow")])
    latency, top1 = column(board, "latency.p50_ms"), column(board, "accuracy.top1")
    assert board.varying == ("batch", "weights")
    assert board.constant == {"clip": "16x1x112"}
    labels = [(board.label(row, [latency]), board.label(row, [top1])) for row in board.rows if top1 in row.summaries]
    assert labels == [
        ("c3d (batch 1)", "c3d"),
        ("c3d (batch 8)", "c3d"),
        ("r3d", "r3d (no weights)"),
        ("r3d", "r3d (k700.pt)"),
    ]


def test_an_argument_that_one_model_lacks_labels_the_others(make: SimpleNamespace) -> None:
    models: list[tuple[str, dict[str, object]]] = [
        ("c3d", {"depth": 1, "width": 2}),
        ("c3d", {"depth": 3, "width": 2}),
        ("r3d", {"depth": 1, "num_classes": 8}),
        ("r3d", {"depth": 1}),
        ("slow", {}),
    ]
    board = board_of([make.counts(model, args=args) for model, args in models])
    assert board.constant_args == {}
    assert board.constant_args_of == {"c3d": {"width": 2}, "r3d": {"depth": 1}}
    labels = [board.label(row, board.columns) for row in board.rows]
    assert labels == ["c3d depth=1", "c3d depth=3", "r3d num_classes=8", "r3d", "slow"]


VALUES = st.none() | st.sampled_from([1, True, "1", [1]])
ARGS = st.dictionaries(st.sampled_from(["depth", "width"]), VALUES)


@settings(max_examples=60)
@given(models=st.lists(st.tuples(st.sampled_from(["c3d", "r3d"]), ARGS), min_size=1, max_size=6))
def test_arguments_dropped_from_labels_are_in_the_caption_and_labels_stay_unique(
    make: SimpleNamespace, models: list[tuple[str, dict[str, object]]]
) -> None:
    board = board_of([make.counts(model, args=args) for model, args in models])
    for row in board.rows:
        said = {**board.constant_args, **board.constant_args_of.get(row.model, {})}
        assert all(name in row.args and str(row.args[name]) == str(value) for name, value in said.items())
    labels = {(row.label, board.label(row, board.columns)) for row in board.rows}
    assert len({full for full, _ in labels}) == len({short for _, short in labels}) == len(labels)


def test_the_best_value_is_the_best_of_its_machine(make: SimpleNamespace) -> None:
    board = board_of(
        [
            make.timing("a", ms=20),
            make.timing("b", ms=30),
            make.timing("a", ms=2, environment=make.gpu_host),
            make.timing("b", ms=1, environment=make.gpu_host),
        ]
    )
    assert board.best(column(board, "latency.p50_ms")) == {"A": 20, "B": 1}


def trained(make: SimpleNamespace, model: str, *, seconds: float, **rest: Any) -> Record:
    """An accuracy that took `seconds` of training."""
    metrics = (
        make.metric("accuracy.top1", 50.0, "%"),
        make.metric("accuracy.train_seconds", seconds, "s", better="lower"),
    )
    return make.record(model, *metrics, **{"dataset": "motions", "recipe": "quick", "seed": 0, **rest})


def test_what_a_training_cost_is_of_its_machine_and_its_accuracy_is_not(make: SimpleNamespace) -> None:
    board = board_of(
        [
            trained(make, "a", seconds=900),
            trained(make, "b", seconds=800),
            trained(make, "c", seconds=90, environment=make.gpu_host),
            trained(make, "d", seconds=70, environment=make.gpu_host),
        ]
    )
    seconds, top1 = (column(board, f"accuracy.{name}") for name in ("train_seconds", "top1"))
    assert board.best(seconds) == {"A": 800, "B": 70}
    assert [group_of(row, [seconds]) for row in board.rows] == ["A", "A", "B", "B"]
    assert (top1.is_of_machine, [group_of(row, [top1]) for row in board.rows]) == (False, [""] * 4)


def test_an_accuracy_joins_timings_of_another_machine_and_what_it_cost_does_not_lead_there(
    make: SimpleNamespace,
) -> None:
    board = board_of(
        [
            make.timing("a", ms=20),
            trained(make, "a", seconds=90, environment=make.gpu_host),
            trained(make, "b", seconds=900),
            trained(make, "c", seconds=800),
        ]
    )
    first = board.rows[0]
    seconds, latency = column(board, "accuracy.train_seconds"), column(board, "latency.p50_ms")
    assert [group_of(first, [c]) for c in (latency, seconds)] == ["A", "B"]
    assert group_of(first, [latency, seconds]) == "A, B"
    assert board.best(seconds) == {"A": 800}


def test_training_costs_of_seeds_on_different_machines_are_not_ranked(make: SimpleNamespace) -> None:
    board = board_of(
        [
            trained(make, "a", seconds=100, seed=0),
            trained(make, "a", seconds=10, seed=1, environment=make.gpu_host),
            trained(make, "b", seconds=100),
            trained(make, "c", seconds=200),
        ]
    )
    seconds = column(board, "accuracy.train_seconds")
    summary = board.rows[0].summaries[seconds]
    assert (summary.value, summary.machines, summary.doubts) == (55, ("A", "B"), ("mixed machines",))
    assert board.best(seconds) == {"A": 100}


def test_execution_modes_do_not_label_accuracies_and_trainings_do_not_label_timings(
    make: SimpleNamespace,
) -> None:
    timings = [make.timing(ms=ms, precision=p) for p, ms in (("fp32", 9), ("bf16", 4))]
    board = board_of([*timings, *(trained(make, "c3d", seconds=s, recipe=r) for r, s in (("quick", 5), ("long", 9)))])
    of_accuracy = [c for c in board.columns if c.metric.startswith("accuracy.")]
    of_latency = [c for c in board.columns if c.metric.startswith("latency.")]
    assert (board.factors_of(of_accuracy), board.factors_of(of_latency)) == (["recipe"], ["precision"])


def test_an_incomplete_count_is_of_no_machine(make: SimpleNamespace) -> None:
    counted = make.metric("macs.forward", 5, "MACs", is_exact=False, note="incomplete, a lower bound")
    board = board_of([make.record("a", counted), make.record("a", counted, clip="8x1x64", environment=make.gpu_host)])
    assert [group_of(row, board.columns) for row in board.rows] == ["", ""]


def test_doubtful_and_incomplete_values_do_not_lead(make: SimpleNamespace) -> None:
    board = board_of(
        [
            make.timing("a", ms=1, status="unsteady"),
            *(make.timing(name, ms=ms) for name, ms in (("b", 5), ("c", 6))),
            make.counts("a", macs=1, uncounted_operators={"op": 1}),
            *(make.counts(name, macs=macs) for name, macs in (("b", 5), ("c", 6))),
        ]
    )
    assert board.best(column(board, "latency.p50_ms")) == {"A": 5}
    assert board.best(column(board, "macs.forward")) == {"": 5}


def test_where_all_are_equal_or_alone_none_is_best(make: SimpleNamespace) -> None:
    board = board_of([make.counts("a", params=5), make.counts("b", params=5, macs=3)])
    assert board.best(column(board, "params.total")) == {}


def test_a_new_measure_gets_a_column_without_an_edit(make: SimpleNamespace) -> None:
    board = board_of(
        [
            make.record(
                "c3d",
                make.metric("sparsity.layers", 3, better=None),
                make.metric("sparsity.zeros_percent", 12.5, "%", better="higher"),
                make.metric("sparsity.other", 1.0, better="lower"),
            )
        ]
    )
    assert [c.metric for c in board.headlines] == ["sparsity.zeros_percent"]


def test_a_headline_that_no_row_knows_gives_way_to_its_stand_in(make: SimpleNamespace) -> None:
    board = board_of([make.timing()])
    assert [c.metric for c in board.headlines] == [
        "latency.p50_ms",
        "throughput.clips_per_s",
        "throughput.clips_per_s",
        "memory.peak_rss_bytes",
    ]
    assert {c.metric: why for c, why in board.unknown.items()} == {
        "memory.peak_allocated_bytes": "torch does not count on a CPU",
        "energy.j_per_clip": "no energy counter",
    }


def test_labels_that_are_numbers_are_in_the_order_of_numbers(make: SimpleNamespace) -> None:
    metrics = [
        make.metric("throughput.clips_per_s", 1, "clips/s", labels={"batch": b}) for b in ("16", "max", "2", "1")
    ]
    board = board_of([make.record("c3d", *metrics, batch=1)])
    assert [dict(c.labels)["batch"] for c in board.columns] == ["1", "2", "16", "max"]


def test_failed_cases_have_no_row(make: SimpleNamespace) -> None:
    assert board_of([make.timing(status="error")]).rows == ()


@pytest.mark.parametrize("suites", [("one", "two")])
def test_suites_are_kept_apart(make: SimpleNamespace, suites: tuple[str, str]) -> None:
    board = board_of([make.counts(suite=suite) for suite in suites])
    assert [row.factors["suite"] for row in board.rows] == list(suites)


RUNS = st.fixed_dictionaries(
    {"precision": st.sampled_from([None, "fp32", "bf16"]), "compile": st.sampled_from([None, "off"])}
)
TRAININGS = st.fixed_dictionaries(
    {
        "dataset": st.just("motions"),
        "weights": st.sampled_from([None, "k", "m"]),
        "recipe": st.sampled_from([None, "quick"]),
    }
)


@settings(max_examples=60)
@given(points=st.lists(RUNS | TRAININGS, min_size=1, max_size=8, unique_by=lambda point: str(sorted(point.items()))))
def test_every_case_is_in_a_row_and_only_in_rows_that_agree_with_it(
    make: SimpleNamespace, points: list[dict[str, str | None]]
) -> None:
    """A timing leaves open what it does not name; how a model was trained an accuracy says in full."""
    records = [
        make.record(
            "c3d",
            make.metric(f"m{number}.x", number),
            measures={"accuracy" if "dataset" in point else "latency": {}},
            **point,
        )
        for number, point in enumerate(points)
    ]
    board = board_of(records)
    for number, point in enumerate(points):
        said = {n: v for n, v in point.items() if n != "dataset" and ("dataset" in point or v is not None)}
        rows = [row for row in board.rows if any(c.metric == f"m{number}.x" for c in row.summaries)]
        agreeing = [
            row
            for row in board.rows
            if all(row.factors.get(n) == v for n, v in said.items()) and (row.is_trained or "dataset" not in point)
        ]
        assert rows
        assert rows == agreeing
