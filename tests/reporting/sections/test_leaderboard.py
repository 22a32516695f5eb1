"""The leaderboard: doubtful values are marked and never lead it."""

import re
from pathlib import Path
from types import SimpleNamespace

from bench.reporting.results import collect
from bench.reporting.sections.leaderboard import DOUBTS, REMARKS, rank, rows_in_order
from bench.reporting.sections.summary import summarise

WRONG = {"parity": {"is_within_tolerance": False}}
RIGHT = {"parity": {"is_within_tolerance": True}}


def test_a_mode_out_of_tolerance_comes_last_and_is_not_best(make: SimpleNamespace) -> None:
    results = collect(
        [
            make.timing("wrong", ms=1, precision="fp16", details=WRONG),
            make.timing("slow", ms=30, precision="fp32"),
            make.timing("fast", ms=20, precision="bf16", details=RIGHT),
        ]
    )
    board = results.board
    assert [row.model for row in rows_in_order(board)] == ["fast", "slow", "wrong"]
    latency = next(column for column in board.columns if column.metric == "latency.p50_ms")
    assert set(board.best(latency).values()) == {20}
    page = rank(results)
    assert page is not None
    assert "<dt>out of tolerance</dt><dd>not ranked: the outputs differ from eager fp32" in page


def test_counts_of_such_a_model_are_as_good_as_any(make: SimpleNamespace) -> None:
    results = collect(
        [make.counts("wrong", macs=1), make.timing("wrong", ms=1, details=WRONG), make.counts("right", macs=2)]
    )
    macs = next(column for column in results.board.columns if column.metric == "macs.forward")
    assert results.board.best(macs) == {"": 1}


def test_every_execution_has_a_row_with_the_mark_of_its_parity(make: SimpleNamespace) -> None:
    ways = [("off", 30, {}), ("cudagraphs", 25, RIGHT), ("aotinductor", 20, RIGHT), ("onnxruntime", 1, WRONG)]
    results = collect([make.timing("c3d", ms=ms, compile=way, details=details) for way, ms, details in ways])
    board = results.board
    ordered = rows_in_order(board)
    assert [row.factors["compile"] for row in ordered] == ["aotinductor", "cudagraphs", "off", "onnxruntime"]
    page = rank(results)
    assert page is not None
    lines = [line for line in page.split("<tr") if "onnxruntime" in line or "cudagraphs" in line]
    assert ['chip">out of tolerance' in line for line in lines] == [False, True]


def test_the_fastest_that_was_searched_is_a_column_of_its_own(make: SimpleNamespace) -> None:
    """The eager case that searched stays behind a variant that is faster than eager itself."""
    rates = [make.metric("throughput.clips_per_s", 10.0, "clips/s", labels={"batch": "8"})]
    found = make.metric(
        "throughput.clips_per_s", 40.0, "clips/s", labels={"batch": "8", "variant": "best"}, note="bf16_weights; logits"
    )
    faster = make.metric("throughput.clips_per_s", 20.0, "clips/s", labels={"batch": "8"})
    speedup = make.metric("throughput.speedup", 4.0, "x", better="higher", labels={"batch": "8"})
    axes = {"memory_format": "contiguous", "compile": "off"}
    results = collect(
        [
            make.record("c3d", *rates, found, speedup, precision="fp32", **axes),
            make.record("c3d", faster, precision="bf16", details=RIGHT, **axes),
        ]
    )
    board = results.board
    assert [row.factors["precision"] for row in rows_in_order(board)] == ["bf16", "fp32"]
    names = [column.name for column in board.headlines]
    assert names == ["Throughput, batch 8", "Throughput, batch 8, variant best", "Speedup, batch 8"]
    page = rank(results)
    assert page is not None
    assert "bf16_weights; logits" in page


def test_shared_settings_are_given_for_the_rows_that_have_them(make: SimpleNamespace) -> None:
    models = [("c3d", {"depth": 1, "width": 2}), ("c3d", {"depth": 3, "width": 2}), ("r3d", {"depth": 3})]
    page = rank(collect([make.counts(model, args=args) for model, args in models]))
    assert page is not None
    assert "The same in every row: clip 16x1x112; in every c3d: width 2. Ordered by " in page


def test_settings_shared_by_all_timed_rows_are_given_once(make: SimpleNamespace) -> None:
    records = [make.timing("c3d"), make.accuracy("r3d"), make.accuracy("r3d", weights="k700.pt")]
    page = str(rank(collect(records)))
    assert "; if timed: precision fp32, memory format contiguous, compile off; " in page
    assert "; if trained: recipe quick. " in page
    heads, *rows = make.page(page).tables["leaderboard-table"]
    assert [head for head in heads if head in ("Precision", "Compile", "Recipe", "Weights")] == ["Weights"]
    assert sorted(row[heads.index("Weights")] for row in rows) == ["k700.pt", "none", "–"]


def test_a_share_just_below_the_whole_is_not_written_as_the_whole(make: SimpleNamespace) -> None:
    records = [make.accuracy(name, top1=top1) for name, top1 in (("a", 99.8), ("b", 100.0), ("c", 100.0))]
    page = make.page(str(rank(collect(records))))
    assert [cell[:5].strip(" |") for cell in page.column("leaderboard-table", "Top-1")] == ["100.0", "100.0", "99.8"]


def test_accuracies_of_another_head_than_the_counts_are_marked(make: SimpleNamespace) -> None:
    def page_of(**args: object) -> str:
        return rank(collect([make.counts(args=args), make.accuracy(args=args)])) or ""

    words = '<span class="chip">other head</span>'
    assert words in page_of(depth=3)
    assert words not in page_of(num_classes=8)
    assert words not in (rank(collect([make.counts()])) or "")


def test_an_accuracy_is_lent_to_rows_of_another_precision_and_not_bold_there(make: SimpleNamespace) -> None:
    args = {"num_classes": 8}
    timings = [make.timing(ms=ms, precision=p, args=args) for p, ms in (("fp32", 30.0), ("bf16", 10.0))]
    records = [make.accuracy(top1=76.1, args=args), make.accuracy("r3d", top1=60.0, args=args), *timings]
    page = make.page(str(rank(collect(records))))
    by_precision = dict(
        zip(page.column("leaderboard-table", "Precision"), page.column("leaderboard-table", "Top-1"), strict=True)
    )
    assert by_precision["fp32"].startswith("76.1 (best)")
    assert by_precision["bf16"].startswith("76.1lent")


def test_drifting_timings_come_last_and_are_not_best(make: SimpleNamespace) -> None:
    moved = {"canary": {"copy_ms": {"before": 1.0, "after": 1.57, "ratio": 1.57}}}
    results = collect([make.timing("drifted", ms=1, details=moved), make.timing("a", ms=3), make.timing("b", ms=2)])
    board = results.board
    assert [row.model for row in rows_in_order(board)] == ["b", "a", "drifted"]
    latency = next(column for column in board.columns if column.metric == "latency.p50_ms")
    assert set(board.best(latency).values()) == {2}
    summary = summarise(results) or ""
    assert "Lowest latency: b, 2.00 ms" in summary
    assert "1 value of Latency (drifting)" in summary


def test_no_two_columns_have_one_name_in_a_saved_file(make: SimpleNamespace) -> None:
    page = str(rank(collect([make.accuracy(views=views) for views in ("1x1", "3x1")])))
    names = re.findall(r'data-name="([^"]*)"', page)
    assert len(names) == len(set(names))
    assert "Top-1, motions, 3x1 views [%]" in names


def test_a_range_of_few_runs_is_called_a_range(make: SimpleNamespace) -> None:
    runs = [make.timing("a", ms=ms, run_index=i) for i, ms in enumerate((10.0, 10.5, 11.0))]
    page = make.page(str(rank(collect([*runs, make.timing("b", ms=20)]))))
    assert page.column("leaderboard-table", "Latency")[0].split("|")[1] == "range 10.0–11.0"


def test_every_mark_of_the_board_is_explained_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "statuses.md").read_text(encoding="utf-8")
    assert [mark for mark in (*DOUBTS, *REMARKS) if f"\n| {mark} |" not in page] == []


def test_the_interval_of_one_training_is_over_its_test_videos(make: SimpleNamespace) -> None:
    page = make.page(rank(collect([make.accuracy(), make.timing()])) or "")
    assert (
        "one run, with the 95 % interval of its own samples and one run, with the 95 % interval of its test videos"
        in page.text
    )


def test_the_summary_names_the_machines_by_their_letters(make: SimpleNamespace) -> None:
    """Findings such as `lowest latency on machine B` need them."""
    records = [
        make.timing("a"),
        make.timing("a", environment=make.gpu_host),
        *[make.counts("a", params=p) for p in (1, 2)],
    ]
    text = make.page(summarise(collect(records)) or "").text
    assert "A: AMD EPYC 9B14 and B: NVIDIA H100 80GB HBM3" in text
    assert "1 record is not shown, because a later one of the same run replaces it." in " ".join(text.split())
