"""The leaderboard: what gives wrong outputs never leads it."""

from types import SimpleNamespace

from bench.reporting.results import collect
from bench.reporting.sections.leaderboard import _ordered, rank

WRONG = {"parity": {"is_within_tolerance": False}}
RIGHT = {"parity": {"is_within_tolerance": True}}


def test_a_variant_out_of_tolerance_stands_last_and_is_not_best(make: SimpleNamespace) -> None:
    results = collect(
        [
            make.timing("wrong", ms=1, precision="fp16", details=WRONG),
            make.timing("slow", ms=30, precision="fp32"),
            make.timing("fast", ms=20, precision="bf16", details=RIGHT),
        ]
    )
    board = results.board
    assert [row.model for row in _ordered(board, board.headlines)] == ["fast", "slow", "wrong"]
    latency = next(column for column in board.columns if column.metric == "latency.p50_ms")
    assert set(board.best(latency).values()) == {20}
    page = rank(results)
    assert page is not None
    assert "¶ gives other outputs than eager fp32" in page


def test_counts_of_such_a_network_are_as_good_as_any(make: SimpleNamespace) -> None:
    results = collect(
        [make.counts("wrong", macs=1), make.timing("wrong", ms=1, details=WRONG), make.counts("right", macs=2)]
    )
    macs = next(column for column in results.board.columns if column.metric == "macs.forward")
    assert results.board.best(macs) == {"": 1}
