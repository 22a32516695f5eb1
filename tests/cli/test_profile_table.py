"""Several models in one `vbench profile`: order, bars, formats, and options that concern a single model."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli.app import run_command
from bench.cli.profile_table import (
    BLOCKS,
    _bar,
    as_csv,
    as_latex,
    as_markdown,
    sorted_profiles,
    terminal_table,
)
from bench.core.schema import Metric
from bench.profiling import Profile

SHAPE = (1, 3, 8, 32, 32)
INPUT = "1x3x8x32x32"


def profiled(model: str, *, macs: int = 1, params: int | None = 1, **others: object) -> Profile:
    facts: dict[str, object] = {
        "params_trainable": 1,
        "buffers": 0,
        "macs_train_step": 3 * macs,
        "macs_per_video": macs,
        "views": "1x1",
        "activation_bytes": 8,
        "bytes_moved": 16,
        "memory_inference_bytes": 2**20,
        "memory_training_bytes": None,
        "counted_on": "meta",
    }
    return Profile.model_validate(
        {"model": model, "inputs": (SHAPE,), "macs": macs, "params": params, **facts, **others}
    )


SMALL, LARGE, UNKNOWN = (
    profiled("tiny", macs=2_000_000_000, params=4_000_000),
    profiled("wide|a_b", macs=8_000_000_000, params=1_000_000),
    profiled("odd", macs=5_000_000_000, params=None),
)


def timed(model: str, *, latency_ms: float, clips_per_s: float) -> Profile:
    speed = (
        Metric(name="latency.p50_ms", value=latency_ms, unit="ms", better="lower"),
        Metric(name="throughput.clips_per_s", value=clips_per_s, unit="clips/s", better="higher"),
    )
    return profiled(model, speed=speed)


@pytest.mark.parametrize(
    ("by", "order"),
    [
        (None, ["wide|a_b", "odd", "tiny"]),
        ("macs", ["tiny", "odd", "wide|a_b"]),
        ("flops", ["tiny", "odd", "wide|a_b"]),
        ("-macs", ["wide|a_b", "odd", "tiny"]),
        ("params", ["wide|a_b", "tiny", "odd"]),
        ("-params", ["tiny", "wide|a_b", "odd"]),
        ("model", ["odd", "tiny", "wide|a_b"]),
        ("memory", ["wide|a_b", "odd", "tiny"]),
    ],
)
def test_the_best_model_comes_first_and_unknown_values_last(by: str | None, order: list[str]) -> None:
    assert [profile.model for profile in sorted_profiles([LARGE, UNKNOWN, SMALL], by)] == order


def test_throughput_sorts_descending_and_latency_ascending() -> None:
    slow, fast = timed("slow", latency_ms=9.0, clips_per_s=100.0), timed("fast", latency_ms=1.0, clips_per_s=900.0)
    assert [p.model for p in sorted_profiles([slow, fast], "throughput")] == ["fast", "slow"]
    assert [p.model for p in sorted_profiles([slow, fast], "latency")] == ["fast", "slow"]
    assert [p.model for p in sorted_profiles([fast, slow], "-throughput")] == ["slow", "fast"]


def test_a_doubtful_timing_is_rounded_and_neither_ranked_nor_drawn() -> None:
    good, doubtful = timed("good", latency_ms=9.0, clips_per_s=100.0), timed("bad", latency_ms=1.234, clips_per_s=900.0)
    doubtful = doubtful.model_copy(update={"speed_doubts": {"latency.p50_ms": ("drifting",)}})
    assert [p.model for p in sorted_profiles([doubtful, good], "latency")] == ["good", "bad"]
    assert [p.model for p in sorted_profiles([good, doubtful], "throughput")] == ["bad", "good"]
    heads, (row, _), _ = terminal_table([doubtful, good], width=200)
    latency = heads.index("latency, ms")
    assert row[latency : latency + 2] == ["~1 ms", ""]
    rows = list(csv.DictReader(io.StringIO(as_csv([doubtful, good]))))
    assert [each["doubts"] for each in rows] == ["drifting", ""]
    assert [each["latency.p50_ms"] for each in rows] == ["1.234", "9.0"]


def test_a_terminal_has_a_bar_for_every_value_within_its_width() -> None:
    heads, rows, right = terminal_table([SMALL, LARGE, UNKNOWN], width=100)
    assert heads == ["model", "input", "params, M", "", "GMACs", "", "memory, MiB", ""]
    assert right == ("params, M", "GMACs", "memory, MiB")
    assert rows[0][:6] == ["tiny", INPUT, "4.00", 12 * "█", "2.00", 3 * "█"]
    assert rows[1][:6] == ["wide|a_b", INPUT, "1.00", 3 * "█", "8.00", 12 * "█"]
    assert rows[2][2:4] == ["–", ""]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= 100


@pytest.mark.parametrize("width", [None, 60])
def test_a_pipe_or_a_narrow_terminal_has_no_bars(width: int | None) -> None:
    heads, rows, _ = terminal_table([SMALL, LARGE], width=width)
    assert heads == ["model", "input", "params, M", "GMACs", "memory, MiB"]
    assert rows[0] == ["tiny", INPUT, "4.00", "2.00", "1.00"]


@given(st.floats(0, 1), st.integers(3, 12))
def test_a_bar_is_as_long_as_its_share(share: float, width: int) -> None:
    bar = _bar(share, width=width)
    eighths = sum(BLOCKS.index(each) for each in bar)
    assert len(bar) <= width
    assert abs(eighths - 8 * width * share) <= 1
    assert (eighths > 0) == (share > 0)


def test_csv_has_every_count_unscaled_and_unknown_as_empty() -> None:
    incomplete = profiled("part", macs=7, uncounted_operators={"my::op": 2})
    rows = list(csv.DictReader(io.StringIO(as_csv([SMALL, UNKNOWN, incomplete]))))
    assert [row["macs"] for row in rows] == ["2000000000", "5000000000", "7"]
    assert [row["params"] for row in rows] == ["4000000", "", "1"]
    assert [row["is_complete"] for row in rows] == ["yes", "yes", "no"]
    assert rows[0]["input"] == INPUT
    assert rows[0]["memory_training_bytes"] == ""
    assert "macs_per_video" not in rows[0]
    assert "macs_per_video" in as_csv([profiled("views", views="10x3")])


def test_markdown_and_latex_escape_names_and_mark_lower_bounds() -> None:
    incomplete = profiled("wide|a_b", macs=3_000_000_000, uncounted_operators={"my::op": 2})
    assert as_markdown([incomplete]).splitlines() == [
        "| model | input | params | GMACs | memory, MiB |",
        "| --- | --- | ---: | ---: | ---: |",
        f"| wide\\|a_b | {INPUT} | 1 | ≥ 3.00 | 1.00 |",
    ]
    assert as_latex([incomplete]).splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"model & input & params & GMACs & memory, MiB \\",
        r"\hline",
        rf"wide|a\_b & {INPUT} & 1 & $\ge$ 3.00 & 1.00 \\",
        r"\end{tabular}",
    ]


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(["profile", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_several_models_are_one_table_list_or_file(capsys: pytest.CaptureFixture[str]) -> None:
    models = ("c3d", "resnet3d_18", "--input", "1x3x16x112x112")
    code, out, _ = outcome(capsys, *models, "--sort", "macs")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split()[:2] == ["model", "input"]
    assert [line.split()[0] for line in lines[:2]] == ["resnet3d_18", "c3d"]
    assert "1 MAC = 2 FLOPs" in out
    _, as_json, _ = outcome(capsys, *models, "--json")
    _, by_format, _ = outcome(capsys, *models, "--format", "json")
    assert as_json == by_format
    assert [(each["model"], each["macs"]) for each in json.loads(as_json)[:1]] == [("c3d", 38_547_378_176)]
    _, text, _ = outcome(capsys, *models, "--format", "csv", "--sort", "-macs")
    assert [row["model"] for row in csv.DictReader(io.StringIO(text))] == ["c3d", "resnet3d_18"]


def test_a_single_model_keeps_its_json_and_can_be_a_table_row(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = outcome(capsys, "c3d", "c3d", "--json")
    assert json.loads(out)["model"] == "c3d"
    _, out, _ = outcome(capsys, "c3d", "--format", "md")
    assert out.splitlines()[2].startswith("| c3d | 1x3x16x112x112 | ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["c3d", "c3dd"], "did you mean: c3d"),
        (["c3d", "resnet3d_18", "--csv", "layers.csv"], "--csv needs a single model; found 2: c3d, resnet3d_18"),
        (["c3d", "resnet3d_18", "--weights", "w.pth"], "--weights needs a single model"),
        (["c3d", "resnet3d_18", "--layers", "--html", "page"], "--html and --layers need a single model"),
        (["c3d", "resnet3d_18", "--counters", "all"], "--counters needs a single model"),
        (["c3d", "--sort", "mac"], "did you mean: macs"),
        (["c3d", "resnet3d_18", "--sort", "latency"], "--sort latency needs --speed"),
        (["c3d", "--json", "--format", "csv"], "--json prints JSON and --format csv does not"),
        (["resnet3d_18", "c3d", "--arg", "depth=18"], "c3d"),
        (["resnet3d_18", "c3d", "--input", "1x3x16x5x5"], "c3d"),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1


def test_layers_and_counters_of_several_models_are_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(capsys, "c3d", "resnet3d_18", "--layers", "--format", "json")
    assert code == 0
    assert all(each["layers"][0]["macs"] == each["macs"] for each in json.loads(out))
