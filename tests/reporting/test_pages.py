"""Values on the pages of models, cases, rooflines, machines and failures, worked out from the records independently."""

import json
import re
from html import unescape
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.schema import Record
from bench.reporting.picture_pages import write_contact_sheet
from bench.reporting.results import collect
from bench.reporting.site import Site, build_site, report
from bench.store import RecordStore


def page(make: SimpleNamespace, site: Site, name: str) -> Any:
    found = next(each for each in site.pages if each.name == name)
    return make.page(site.page_html(found))


def site_of(records: list[Record]) -> Site:
    return build_site(collect(records))


def case_page(make: SimpleNamespace, records: list[Record]) -> tuple[Any, str]:
    site = site_of(records)
    name = next(each.name for each in site.pages if each.name.startswith("cases/"))
    return page(make, site, name), name.partition("/")[2]


def test_no_page_prints_its_title_twice(make: SimpleNamespace, tmp_path: Path) -> None:
    """A page of one section is named as the section is, such as the roofline, or the page of an explanation."""
    limits = {"flops_per_byte": 5.0, "measured_flops_per_s": 1e12, "measured_bytes_per_s": 1e11, "bound_by": "memory"}
    achieved = make.metric("limits.flops_per_s", 2e11, "FLOP/s")
    records = [*make.quickstart(), make.record("m", achieved, precision="fp32", details={"limits": limits})]
    site = site_of(records)
    pages = {each.name: site.page_html(each) for each in site.pages}
    pages["single"] = write_contact_sheet(tmp_path / "a.html", [], title="To look at", summary="").read_text("utf-8")
    assert "roofline" in pages
    for name, html in pages.items():
        headings = re.findall(r'<(?:h1|h2|p class="page-title").*?>(.*?)</', html)
        assert len(headings) == len(set(headings)), name
        ids = set(re.findall(r' id="([^"]*)"', html))
        assert set(re.findall(r' aria-labelledby="([^"]*)"', html)) <= ids, name
    whole = make.report(collect(records))
    assert '<p class="page-title">Metrics' in whole
    assert '<p class="page-title">Roofline' not in whole


def test_a_case_shows_every_metric_run_by_run_and_their_median(make: SimpleNamespace) -> None:
    records = [make.timing(ms=ms, run_index=i) for i, ms in enumerate((20.0, 22.0, 27.0))]
    found, key = case_page(make, records)
    heads, *rows = found.tables[f"{key}-metrics"]
    values = {tuple(row[0].split("|")): row for row in rows}
    assert heads[:6] == ["Metric", "Value", "n", "Run 1", "Run 2", "Run 3"]
    assert len(rows) == len(records[0].metrics)
    for metric in records[0].metrics:
        of_runs = [record.metric(metric.key).value for record in records]
        if metric.name == "latency.p50_ms":
            row = values["Latency",]
            assert row[1] == f"{median(of_runs):g} ms|range 20 ms to 27 ms", "three runs give no 95 % interval"
            assert row[2:6] == ["3", *(f"{value:g} ms" for value in of_runs)]
        if metric.value is None:
            unknown = f"– ({metric.note})"
            assert any(row[1:6] == [unknown, "–", *[unknown] * 3] for row in rows), metric.name


def test_a_case_shows_the_canary_and_its_warnings(make: SimpleNamespace) -> None:
    canary = {"canary": {"copy_ms": {"before": 2.0, "after": 2.5, "ratio": 1.25}}}
    warning = {"what": "the clocks fell", "remedy": "lock them"}
    found, key = case_page(make, [make.timing(details=canary, warnings=[warning])])
    assert found.tables[f"{key}-canary"][1] == ["Run 1", "copy", "2.000", "2.500", "+25.0 %"]
    assert "the clocks fell" in found.text
    assert "lock them" in found.text


def test_a_case_names_the_command_for_its_records_and_its_axes(make: SimpleNamespace) -> None:
    record = make.timing(precision="bf16")
    found, key = case_page(make, [record])
    assert f"vbench results show RESULTS --case {record.case_id}" in found.text
    assert ["precision", "bf16"] in found.tables[f"{key}-point"]
    assert ["status", "ok"] in found.tables[f"{key}-conditions"]


def test_a_failed_case_has_a_page_with_its_error_and_log(make: SimpleNamespace, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "results")
    error = {"type": "RuntimeError", "message": "<b>no</b>", "traceback": "line 1\nline 2"}
    record = make.timing(status="error", error=error, artifacts={"log": "logs/1.log"})
    store.append(record)
    (tmp_path / "results" / "logs").mkdir(exist_ok=True)
    (tmp_path / "results" / "logs" / "1.log").write_text("first\n" * 99 + f"last <i> {Path.home()}/secret\n")
    report(tmp_path / "results", out=tmp_path / "site")
    (file,) = (tmp_path / "site" / "cases").glob("*.html")
    html = file.read_text(encoding="utf-8")
    assert "RuntimeError: <b>no</b>" in unescape(html)
    assert "<b>no" not in html
    assert "last &lt;i&gt; ~/secret" in html
    assert html.count("first\n") < 45


def test_a_log_outside_of_the_results_folder_is_not_shown(make: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "secret.log").write_text("do not show")
    RecordStore(tmp_path / "results").append(make.timing(artifacts={"log": "../secret.log"}))
    report(tmp_path / "results", out=tmp_path / "site")
    assert not any("do not show" in file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.html"))


def test_a_model_has_its_rows_arguments_protocol_and_cases(make: SimpleNamespace) -> None:
    records = [
        make.counts("c3d", params=100, args={"width": 2}),
        make.timing("c3d", ms=20, args={"width": 2}),
        make.timing("c3d", ms=10, args={"width": 2}, precision="bf16"),
        make.accuracy("c3d", top1=90.0, args={"width": 2}),
        make.counts("other"),
    ]
    site = site_of(records)
    found = page(make, site, "models/c3d-width-2-" + next(p.name for p in site.pages if "width" in p.name)[-6:])
    (key,) = (name.removesuffix("-rows") for name in found.tables if name.endswith("-rows"))
    assert [text.split("|")[0] for text in found.column(f"{key}-rows", "Latency")] == ["20.0", "10.0 (best)"]
    assert set(found.column(f"{key}-rows", "Parameters")) == {"100"}
    assert ["width", "2"] in found.tables[f"{key}-arguments"]
    assert ["resize", "to cover the crop"] in found.tables[f"{key}-input"]
    assert len(found.tables[f"{key}-cases"]) == 1 + 4
    links = [given["href"] for tag, given in found.tags if tag == "a" and "../cases/" in (given.get("href") or "")]
    assert links == [f"../cases/{r.case_id}{'-a' if r.case.point.precision else ''}.html" for r in records[:4]]


def test_a_model_shows_where_its_macs_are(make: SimpleNamespace) -> None:
    details = {"macs_by_module": {"": 100, "stem": 25, "head": 25, "head.fc": 25, "body": 50}}
    site = site_of([make.counts("m", details=details)])
    html = next(site.page_html(each) for each in site.pages if each.name == "models/m")
    for tile in ("stem: 25 (25.0 %)", "head.fc: 25 (25.0 %)", "body: 50 (50.0 %)"):
        assert f"<title>{tile}</title>" in html
    assert "<title>head: " not in html


def test_a_model_shows_macs_parameters_and_bytes_of_each_module(make: SimpleNamespace) -> None:
    macs, params, moved = {"": 100, "a": 60, "b": 40}, {"": 10, "a": 1, "b": 9}, {"": 4096, "a": 1024, "b": 3072}
    details = {"macs_by_module": macs, "params_by_module": params, "bytes_by_module": moved}
    site = site_of([make.counts("m", details={**details, "model_paper": "Ours, 2026", "model_source": "nets.py:7"})])
    found = page(make, site, "models/m")
    assert found.tables["m-modules"] == [
        ["Module", "MACs", "Parameters", "Bytes read and written"],
        ["the model", "100 MACs|100.0 %", "10|100.0 %", "4 KiB|100.0 %"],
        ["a", "60 MACs|60.0 %", "1|10.0 %", "1 KiB|25.0 %"],
        ["b", "40 MACs|40.0 %", "9|90.0 %", "3 KiB|75.0 %"],
    ]
    assert sum(given.get("type") == "radio" for _, given in found.tags) == 3
    assert ["paper", "Ours, 2026"] in found.tables["m-arguments"]
    assert ["source", "nets.py:7"] in found.tables["m-arguments"]


def test_modules_beyond_the_largest_are_one_tile(make: SimpleNamespace) -> None:
    amounts = {"": 130 * 1.0, **{f"layer{i}": 1.0 for i in range(130)}}
    site = site_of([make.counts("m", details={"macs_by_module": amounts})])
    html = next(site.page_html(each) for each in site.pages if each.name == "models/m")
    assert html.count("<rect class=") == 121
    assert "<title>10 smaller modules: 10 (7.7 %)</title>" in html


def test_a_model_has_its_own_points_of_the_roofline(make: SimpleNamespace) -> None:
    limits = {"flops_per_byte": 5.0, "measured_flops_per_s": 1e12, "measured_bytes_per_s": 1e11, "bound_by": "memory"}
    achieved = make.metric("limits.flops_per_s", 2e11, "FLOP/s")
    records = [make.record(name, achieved, precision="fp32", details={"limits": limits}) for name in ("m", "other")]
    found = page(make, site_of(records), "models/m")
    assert [row[0] for row in found.tables["m-roofline-table"][1:]] == ["m 16x1x112"]
    links = [given["href"] for tag, given in found.tags if tag == "a" and "cases/" in (given.get("href") or "")]
    assert all(link.startswith("../cases/") for link in links)
    assert len(links) == 2


def test_a_roofline_point_is_a_share_of_the_lower_ceiling(make: SimpleNamespace) -> None:
    """5 FLOPs per byte at 100 GB/s are at most 500 GFLOP/s, below the 1 TFLOP/s of the matrix product."""
    limits = {"flops_per_byte": 5.0, "measured_flops_per_s": 1e12, "measured_bytes_per_s": 1e11, "bound_by": "memory"}
    achieved = make.metric("limits.flops_per_s", 2e11, "FLOP/s")
    record = make.record("m", achieved, precision="fp32", details={"limits": limits})
    found = page(make, site_of([record]), "roofline")
    (row,) = found.tables["roofline-table"][1:]
    assert row == ["m 16x1x112", "A", "fp32", "5.0", "200 GFLOP/s", "1 TFLOP/s", "100 GB/s", "40.0", "memory"]
    figure = json.loads(next(script for script in found.scripts if "FLOPs per byte" in script))
    roof, points = figure["data"]
    assert (points["x"], points["y"]) == ([5.0], [0.2])
    assert figure["layout"]["yaxis"]["title"]["text"] == "TFLOP/s"
    assert roof["x"][1] == 10.0
    assert roof["y"][1:] == [1.0, 1.0]
    assert roof["y"][0] == pytest.approx(roof["x"][0] * 0.1)


def test_records_without_ceilings_have_no_roofline(make: SimpleNamespace) -> None:
    assert "roofline" not in [each.name for each in site_of([make.timing()]).pages]


def test_the_overview_offers_limits_only_if_two_rows_have_cost_and_gain(make: SimpleNamespace) -> None:
    one, two = site_of([make.timing("a")]), site_of([make.timing("a"), make.timing("b")])
    assert [any(each.modules == ["budget"] for each in site.pages) for site in (one, two)] == [False, True]
