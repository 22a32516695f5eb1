"""Data files: their form, and that their values are those of the records."""

import csv
import json
import math
import re
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.core.schema import Record
from bench.reporting.data_files import as_json, board_csv, board_data, data_script
from bench.reporting.results import collect
from bench.reporting.site import report


def data_of(file: Path) -> Any:
    """The JSON of a data file, whose form is checked."""
    found = re.fullmatch(r'vbench_data\["([^"]+)"\] = (.*);\n', file.read_text(encoding="utf-8"), re.S)
    assert found is not None
    assert file.as_posix().endswith(f"data/{found[1]}.js")
    return json.loads(found[2])


def test_every_data_file_is_one_assignment_of_json(results_folder: Path, tmp_path: Path) -> None:
    report(results_folder, out=tmp_path)
    files = sorted((tmp_path / "data").rglob("*.js"))
    lines = (results_folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(files) == 1 + len({json.loads(line)["case_id"] for line in lines})
    assert {data_of(file)["schema"] for file in files} == {1}


def test_the_values_of_the_board_are_those_of_the_records(make: SimpleNamespace) -> None:
    """Counts once, the median of runs, the mean of seeds: worked out from the records in a few lines of their own."""
    records = make.quickstart()
    data = json.loads(as_json(board_data(collect(records, [make.quickstart_facts]))))
    titles = {column["title"]: str(index) for index, column in enumerate(data["columns"])}
    for row in (row for row in data["rows"] if "failure" not in row):
        mine = [r for r in records if r.is_good and r.case.point.model == row["model"] and row["args"] in shown(r)]
        for name, title, of in (
            ("params.total", "Parameters", median),
            ("macs.forward", "MACs", median),
            ("latency.p50_ms", "Latency", median),
            ("accuracy.top1", "Top-1, motions, 1x1 views", mean),
        ):
            values = [m.value for r in mine for m in r.metrics if m.name == name]
            assert math.isclose(row["cells"][titles[title]]["value"], of(values)), (row["label"], title)
            assert row["cells"][titles[title]]["n"] == (1 if name.startswith("latency") else len(values))


def shown(record: Record) -> str:
    return " ".join(f"{name}={value}" for name, value in record.case.point.args.items() if name == "kernel_depth") or (
        f"depth={record.case.point.args.get('depth')} widen_factor={record.case.point.args.get('widen_factor')}"
    )


def test_unknown_values_are_null_and_never_zero(make: SimpleNamespace) -> None:
    data = board_data(collect([make.timing()]))
    energy = next(str(i) for i, column in enumerate(data["columns"]) if column["metric"] == "energy.j_per_clip")
    cell = data["rows"][0]["cells"][energy]
    assert cell["value"] is None
    assert data["explanations"][cell["how"]] == "no energy counter"
    assert "text" not in cell


def test_a_failed_measure_is_a_cell_of_the_row_of_its_model(make: SimpleNamespace) -> None:
    failed = make.record("a", status="oom", measures={"latency": {}}, precision="fp32")
    data = board_data(collect([make.counts("a"), make.counts("b"), make.timing("b"), failed]))
    latency = next(str(i) for i, column in enumerate(data["columns"]) if column["metric"] == "latency.p50_ms")
    rows = {row["model"]: row for row in data["rows"] if "failure" not in row}
    assert rows["a"]["cells"].get(latency) is None, "the row of a is of no precision, the failure is of fp32"
    failures = [row["model"] for row in data["rows"] if row.get("failure") == "out of memory"]
    assert failures == ["a"]
    (row,) = (row for row in data["rows"] if "failure" in row)
    assert row["cells"][latency].items() >= {"failure": "oom", "text": "out of memory"}.items()
    assert row["machine"] == "A"
    trained = make.record("b", status="timeout", measures={"accuracy": {}}, dataset="motions", views="1x1")
    data = board_data(collect([make.counts("b"), make.accuracy("a"), trained]))
    top1 = next(str(i) for i, column in enumerate(data["columns"]) if column["metric"] == "accuracy.top1")
    (cell,) = (row["cells"][top1] for row in data["rows"] if row["model"] == "b")
    assert cell["failure"] == "timeout"


def test_a_case_that_failed_at_a_batch_says_so_in_the_cells_it_should_fill(make: SimpleNamespace) -> None:
    measured = [make.record("a", make.metric("latency.p50_ms", 5.0, "ms"), batch=batch) for batch in (1, 8)]
    failed = make.record("a", status="oom", measures={"latency": {}}, batch=64)
    data = board_data(collect([*measured, make.counts("b"), failed]))
    columns = [column["metric"] for column in data["columns"]]
    (row,) = (row for row in data["rows"] if row["factors"].get("batch") == 64)
    assert {columns[int(place)]: cell["text"] for place, cell in row["cells"].items()} == {
        "latency.p50_ms": "out of memory at batch 64"
    }


def test_the_column_that_orders_the_rows_is_named(make: SimpleNamespace) -> None:
    data = board_data(collect([make.timing("a"), make.accuracy("a"), make.timing("b")]))
    assert data["columns"][data["ranked_by"]]["metric"] == "accuracy.top1"
    undirected = make.metric("custom.size", 1.0, better=None)
    assert board_data(collect([make.record("a", undirected), make.record("b", undirected)]))["ranked_by"] is None


def test_the_csv_has_every_row_with_intervals_counts_and_status(make: SimpleNamespace) -> None:
    failed = make.record("=sum", status="oom", measures={"latency": {}}, precision="bf16", environment=make.gpu_host)
    timed = [make.timing("a", ms=20), make.timing("b", ms=30, status="drifting"), failed]
    rows = list(csv.DictReader(board_csv(board_data(collect(timed))).splitlines()))
    assert [row["model"] for row in rows] == ["a", "b", "'=sum"]
    latency = "Latency [ms]"
    assert [row[latency] for row in rows] == ["20.0", "30.0", ""]
    assert [row[f"{latency} low"] for row in rows][::2] == ["19.9", ""]
    assert [row[f"{latency} n"] for row in rows] == ["1", "1", ""]
    assert [row[f"{latency} status"] for row in rows] == ["", "drifting", "out of memory"]
    assert [row["machine"] for row in rows] == ["B", "B", "A"], "the failure was first"
    heads = next(csv.reader(board_csv(board_data(collect(timed))).splitlines()))
    assert len(set(heads)) == len(heads)


def test_no_name_of_the_csv_turns_what_follows_it(make: SimpleNamespace) -> None:
    text = board_csv(board_data(collect([make.timing("c3d\u202e", suite="\u202eevil"), make.counts("b\x1b[31m")])))
    assert text.isascii() or "\u202e" not in text
    assert "c3d\\u202e" in text
    assert "\x1b" not in text


def test_ranks_are_bands_of_what_cannot_be_separated(make: SimpleNamespace) -> None:
    """10±1 and 11±1 overlap, 20±1 overlaps with neither; the intervals are those of the samples."""
    records = [
        make.record(name, make.metric("latency.p50_ms", ms, "ms", interval=(ms - 1, ms + 1)), precision="fp32")
        for name, ms in (("a", 10.0), ("b", 11.0), ("c", 20.0))
    ]
    data = board_data(collect(records))
    assert {row["model"]: row["cells"]["0"]["rank"] for row in data["rows"]} == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}


def test_the_highest_is_first_if_higher_is_better_and_machines_are_ranked_separately(make: SimpleNamespace) -> None:
    rates = (("a", 90.0, make.host), ("b", 100.0, make.host), ("c", 10.0, make.gpu_host))
    records = [
        make.record(
            name,
            make.metric("throughput.clips_per_s", rate, "clips/s", interval=(rate - 1, rate + 1)),
            precision="fp32",
            environment=machine,
        )
        for name, rate, machine in rates
    ]
    data = board_data(collect(records))
    assert {row["model"]: row["cells"]["0"]["rank"] for row in data["rows"]} == {"a": (2, 2), "b": (1, 1), "c": (1, 1)}


def test_case_files_hold_every_sample_of_the_records(make: SimpleNamespace, tmp_path: Path) -> None:
    records = [make.timing(ms=20 + i, run_index=i, n=7) for i in range(3)]
    report(records, out=tmp_path)
    (file,) = (tmp_path / "data" / "cases").iterdir()
    data = data_of(file)
    assert [(each["run"], each["values"]) for each in data["samples"]] == [
        (i, list(record.metric("latency.p50_ms").samples)) for i, record in enumerate(records)
    ]
    assert [Record.model_validate(record).run_index for record in data["records"]] == [0, 1, 2]


@given(
    st.recursive(
        st.none() | st.floats() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_data_is_json_that_cannot_end_a_script_element(data: Any) -> None:
    script = data_script("name", {"data": data})
    assert not set("<>&") & set(script)
    json.loads(script.removeprefix('vbench_data["name"] = ').removesuffix(";\n"))
