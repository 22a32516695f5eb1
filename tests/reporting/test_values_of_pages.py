"""The values of every page against the lines of the records file, computed here without the code of the report."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

import pytest

from bench.reporting.site import report

Line = dict[str, Any]


@pytest.fixture(scope="module")
def lines(results_folder: Path) -> list[Line]:
    """The records as they are stored, those with a result."""
    stored = map(json.loads, (results_folder / "records.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in stored if line["status"] not in ("oom", "error", "timeout")]


@pytest.fixture(scope="module")
def site(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report."""
    return report(results_folder, out=tmp_path_factory.mktemp("values") / "site").parent


def values_of(lines: list[Line], metric: str) -> dict[str, list[float]]:
    """The known values of a metric by model and arguments, in the order of the file."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        point = line["case"]["point"]
        label = " ".join([point["model"], *(f"{name}={value}" for name, value in point["args"].items())])
        for each in line["metrics"]:
            if each["name"] == metric and each["value"] is not None:
                found[label].append(each["value"])
    return found


def data_of(site: Path, name: str) -> dict[str, Any]:
    text = (site / "data" / f"{name}.js").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text.partition(" = ")[2].removesuffix(";\n"))
    return data


def sorted_values(make: SimpleNamespace, file: Path, table: str) -> dict[str, list[float]]:
    """The exact values (`data-sort`) of a table by the text of its headings."""
    page = make.page(file.read_text(encoding="utf-8"))
    inside, found, row = False, defaultdict[str, list[float]](list), -1
    for tag, given in page.tags:
        if tag == "table":
            inside = given.get("id") == table
        if inside and tag == "tr":
            row = -1
        if inside and tag in ("td", "th"):
            row += 1
            if given.get("data-sort"):
                found[page.tables[table][0][row]].append(float(given["data-sort"]))
    return found


def test_the_overview_counts_cases_and_runs(make: SimpleNamespace, site: Path, lines: list[Line]) -> None:
    text = make.page((site / "index.html").read_text(encoding="utf-8")).text
    assert f"{len({line['case_id'] for line in lines})} of " in text
    assert f"{len({(line['case_id'], line['run_index']) for line in lines})} runs" in text
    best = max(mean(values) for values in values_of(lines, "accuracy.top1").values())
    assert f"{best:.1f} %" in text


@pytest.mark.parametrize(
    ("metric", "combine"),
    [("params.total", max), ("macs.forward", max), ("latency.p50_ms", median), ("accuracy.top1", mean)],
)
def test_the_board_has_the_values_of_the_records(
    make: SimpleNamespace, site: Path, lines: list[Line], metric: str, combine: Any
) -> None:
    expected = sorted(map(combine, values_of(lines, metric).values()))
    board = data_of(site, "board")
    (place,) = (str(i) for i, column in enumerate(board["columns"]) if column["metric"] == metric)
    shown = [row["cells"].get(place, {}).get("value") for row in board["rows"]]
    assert sorted(value for value in shown if value is not None) == pytest.approx(expected)
    title = board["columns"][int(place)]["title"].partition(",")[0]
    plain = sorted_values(make, site / "board.html", "leaderboard-table")
    (values,) = (found for head, found in plain.items() if head.startswith(title) and "batch" not in head)
    assert sorted(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "head", "combine"),
    [("params.total", "Parameters [elements]", max), ("latency.p50_ms", "Latency [ms]", median)],
)
def test_the_csv_of_the_board_has_the_values_of_the_records(
    site: Path, lines: list[Line], metric: str, head: str, combine: Any
) -> None:
    with (site / "data" / "board.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row[head]) for row in rows if row[head]) == sorted(
        map(combine, values_of(lines, metric).values())
    )
    counts = sorted(int(row[f"{head} n"]) for row in rows if row[head])
    assert counts == sorted(map(len, values_of(lines, metric).values()))
    failed = [row for row in rows if row["model"] == "c3d"]
    assert [row["Latency [ms] status"] for row in failed] == ["out of memory at batch 4096"]


def test_the_tables_of_all_metrics_have_every_count(make: SimpleNamespace, site: Path, lines: list[Line]) -> None:
    shown = sorted_values(make, site / "metrics.html", "metrics-params")
    assert sorted(*shown.values()) == sorted(v for values in values_of(lines, "params.total").values() for v in values)


def test_an_ablation_has_the_difference_of_the_means(make: SimpleNamespace, site: Path, lines: list[Line]) -> None:
    top1 = values_of(lines, "accuracy.top1")
    (one,) = (mean(values) for label, values in top1.items() if "kernel_depth=1" in label)
    (three,) = (mean(values) for label, values in top1.items() if "kernel_depth=3" in label)
    text = make.page((site / "ablations.html").read_text(encoding="utf-8")).text.replace("\N{MINUS SIGN}", "-")
    assert f"{three - one:.1f} points lower" in text


def charts_of(make: SimpleNamespace, file: Path) -> Iterator[dict[str, Any]]:
    for script in make.page(file.read_text(encoding="utf-8")).scripts:
        if script.startswith("{"):
            yield json.loads(script)


def test_charts_of_cost_and_gain_have_the_points_of_the_records(
    make: SimpleNamespace, site: Path, lines: list[Line]
) -> None:
    expected = sorted(mean(values) for values in values_of(lines, "accuracy.top1").values())
    checked = 0
    for chart in charts_of(make, site / "trade-offs.html"):
        drawn = {
            (x, y)
            for trace in chart["data"]
            if "markers" in trace.get("mode", "")
            for x, y in zip(trace["x"], trace["y"], strict=True)
        }
        if "Top-1" in json.dumps(chart["layout"]):
            assert sorted({y for _, y in drawn}) == pytest.approx(expected)
            checked += 1
    assert checked


def test_pages_of_cases_and_models_have_the_values_of_their_records(
    make: SimpleNamespace, site: Path, lines: list[Line]
) -> None:
    for line in lines:
        (file,) = site.glob(f"cases/{line['case_id']}*.html")
        shown = sorted_values(make, file, f"{file.stem}-metrics")["Value"]
        known = [metric["value"] for metric in line["metrics"] if metric["value"] is not None]
        assert sorted(shown) == pytest.approx(sorted(known))
        data = data_of(site, f"cases/{file.stem}")
        assert [each["values"] for each in data["samples"]] == [m["samples"] for m in line["metrics"] if m["samples"]]
    models = list(site.glob("models/*.html"))
    found = [sorted_values(make, file, f"{file.stem}-rows") for file in models]
    params = [
        value for each in found for head, values in each.items() if head.startswith("Parameters") for value in values
    ]
    assert sorted(params) == sorted(map(max, values_of(lines, "params.total").values()))


def test_the_machine_and_the_failures_are_those_of_the_records(
    make: SimpleNamespace, site: Path, lines: list[Line]
) -> None:
    hardware = lines[0]["environment"]["hardware"]
    text = make.page((site / "machines.html").read_text(encoding="utf-8")).text
    assert hardware["cpu"] in text
    assert f"{hardware['ram_bytes'] / 2**30:g} GiB" in text
    failed = make.page((site / "failures.html").read_text(encoding="utf-8")).tables["failures-table"][1:]
    assert [row[1].partition("|")[2] for row in failed] == ["oom"]


def test_quantiles_of_samples_are_those_of_the_records(make: SimpleNamespace, site: Path, lines: list[Line]) -> None:
    samples = [m["samples"] for line in lines for m in line["metrics"] if m["samples"]]
    shown = sorted_values(make, site / "metrics.html", "spread-1-table")
    (largest,) = (values for head, values in shown.items() if head.startswith("Largest"))
    assert sorted(largest) == pytest.approx(sorted(map(max, samples)))
    (middle,) = (values for head, values in shown.items() if head.startswith("50"))
    assert sorted(middle) == pytest.approx(sorted(map(median, samples)))
    assert all(math.isfinite(value) for value in middle)
