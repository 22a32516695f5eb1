"""The page as it is written: its numbers, its dashes, its warnings, and nothing that a name could do to it."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
from bench.core.errors import InputError, StoreError
from bench.core.registry import SECTIONS, SectionEntry
from bench.core.schema import Record, Status
from bench.reporting.results import Results, collect
from bench.reporting.site import MOST_CASES_IN_SINGLE_FILE, ReportWarning, build_site, report
from bench.reporting.table import plain_table
from bench.store import RecordStore, StoreWarning

BOARD = "leaderboard-table"


def test_the_leaderboard_has_every_number_in_its_place(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart(), [make.quickstart_facts])))
    assert page.column(BOARD, "Model") == [
        "resnet3d|depth=10 widen_factor=0.25",
        "c3d_search|kernel_depth=3",
        "c3d_search|kernel_depth=increasing",
        "c3d_search|kernel_depth=1",
    ]
    assert page.column(BOARD, "Parameters k") == ["922", "610", "701", "530 (best)"]
    assert page.column(BOARD, "MACs M") == ["402", "286", "352", "102 (best)"]
    assert page.column(BOARD, "Latency ms") == [
        "14.1|14.0–14.2",
        "9.7unsteady|9.7–9.8",
        "11.9|11.8–12.0",
        "5.2 (best)|5.17–5.23",
    ]
    assert [text.split("|")[0] for text in page.column(BOARD, "Top-1 %")] == ["97.6 (best)", "96.9", "96.6", "50.1"]


def test_tables_sort_and_save_by_the_exact_value(make: SimpleNamespace) -> None:
    html = make.report(collect([make.counts(params=78_409_573)]))
    assert 'data-sort="78409573"' in html
    assert "78,409,573 elements; exact" in html
    assert 'data-name="Parameters [elements]"' in html


def test_an_unknown_value_is_a_dash_with_its_reason_and_never_a_zero(make: SimpleNamespace) -> None:
    known = make.record("b", make.metric("energy.j_per_clip", 2.5, "J"), batch=1)
    unknown = make.record("a", make.metric("energy.j_per_clip", None, "J", note="no <counter>"), batch=1)
    page = make.page(make.report(collect([known, unknown])))
    assert page.column(BOARD, "Energy") == ["2.50", "– (no <counter>)"]
    assert page.titles[BOARD][2][1] == "no <counter>"


def test_an_incomplete_count_is_a_lower_bound_by_name(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect([make.counts(macs=4_000_000_000, uncounted_operators={"aten::mv": 3})])))
    assert page.column(BOARD, "MACs") == ["≥ 4.00"]
    assert page.tables["counting-table"][1] == ["c3d", "16x1x112", "aten::mv", "3"]


def test_values_of_different_machines_are_ranked_separately_with_a_notice(make: SimpleNamespace) -> None:
    records = [
        make.timing(name, ms=ms, environment=machine)
        for machine, times in ((make.host, (20, 30)), (make.gpu_host, (2, 3)))
        for name, ms in zip("ab", times, strict=True)
    ]
    page = make.page(make.report(collect(records)))
    assert "The timings below come from unlike machines" in page.text
    rows = list(zip(page.column(BOARD, "Machine"), page.column(BOARD, "Latency"), strict=True))
    assert [(m, "best" in latency) for m, latency in rows] == [("A", True), ("A", False), ("B", True), ("B", False)]
    groups = [given.get("data-group") for tag, given in page.tags if tag == "tr" and given.get("data-group")]
    assert groups[:4] == ["A", "A", "B", "B"]
    differing = page.tables["environment-differences"]
    assert ["gpu", "–", "NVIDIA H100 80GB HBM3"] not in differing
    assert ["cpu", "AMD EPYC 9B14", "Xeon 8481C"] in differing


def test_trainings_on_different_machines_are_noticed_and_their_costs_ranked_separately(make: SimpleNamespace) -> None:
    costs = [("a", 900, make.host), ("b", 800, make.host), ("c", 90, make.gpu_host), ("d", 70, make.gpu_host)]
    records = [
        make.record(
            name,
            make.metric("accuracy.top1", 50.0, "%"),
            make.metric("accuracy.train_seconds", seconds, "s", better="lower"),
            dataset="motions",
            environment=machine,
        )
        for name, seconds, machine in costs
    ]
    page = make.page(make.report(collect(records)))
    assert "Timings come from 2 unlike machines" in page.text
    assert page.column("metrics-accuracy", "Machine") == ["A", "A", "B", "B"]
    seconds = page.column("metrics-accuracy", "Training time")
    assert [("best" in text) for text in seconds] == [False, True, False, True]
    assert "The timings below" not in page.text
    assert not any(text == "Machine" for text in page.tables[BOARD][0])


def test_one_machine_needs_no_warning(make: SimpleNamespace) -> None:
    assert "unlike machines" not in make.report(collect([make.timing("a"), make.timing("b")]))


def test_failures_have_status_error_and_log(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart())))
    (failure,) = page.tables["failures-table"][1:]
    assert failure == [
        "c3d batch=4096 16x1x112|suite quickstart, run 1",
        "out of memory|oom",
        "OutOfMemoryError: CUDA out of memory",
        "logs/1.log",
        "none",
    ]
    assert "1 run out of memory" in page.text


def test_a_report_of_failures_alone_is_a_report(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect([make.timing(status=s) for s in ("error", "timeout", "skipped")])))
    assert "0 of 1" in page.text
    assert BOARD not in page.tables


def test_an_ablation_has_findings_and_a_table(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart(), [make.quickstart_facts])))
    assert "Top-1 on motions is 46.8 points lower with kernel_depth 1 than with 3" in page.text
    table = page.tables["factor-1-table"]
    assert [row[0] for row in table[1:]] == ["3|baseline", "1", "increasing"]
    change = next(row for row in table if row[0] == "1")
    assert "50.1|\N{MINUS SIGN}46.8 pt|worse" in change
    assert "102|×0.36|lower" in change


def test_every_metric_is_in_some_table(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart())))
    assert len(page.column("metrics-latency", "Latency p99")) == 4
    assert len(page.column("metrics-latency", "Latency ms")) == 4


def test_samples_are_summarised_by_hand_checked_quantiles(make: SimpleNamespace) -> None:
    samples = tuple(float(v) for v in range(1, 102))  # quantile q is 1 + 100 q
    record = make.record("m", make.metric("latency.p50_ms", 51.0, "ms", samples=samples), batch=1)
    page = make.page(make.report(collect([record])))
    assert page.tables["spread-1-table"][1][1:8] == ["6.0", "26.0", "51.0", "76.0", "96.0", "100.0", "101.0"]
    drift = 85.0 / 17.0 - 1  # medians of the last and the first 33 samples
    assert page.column("spread-1-table", "Drift") == [f"{100 * drift:.1f} %"]


def test_each_warning_is_listed_once_with_remedy_and_cases(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart())))
    assert page.text.count("latency did not become steady.") == 1
    assert "see `vbench doctor`." in page.text


def test_accuracies_of_one_name_under_different_protocols_are_called_out(make: SimpleNamespace) -> None:
    def taken(seed: int, videos: int) -> Record:
        return make.accuracy(seed=seed, details={"protocol": {"averaging": "softmax", "videos": videos}})

    assert "not the same test" not in make.report(collect([taken(0, 400), taken(1, 400)]))
    page = make.page(make.report(collect([taken(0, 400), taken(1, 390)])))
    assert "videos on motions, 1x1 (2 values)" in page.text
    assert "averaging softmax, videos 400 and 390, seeds 0, 1" in page.text


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{ 7*7 }}&amp;"


def test_hostile_names_are_text_everywhere(make: SimpleNamespace) -> None:
    rest = {"args": {HOSTILE: HOSTILE}, "suite": HOSTILE, "weights": HOSTILE, "dataset": HOSTILE, "seed": 0}
    records = [
        make.timing(HOSTILE, ms=3, device=HOSTILE, **rest),
        make.record(HOSTILE, make.metric("accuracy.top1", 5.0, HOSTILE, note=HOSTILE, labels={"x": HOSTILE}), **rest),
        make.counts(HOSTILE, uncounted_operators={HOSTILE: 1}, args={HOSTILE: 2}, suite=HOSTILE),
        make.timing(
            HOSTILE,
            status="error",
            batch=2,
            error={"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE},
            warnings=[{"what": HOSTILE, "remedy": HOSTILE}],
            environment={"hardware": {HOSTILE: HOSTILE, "cpu": HOSTILE}, "software": {HOSTILE: HOSTILE}},
        ),
    ]
    facts = {"name": HOSTILE, "title": HOSTILE, "description": HOSTILE, "text": HOSTILE}
    facts["ablate"] = {"baseline": {HOSTILE: HOSTILE}, "factors": [HOSTILE]}
    html = make.report(collect(records, [facts]), title=HOSTILE)
    page = make.page(html)
    assert [given for tag, given in page.tags if tag == "img"] == []
    assert not any("onerror" in given or "onclick" in given for _, given in page.tags)
    assert [given.get("type") or given.get("src") for tag, given in page.tags if tag == "script"].count(None) == 0
    assert page.text.count(HOSTILE) > 10


def test_every_address_of_a_site_is_a_file_of_it(make: SimpleNamespace, results_folder: Path, tmp_path: Path) -> None:
    report(results_folder, out=tmp_path)
    pages = sorted(tmp_path.rglob("*.html"))
    assert {"index.html", "board.html", "failures.html", "method.html"} <= {page.name for page in pages}
    for file in pages:
        page = make.page(file.read_text(encoding="utf-8"))
        for address in (attributes.get("href") or attributes.get("src") for _, attributes in page.tags):
            if address and address != "data:,":
                path, _, anchor = address.partition("#")
                target = (file.parent / path).resolve() if path else file
                assert target.is_file(), f"{address} in {file.name}"
                assert target.is_relative_to(tmp_path.resolve())
                assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{address} in {file.name}"
    for style in tmp_path.rglob("*.css"):
        assert "http" not in style.read_text(encoding="utf-8")


def test_a_single_file_has_every_page_and_every_address_within_it(
    make: SimpleNamespace, results_folder: Path, tmp_path: Path
) -> None:
    file = report(results_folder, out=tmp_path / "mail" / "report.html", single_file=True)
    assert [each.name for each in (tmp_path / "mail").iterdir()] == ["report.html"]
    page = make.page(file.read_text(encoding="utf-8"))
    ids = {given["id"] for _, given in page.tags if given.get("id")}
    addresses = [given["href"] for _, given in page.tags if given.get("href")]
    assert all(address == "data:," or address[1:] in ids for address in addresses)
    assert not any(given.get("src") for _, given in page.tags)
    assert {"page-index", "page-board", "page-failures"} <= ids


def test_ids_of_a_single_file_are_unique(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart(), [make.quickstart_facts])))
    ids = [given["id"] for _, given in page.tags if given.get("id")]
    assert len(ids) == len(set(ids))


def test_the_policy_of_a_single_file_allows_exactly_its_own_scripts(results_folder: Path, tmp_path: Path) -> None:
    html = report(results_folder, out=tmp_path / "r.html", single_file=True).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    allowed = set(re.findall(r"'sha256-([^']*)'", policy[1]))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts}
    assert len(scripts) > 5
    assert hashes == allowed
    assert "unsafe-eval" not in policy[1]


def test_a_single_file_of_many_cases_leaves_their_pages_and_links_out(make: SimpleNamespace) -> None:
    records = [make.counts(args={"width": w}, params=w) for w in range(1, 2 + MOST_CASES_IN_SINGLE_FILE)]
    page = make.page(make.report(collect(records)))
    assert not any((given.get("id") or "").startswith("page-cases") for _, given in page.tags)
    assert not any((given.get("href") or "").startswith("#page-models") for _, given in page.tags)
    assert len(page.column(BOARD, "Model")) == 1 + MOST_CASES_IN_SINGLE_FILE


def test_a_folder_in_place_of_a_single_file_is_an_error(make: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; --single-file needs the name of a file"):
        report([make.counts()], out=tmp_path, single_file=True)


def test_reports_of_the_same_records_are_the_same(results_folder: Path, tmp_path: Path) -> None:
    first, second = (report(results_folder, out=tmp_path / name) for name in "ab")
    files = [file.relative_to(first.parent) for file in sorted(first.parent.rglob("*")) if file.is_file()]
    assert len(files) > 20
    for file in files:
        assert (first.parent / file).read_bytes() == (second.parent / file).read_bytes(), file


def test_a_source_may_be_a_folder_a_file_a_pattern_a_list_or_records(
    make: SimpleNamespace, results_folder: Path, tmp_path: Path
) -> None:
    file = results_folder / "records.jsonl"
    sources = [results_folder, results_folder.parent, file, str(results_folder.parent / "quick*"), [file]]
    pages = {report(source, out=tmp_path / str(i)).read_bytes() for i, source in enumerate(sources)}
    assert len(pages) == 1
    assert report(make.quickstart(), out=tmp_path / "records").is_file()


def test_a_folder_that_is_there_is_read_though_its_name_reads_as_a_pattern(
    make: SimpleNamespace, tmp_path: Path
) -> None:
    for name, model in (("r[1]", "meant"), ("r1", "matched")):
        RecordStore(tmp_path / name).append(make.counts(model))
    for source in (tmp_path / "r[1]", tmp_path / "r[1]" / "records.jsonl"):
        page = make.page(report(source, out=tmp_path / "site").with_name("board.html").read_text(encoding="utf-8"))
        assert page.column(BOARD, "Model") == ["meant"]


def test_several_suites_are_named_in_the_title(make: SimpleNamespace) -> None:
    page = make.report(collect([make.counts(suite="one"), make.counts(suite="two")]))
    assert "<h1>Results of one and two</h1>" in page


def test_no_records_are_an_error_that_says_what_to_do(make: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(InputError, match="vbench run"):
        report(tmp_path, out=tmp_path / "site")
    with pytest.raises(StoreError):
        report(tmp_path / "nothing", out=tmp_path / "site")
    with pytest.raises(InputError, match="is a file"):
        report([make.counts()], out=tmp_path / "records.jsonl")


def test_a_torn_last_line_is_warned_about_and_the_rest_is_reported(make: SimpleNamespace, tmp_path: Path) -> None:
    lines = [record.model_dump_json() + "\n" for record in make.quickstart()]
    (tmp_path / "records.jsonl").write_text("".join(lines)[:-10], encoding="utf-8")
    with pytest.warns(StoreWarning, match="cut off"):
        index = report(tmp_path, out=tmp_path / "site")
    assert "failures-table" not in index.read_text(encoding="utf-8")


def test_a_section_that_fails_leaves_a_notice_and_the_others(
    make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(results: Results) -> str:
        raise KeyError("<oops>")

    assert SECTIONS.names()
    entry = SectionEntry(name="broken", function=broken, title="Broken", order=5)
    monkeypatch.setitem(SECTIONS._entries, "broken", entry)
    with pytest.warns(ReportWarning, match="'broken' could not be drawn"):
        html = make.report(collect([make.counts()]))
    assert "could not be drawn: KeyError: &#39;&lt;oops&gt;&#39;" in html
    assert BOARD in html


def test_a_page_of_a_case_that_fails_leaves_a_notice_and_the_others(
    make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise KeyError("<oops>")

    monkeypatch.setattr("bench.reporting.site.case_sections", broken)
    with pytest.warns(ReportWarning, match=r"'cases/.*' could not be drawn"):
        html = make.report(collect([make.counts()]))
    assert "could not be drawn: KeyError: &#39;&lt;oops&gt;&#39;" in html
    assert BOARD in html


def test_a_report_removes_pages_of_an_earlier_one_and_no_other_file(make: SimpleNamespace, tmp_path: Path) -> None:
    report([make.counts("a"), make.timing("gone", status="error")], out=tmp_path)
    assert (tmp_path / "failures.html").is_file()
    (tmp_path / "mine.html").write_text("<html>", encoding="utf-8")
    (tmp_path / "data" / "mine.js").write_text("let x;", encoding="utf-8")
    report([make.counts("a")], out=tmp_path)
    assert not (tmp_path / "failures.html").exists()
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["a.html"]
    assert len(list((tmp_path / "data" / "cases").iterdir())) == 1
    assert (tmp_path / "mine.html").is_file()
    assert (tmp_path / "data" / "mine.js").is_file()


def test_only_files_that_changed_are_written_again(make: SimpleNamespace, tmp_path: Path) -> None:
    records = [make.counts("a"), make.counts("b")]
    for count in (1, 2):
        report(records[:count], out=tmp_path)
        if count == 1:
            before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.html")}
    changed = {file.name for file, then in before.items() if file.stat().st_mtime_ns != then}
    assert {"index.html", "board.html"} <= changed
    method = tmp_path / "method.html"
    text = method.read_text(encoding="utf-8")
    method.write_text(text, encoding="utf-8")
    then = method.stat().st_mtime_ns
    report(records, out=tmp_path)
    assert method.stat().st_mtime_ns == then


def test_a_table_that_is_too_long_says_how_many_rows_it_has() -> None:
    table = plain_table("long", caption="", heads=["Name"], rows=[[f"row {n:03}"] for n in range(500)])
    html = table.html(most_characters=10_000)
    row = len('<tr><th scope="row">row 000</th></tr>')
    assert f"The first {10_000 // row} of 500 rows are in this page" in html
    assert html.count('<tr><th scope="row">') == 10_000 // row
    assert "are in this page" not in table.html()


def test_the_summary_names_the_data_set_with_its_videos(make: SimpleNamespace) -> None:
    text = make.page(make.report(collect([make.accuracy(n=400)]))).text
    assert re.search(r"Data set\s*motions\s*400 videos", text)


def test_a_section_of_a_plug_in_is_placed_by_its_order(make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(results: Results) -> str:
        return f"<p>{len(results.records)} &lt; 2</p>"

    assert SECTIONS.names()
    monkeypatch.setitem(
        SECTIONS._entries, "fastest", SectionEntry(name="fastest", function=fastest, title="Fastest", order=15)
    )
    html = make.report(collect([make.counts()]))
    assert html.index('id="summary"') < html.index('id="fastest"') < html.index('id="leaderboard"')
    assert "<p>1 &lt; 2</p>" in html


def test_a_section_of_a_plug_in_may_bring_its_own_page(make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SECTIONS.names()
    entry = SectionEntry(name="wall", function=lambda results: "<p>ours</p>", title="Our wall", order=1, page="wall")
    monkeypatch.setitem(SECTIONS._entries, "wall", entry)
    pages = {page.name: page for page in build_site(collect([make.counts()])).pages}
    assert (pages["wall"].title, pages["wall"].sections[0].html) == ("Our wall", "<p>ours</p>")


def test_long_tables_keep_their_rows_in_waiting(make: SimpleNamespace) -> None:
    html = make.report(collect([make.counts(args={"width": w}, params=w) for w in range(1, 251)]))
    table = html[html.index('id="metrics-params"') :]
    table = table[: table.index("</details>")]
    before, waiting = table.split("<template>")
    assert (before.count("<tr>"), waiting.count("<tr>")) == (101, 150)


def test_a_long_board_has_its_first_rows_in_the_page_and_all_in_the_data_file(make: SimpleNamespace) -> None:
    site = build_site(collect([make.counts(args={"width": w}, params=w) for w in range(1, 251)]))
    board = next(page for page in site.pages if page.name == "board")
    assert len(make.page(site.page_html(board)).column(BOARD, "Model")) == 200
    assert "The first 200 of 250 rows" in board.sections[0].html
    assert board.data["board"].count('"model":"c3d"') == 250


def test_a_report_needs_no_torch(results_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from bench.reporting.site import report; report(sys.argv[1], out=sys.argv[2]); "
        "bad = {'torch', 'torchvision', 'pandas', 'plotly'} & set(sys.modules); assert not bad, bad"
    )
    place = Path(bench.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, results_folder, tmp_path], check=True, cwd=place)


# Squares of larger numbers are not floats; no unit makes a measurement that large.
FLOATS = st.floats(-1e100, 1e100) | st.sampled_from([float("nan"), float("inf")])
VALUES = st.none() | FLOATS | st.integers(-(10**12), 10**15)
METRICS = st.tuples(
    st.sampled_from(["params.total", "macs.forward", "latency.p50_ms", "accuracy.top1", "new.thing"]),
    VALUES,
    st.sampled_from(["", "ms", "%", "B", "MACs", "J", "fraction", "odd unit"]),
    st.sampled_from(["lower", "higher", None]),
    st.booleans(),
    st.lists(FLOATS, max_size=8),
)
AXES = st.fixed_dictionaries(
    {},
    optional={
        "args": st.dictionaries(
            st.sampled_from(["depth", "width"]), st.integers(0, 3) | st.text(max_size=3) | st.none()
        ),
        "precision": st.sampled_from(["fp32", "bf16"]),
        "dataset": st.sampled_from(["a", "b"]),
        "seed": st.integers(0, 2),
        "batch": st.sampled_from([1, 8]),
        "weights": st.sampled_from(["k", "m"]),
        "run_index": st.integers(0, 2),
        "status": st.sampled_from(get_args(Status)),
        "suite": st.sampled_from(["one", "two"]),
    },
)


@settings(max_examples=25)
@given(drawn=st.lists(st.tuples(AXES, st.lists(METRICS, max_size=4)), min_size=1, max_size=12), odd=st.booleans())
def test_any_records_make_a_whole_report(make: SimpleNamespace, drawn: list[tuple[dict, list]], odd: bool) -> None:  # type: ignore[type-arg]
    records = [
        make.record(
            "net",
            *(
                make.metric(n, v, u, better=b, is_exact=e, samples=tuple(s), interval=(0.0, 1.0) if e else None)
                for n, v, u, b, e, s in metrics
            ),
            environment=make.gpu_host if odd and i % 2 else make.host,
            **axes,
        )
        for i, (axes, metrics) in enumerate(drawn)
    ]
    facts = {
        "name": "one",
        "ablate": {"baseline": {"depth": 1, "precision": "fp32"}, "factors": ["depth", "precision"]},
    }
    html = make.report(collect(records, [facts]))
    assert "could not be drawn" not in html
    assert html.endswith("</html>")


def test_training_curves_are_drawn_from_the_results_folder_and_from_nowhere_else(
    make: SimpleNamespace, tmp_path: Path
) -> None:
    store = RecordStore(tmp_path / "results")
    for seed, place in enumerate(("artifacts/t0/curves.csv", "../secret.csv", "artifacts/gone.csv")):
        store.append(make.accuracy(seed=seed, artifacts={"curves": place}))
    (tmp_path / "results" / "artifacts" / "t0").mkdir(parents=True)
    curve = "epoch,step,loss,val_top1\n1,5,2.5,\n2,10,1.25,40\n3,15,oops,60\n"
    (tmp_path / "results" / "artifacts" / "t0" / "curves.csv").write_text(curve, encoding="utf-8")
    (tmp_path / "secret.csv").write_text("epoch,loss,val_top1\n1,9,9\n", encoding="utf-8")
    site = report(tmp_path / "results", out=tmp_path / "site")
    page = make.page(site.with_name("training.html").read_text(encoding="utf-8"))
    figures = [json.loads(script) for script in page.scripts if '"Epoch"' in script]
    traces = [[(t["name"], t["x"], t["y"]) for t in figure["data"]] for figure in figures]
    assert traces == [[("c3d, seed 0", [1, 2], [2.5, 1.25])], [("c3d, seed 0", [2, 3], [40, 60])]]


def test_a_partial_run_names_how_many_cases_are_done_in_title_and_summary(make: SimpleNamespace) -> None:
    done, failed = (
        make.counts(args={"depth": 1}, suite="demo"),
        make.counts(args={"depth": 2}, suite="demo", status="oom"),
    )
    timed = [make.timing(run_index=i) for i in range(2)]
    planned = {done.case_id: 1, failed.case_id: 1, timed[0].case_id: 5, "0123456789ab": 1}
    facts = {"name": "demo", "title": "Demo", "planned": planned}
    results = collect([done, failed, *timed], [facts])
    (progress,) = results.progress
    assert (progress.done, progress.cases, progress.runs_done, progress.runs) == (1, 4, 3, 8)
    page = make.report(results)
    assert "<h1>Demo (1 of 4 cases done, 1 failed)</h1>" in page
    assert "1 failed, 3 runs" in make.page(page).text
    assert "demo: 1 of 4 cases done, 1 failed, 3 of 8 runs; run the suite again to finish it." in page
    whole = make.report(collect([done], [{**facts, "planned": {done.case_id: 1}}]))
    assert "not complete" not in whole
    assert "<h1>Demo</h1>" in whole


def test_a_case_that_left_the_suite_is_not_counted_as_done(make: SimpleNamespace) -> None:
    stays, left = make.counts(args={"depth": 1}), make.counts(args={"depth": 2})
    (progress,) = collect([stays, left], [{"name": "demo", "planned": {stays.case_id: 1}}]).progress
    assert (progress.text, progress.unplanned) == ("1 of 1 case done", 1)


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\x1b", "\u200f"])
def test_control_characters_of_names_are_visible_and_have_no_effect(make: SimpleNamespace, character: str) -> None:
    records = [make.counts(f"c3d{character}", params=p, args={"name": character, "n": p}) for p in (1, 2, 3)]
    records += [make.timing(f"c3d{character}", ms=p, args={"name": character, "n": p}) for p in (1, 2)]
    page = make.report(collect(records, [{"name": "demo", "title": f"a{character}b", "text": character}]))
    assert character not in page
    assert ascii(character)[1:-1] in page


def test_names_that_run_from_right_to_left_are_isolated(make: SimpleNamespace) -> None:
    page = make.report(collect([make.counts("מודל", params=1), make.counts("b", params=2)]))
    assert page.count("מודל") == page.count("\u2068מודל\u2069") > 0


def test_findings_that_are_not_listed_are_counted(make: SimpleNamespace) -> None:
    """Seven levels against the baseline give seven findings in two metrics' leaders; the summary lists two of them."""
    records = [
        make.accuracy(args={"depth": depth, "num_classes": 8}, top1=50 + 5 * depth + seed, seed=seed)
        for depth in range(1, 9)
        for seed in (0, 1)
    ]
    facts = {"name": "demo", "ablate": {"baseline": {"depth": 1}, "factors": ["depth"]}}
    assert "5 findings are not listed here" in make.report(collect(records, [facts]))


def test_titles_on_the_page_are_words_and_not_names_of_classes(make: SimpleNamespace) -> None:
    page = make.report(collect(make.quickstart(), [make.quickstart_facts]))
    titles = re.findall(r"<h[1-4][^>]*>([^<]*)<", page) + re.findall(r'data-name="([^"]*)"', page)
    assert "Spread of the samples" in titles
    assert [title for title in titles if re.search(r"[a-z][A-Z]", title) and not title.startswith("MACs")] == []


def test_a_csv_of_an_earlier_report_goes_and_that_of_somebody_else_stays(make: SimpleNamespace, tmp_path: Path) -> None:
    failed = make.record("c3d", status="oom", batch=1)
    report([make.timing()], out=tmp_path)
    assert (tmp_path / "data" / "board.csv").is_file()
    assert 'href="data/board.csv" download' in (tmp_path / "board.html").read_text(encoding="utf-8")
    report([failed], out=tmp_path)
    assert not (tmp_path / "data" / "board.csv").exists()
    (tmp_path / "data" / "board.csv").write_text("mine", encoding="utf-8")
    report([failed], out=tmp_path)
    assert (tmp_path / "data" / "board.csv").read_text(encoding="utf-8") == "mine"


def test_the_method_explains_the_metrics_of_the_report(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect([make.timing()])))
    assert "Metrics of this report" in page.text
    assert "in ms; lower is better" in page.text


def test_the_text_of_a_suite_that_extends_others_can_be_run_or_names_what_it_lacks(make: SimpleNamespace) -> None:
    facts = {"name": "demo", "text": "suite: demo\nextends: [base.yaml]\n"}
    page = make.page(make.report(collect([make.counts()], [facts])))
    assert "This file extends others" in page.text
    page = make.page(make.report(collect([make.counts()], [{**facts, "whole": "suite: demo\nmodels: [c3d]\n"}])))
    assert "models: [c3d]" in page.text
    assert "extends:" not in page.text
