"""The site as people use it, in a real Chromium: what is drawn, sorted, filtered, saved and opened, offline."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.core.repository import Repository
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.reporting.comparison_page import write_comparison_page
from bench.reporting.history_page import write_history_page
from bench.reporting.site import PAGES, report, write_live
from bench.reporting.watching import LiveReport, serving
from bench.store import RecordStore
from bench.train.predictions import Predictions, store_predictions

pytestmark = pytest.mark.browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
HOSTILE = "=<b>x</b>"
TABLE = "#metrics-params"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium of this machine; skips if there is none."""
    tools = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        pytest.skip("no Chromium is installed")
    with tools.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(make: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """The quickstart, a model with a hostile name, and one that was timed on two machines with the measure limits."""
    records = [*make.quickstart(), *(make.counts(HOSTILE, params=p, args={"depth": p}) for p in range(1, 8))]
    limits = {"flops_per_byte": 20.0, "measured_flops_per_s": 1e12, "measured_bytes_per_s": 1e11, "bound_by": "compute"}
    achieved = make.metric("limits.flops_per_s", 4e11, "FLOP/s", better="higher")
    canary = {"canary": {"matmul_ms": {"before": 1.0, "after": 1.02, "ratio": 1.02}}}
    for machine, times in ((make.host, (20, 30)), (make.gpu_host, (2, 3))):
        for name, ms in zip(("timed_a", "timed_b"), times, strict=True):
            records += [make.timing(name, ms=ms, run_index=i, environment=machine, details=canary) for i in range(2)]
    records.append(make.record("timed_a", achieved, precision="fp32", details={"limits": limits}))
    modules = {f"{amount}_by_module": {"": 3, "stem": 1, "head": 2} for amount in ("macs", "params", "bytes")}
    other = {"tool": "fvcore", "version": "0.1", "printed": 3, "comparable": 3, "difference": 0, "verdict": "equal"}
    records.append(make.counts("by_module", details={**modules, "counter_reports": [other]}))
    records.append(make.accuracy("curved", artifacts={"curves": "artifacts/curves.csv"}))
    store = RecordStore(tmp_path_factory.mktemp("quickstart"))
    (store.folder / "artifacts").mkdir()
    (store.folder / "artifacts" / "curves.csv").write_text(
        "epoch,loss,val_top1\n1,2.5,30\n2,1.5,60\n", encoding="utf-8"
    )
    for record in records:
        store.append(record)
    store.write_suite(make.quickstart_facts)
    return store


@pytest.fixture(scope="module")
def site(store: RecordStore) -> Path:
    """The folder of the site."""
    return report(store.folder, out=store.folder / "report").parent


@pytest.fixture(scope="module")
def predicted_site(make: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with kept predictions, also of changed input: calibration, rank bands, changes, frames of errors."""
    folder = tmp_path_factory.mktemp("predicted")
    (folder / "videos" / "val" / "b").mkdir(parents=True)
    for number in range(12):
        frames = np.full((8, 64, 64, 3), 20 * number, dtype=np.uint8)
        write_mp4(folder / "videos" / "val" / "b" / f"v{number}.mp4", frames, fps=8, options=HISTORY_FREE)
    labels = np.array([1] * 12)
    names = tuple(f"b/v{number}" for number in range(12))
    store = RecordStore(folder / "results")
    for model, right in (("good", 11), ("fair", 6)):
        found = {
            change: Predictions(
                videos=names, labels=labels, scores=np.eye(2, dtype=np.float32)[(np.arange(12) < count).astype(int)],
                classes=(HOSTILE, "b"), protocol={"dataset": "folder", "split": "val"},
            )
            for change, count in (("none", right), ("shuffled", right // 2), ("jpeg:80", right - 1), ("jpeg:30", 2))
        }  # fmt: skip
        store_predictions(store.folder / f"{model}.parquet", found.pop("none"), changed=found)
        metrics = [make.metric("accuracy.top1", 50.0, "%", labels={"change": change}) for change in found]
        record = make.accuracy(model, artifacts={"predictions": f"{model}.parquet"})
        measures = {"accuracy": {"root": str(folder / "videos")}}
        case = record.case.model_copy(update={"measures": measures})
        store.append(record.model_copy(update={"case": case, "metrics": (*record.metrics, *metrics)}))
    return report(store.folder, out=folder / "site", with_frames=True).parent


@pytest.fixture(scope="module")
def single(store: RecordStore) -> Path:
    """The same report as one file."""
    return report(store.folder, out=store.folder / "single" / "report.html", single_file=True)


@pytest.fixture(scope="module")
def long_site(make: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 models."""
    records = [make.counts(params=p, args={"width": p}) for p in range(1, 251)]
    return report(records, out=tmp_path_factory.mktemp("long")).parent


class Visit:
    """A page that is open, with every message, error and request of it."""

    def __init__(self, browser: Any, file: Path | str, fragment: str = "", **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto((file if isinstance(file, str) else file.as_uri()) + fragment)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def open_details(self) -> None:
        self.page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")

    def column(self, table: str, number: int) -> list[str]:
        """First words of the cells of a column, from the top, without marks and smaller lines."""
        cells = self.page.locator(f"{table} tbody tr > :nth-child({number})")
        texts: list[str] = cells.evaluate_all("cells => cells.map((cell) => cell.firstChild.textContent)")
        return texts

    def cells(self, title: str) -> list[str]:
        """The values of a column of the board, from the top."""
        field = self.page.locator(".board .tabulator-col", has_text=title).first.get_attribute("tabulator-field")
        cells = self.page.locator(f'.board .tabulator-row .tabulator-cell[tabulator-field="{field}"]')
        texts: list[str] = cells.evaluate_all(
            "cells => cells.map((cell) => (cell.querySelector('button, a, .none') || cell).textContent)"
        )
        return texts

    def sort(self, title: str) -> None:
        self.page.locator(".board .tabulator-col").get_by_role("button", name=title).first.click()

    def draw_all(self) -> int:
        """Scroll through the page, and return the number of charts that were drawn."""
        places = self.page.locator(".plot, .plot-small, .plot-large")
        for i in range(places.count()):
            places.nth(i).scroll_into_view_if_needed()
            places.nth(i).locator(".main-svg").first.wait_for()
        return places.count()

    def fits(self, width: int) -> bool:
        """Whether the page fits into this width within two seconds; charts follow a resized window with a delay."""
        wanted = f"document.documentElement.scrollWidth <= {width}"
        for _ in range(20):
            if self.page.evaluate(wanted):
                return True
            self.page.wait_for_timeout(100)
        return False

    def serious_faults(self) -> list[tuple[str, str, list[str]]]:
        """What axe finds serious or critical: rule, help, and the first elements."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        return [
            (each["id"], each["help"], [node["html"][:200] for node in each["nodes"]][:3])
            for each in self.page.evaluate("async () => (await axe.run(document)).violations")
            if each["impact"] in ("serious", "critical")
        ]

    def download(self, act: Any, file: Path) -> str:
        with self.page.expect_download() as started:
            act()
        started.value.save_as(file)
        return file.read_text(encoding="utf-8")


def pages_of(site: Path) -> list[Path]:
    """All pages at the root, those of two models, one with modules, of errors, and two of cases with samples."""
    cases = [file for file in sorted(site.glob("cases/*.html")) if "data-module" in file.read_text(encoding="utf-8")]
    models = [*sorted(site.glob("models/*.html"))[:1], *site.glob("models/by_module.html")]
    return [*sorted(site.glob("*.html")), *models, *sorted(site.glob("errors/*.html"))[:1], *cases[:2]]


def test_pages_of_predictions_are_among_those_that_are_checked(predicted_site: Path) -> None:
    names = {str(file.relative_to(predicted_site)) for file in pages_of(predicted_site)}
    assert {"calibration.html", "changed-input.html", "models/fair.html", "errors/fair.html"} <= names
    assert 'id="rank-bands-0"' in (predicted_site / "board.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("scheme", "widths"), [("light", (390, 1024, 1440)), ("dark", (1440, 1024, 390))])
def test_every_page_is_drawn_offline_without_a_message_passes_axe_and_never_scrolls_sideways(
    chromium: Any, site: Path, predicted_site: Path, scheme: str, widths: tuple[int, ...]
) -> None:
    """One visit of each page and theme, because drawing takes longest; the window is resized while it is open."""
    pages = pages_of(site)
    assert {f"{name}.html" for name in PAGES} <= {page.name for page in pages}
    roots = (site.as_uri(), predicted_site.as_uri())
    for file in [*pages, *pages_of(predicted_site)]:
        viewport = {"width": widths[0], "height": 844}
        with Visit(chromium, file, viewport=viewport, color_scheme=scheme) as visit:
            visit.draw_all()
            visit.open_details()
            for width in widths:
                visit.page.set_viewport_size({"width": width, "height": 844})
                visit.draw_all()
                assert visit.fits(width), (file.name, width)
            assert visit.messages == [], file.name
            assert all(url.startswith((*roots, "data:", "blob:")) for url in visit.requests), file.name
            assert visit.serious_faults() == [], file.name


def test_a_cell_of_the_confusion_matrix_leads_to_drawn_frames(chromium: Any, predicted_site: Path) -> None:
    with Visit(chromium, predicted_site / "models" / "fair.html") as visit:
        visit.page.locator("svg.confusion a").first.focus()
        visit.page.keyboard.press("Enter")
        assert f"b as {HOSTILE}: 6 of 12" in visit.page.locator(".popover").inner_text()
        visit.page.keyboard.press("Enter")  # the link has the focus
        visit.page.wait_for_url("**/errors/fair.html#*")
        assert visit.page.locator("section:target h2").inner_text() == f"b taken for {HOSTILE}"
        frame = visit.page.locator("section:target img").first
        frame.scroll_into_view_if_needed()
        visit.page.wait_for_function("() => document.querySelector('section:target img').naturalWidth > 0")
        assert visit.messages == []


def test_the_shapes_of_a_drawing_are_explained_by_keyboard_and_touch(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "models" / "by_module.html", has_touch=True, bypass_csp=True) as visit:
        shapes, popover = visit.page.locator("svg.treemap:visible [role=button]"), visit.page.locator(".popover")
        assert visit.page.locator("svg title").count() == 0
        assert shapes.evaluate_all("each => each.map((shape) => shape.tabIndex)") == [0, -1]
        shapes.first.focus()
        visit.page.keyboard.press("ArrowRight")
        assert shapes.nth(1).evaluate("shape => shape === document.activeElement")
        assert shapes.evaluate_all("each => each.map((shape) => shape.tabIndex)") == [-1, 0]
        visit.page.keyboard.press("ArrowRight")  # nothing is further to the right
        visit.page.keyboard.press("Enter")
        assert "stem: 1 (33.3 %)" in popover.inner_text()
        visit.page.keyboard.press("Escape")
        assert popover.is_hidden()
        assert shapes.nth(1).evaluate("shape => shape === document.activeElement")
        visit.page.keyboard.press("Home")
        visit.page.keyboard.press(" ")
        assert "head: 2 (66.7 %)" in popover.inner_text()
        visit.page.keyboard.press("Escape")
        shapes.nth(1).tap()
        assert "stem: 1 (33.3 %)" in popover.inner_text()
        assert visit.messages == []
        assert visit.serious_faults() == []


def test_a_point_of_a_history_leads_to_its_row_and_its_commit(chromium: Any, tmp_path: Path) -> None:
    commits = [{"commit": f"{i}" * 40, "started_at": "2025-03-01", "value": 10.0 + i, "runs": 5} for i in range(3)]
    facts = {"metric": "latency.p50_ms", "case": "c3d", "unit": "ms", "commits": commits, "changes": []}
    repository = Repository(address="https://github.com/owner/name")
    file = write_history_page(tmp_path / "history.html", facts, repository=repository)
    with Visit(chromium, file) as visit:
        visit.page.locator("svg.history a").first.focus()
        visit.page.keyboard.press("ArrowRight")
        visit.page.keyboard.press("Enter")
        popover = visit.page.locator(".popover")
        assert "1111111111: 11 ms" in popover.inner_text()
        address = popover.get_by_role("link", name="Its commit").get_attribute("href")
        assert address == f"https://github.com/owner/name/commit/{'1' * 40}"
        popover.get_by_role("link", name="Row of the table").click()
        assert visit.page.url.endswith("#commit-2")
        assert popover.is_hidden(), "it would cover the row"
        assert visit.messages == []


def test_names_on_the_first_chart_cover_no_point_and_no_other_name(
    chromium: Any, make: SimpleNamespace, tmp_path: Path
) -> None:
    places = [(10, 50), (10.2, 52), (10.4, 54), (12, 60), (14, 70), (14.3, 70.5), (30, 90)]
    records = [make.timing(f"a_long_name_{i}", ms=ms) for i, (ms, _) in enumerate(places)]
    records += [make.accuracy(f"a_long_name_{i}", top1=top1, n=10**6) for i, (_, top1) in enumerate(places)]
    for width in (1440, 390):
        with Visit(chromium, report(records, out=tmp_path / "site"), viewport={"width": width, "height": 900}) as visit:
            visit.draw_all()
            visit.page.locator(".plot-large .textpoint text").first.wait_for()
            boxes = "nodes => nodes.filter((n) => n.textContent !== '').map((n) => n.getBoundingClientRect().toJSON())"
            names = visit.page.locator(".plot-large .textpoint text").evaluate_all(boxes)
            points = visit.page.locator(".plot-large .points path").evaluate_all(boxes.replace("!==", "==="))
            assert len(names) >= 3
            assert len(points) == len(places)
            for number, name in enumerate(names):
                for other in [*points, *names[:number]]:
                    across = min(name["right"], other["right"]) - max(name["left"], other["left"])
                    down = min(name["bottom"], other["bottom"]) - max(name["top"], other["top"])
                    assert min(across, down) <= 0, (name, other)


def test_ranks_are_a_column_and_failures_are_cells_in_words(
    chromium: Any, make: SimpleNamespace, tmp_path: Path
) -> None:
    records = [make.accuracy(name, top1=top1, n=400) for name, top1 in (("a", 90.0), ("b", 89.5), ("c", 20.0))]
    records += [make.timing("a", batch=8), make.record("a", status="oom", measures={"latency": {}}, batch=64)]
    with Visit(chromium, report(records, out=tmp_path / "site").parent / "board.html") as visit:
        visit.page.locator(".board .tabulator-row").first.wait_for()
        ranks = visit.page.locator('.board .tabulator-row [tabulator-field="rank"]').all_inner_texts()
        assert ranks[:3] == ["1–2", "1–2", "3"]
        failure = visit.page.get_by_role("link", name="out of memory at batch 64").first
        failure.click()
        assert "/cases/" in visit.page.url
        visit.page.go_back()
        visit.page.get_by_role("button", name="About Rank").click()
        assert "Rows whose ranks overlap cannot be told apart." in visit.page.locator(".popover").inner_text()
        assert visit.messages == []


def test_names_are_not_run(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html") as visit:
        visit.page.locator(".board .tabulator-row").first.wait_for()
        assert visit.page.locator("main b").count() == 0
        assert HOSTILE in [text.split("depth")[0] for text in visit.cells("Model")]


def test_pressing_a_heading_sorts_and_unknown_values_stay_last(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", "#leaderboard&suite=quickstart") as visit:
        visit.sort("Latency")
        assert visit.cells("Latency") == ["5.2", "9.7", "11.9", "14.1", "out of memory at batch 4096"]
        visit.sort("Latency")
        assert visit.cells("Latency") == ["14.1", "11.9", "9.7", "5.2", "out of memory at batch 4096"]


def test_sorting_by_a_timing_keeps_machines_separate(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", "#leaderboard&find=timed_") as visit:
        for expected in (["20.0", "30.0", "2.0", "3.0"], ["30.0", "20.0", "3.0", "2.0"]):
            visit.sort("Latency")
            known = [(m, t) for m, t in zip(visit.cells("machine"), visit.cells("Latency"), strict=True) if t != "–"]
            assert known == list(zip("AABB", expected, strict=True))


def test_headings_can_be_reached_and_pressed_by_keyboard(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html") as visit:
        button = visit.page.locator(".board .tabulator-col").get_by_role("button", name="Parameters").first
        button.focus()
        visit.page.keyboard.press("Enter")
        assert visit.cells("Parameters")[:2] == ["1", "2"]
        assert "sort=0.asc" in visit.page.url


def test_a_shared_address_gives_the_same_view(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html") as visit:
        visit.page.get_by_role("searchbox").fill("c3d_search")
        visit.sort("MACs")
        visit.page.get_by_text("Columns", exact=True).click()
        visit.page.get_by_role("checkbox", name="Latency p99").check()
        visit.page.get_by_role("checkbox", name="Top-5, motions, 1x1 views").uncheck()
        visit.page.get_by_text("Limits", exact=True).click()
        visit.page.get_by_label("MACs, maximum").fill("0.3")
        before = [visit.cells(title) for title in ("Model", "MACs", "Latency p99")]
        address = visit.page.url
    assert before[1] == ["0.10", "0.29"]
    with Visit(chromium, site / "board.html", "#" + address.partition("#")[2]) as other:
        assert [other.cells(title) for title in ("Model", "MACs", "Latency p99")] == before
        assert other.page.locator(".board .tabulator-col:visible", has_text="Top-5").count() == 0
        assert other.page.locator(".tools output").inner_text().startswith("2 of")


def test_a_facet_and_a_limit_keep_rows_that_respect_them(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html") as visit:
        visit.page.get_by_label("machine").select_option("B")
        assert set(visit.cells("machine")) == {"B"}
        assert sorted(visit.cells("Latency")) == ["2.0", "3.0"]
        visit.page.get_by_text("Limits", exact=True).click()
        visit.page.get_by_label("Latency, minimum").fill("2.5")
        assert visit.cells("Latency") == ["3.0"]


@pytest.mark.parametrize("kind", ["CSV", "JSON", "Markdown", "LaTeX"])
def test_a_saved_view_has_the_shown_rows_with_low_high_n_status_and_machine(
    chromium: Any, site: Path, tmp_path: Path, kind: str
) -> None:
    with Visit(chromium, site / "board.html", "#leaderboard&find=c3d_search", accept_downloads=True) as visit:
        press = visit.page.get_by_role("button", name=kind).click
        text = visit.download(press, tmp_path / "saved")
    if kind in ("CSV", "JSON"):
        rows = list(csv.DictReader(text.splitlines())) if kind == "CSV" else json.loads(text)
        (row,) = (row for row in rows if row["arguments"] == "kernel_depth=1")
        assert [float(row[f"Latency [ms]{end}"]) for end in ("", " low", " high")] == pytest.approx(
            [5.2, 0.995 * 5.2, 1.006 * 5.2]
        )
        assert (row["machine"], str(row["Top-1, motions, 1x1 views [%] n"])) == ("A", "2")
        assert [r["Latency [ms] status"] for r in rows if r["Latency [ms] status"]] == ["unsteady"]
        assert len(rows) == 3
    else:
        lines = [line for line in text.splitlines() if "c3d" in line]
        assert len(lines) == 3
        assert any("5.2" in line and ("kernel_depth=1" in line or r"kernel\_depth=1" in line) for line in lines)


def test_a_saved_table_has_no_formulas(chromium: Any, site: Path, tmp_path: Path) -> None:
    with Visit(chromium, site / "board.html", accept_downloads=True) as visit:
        text = visit.download(visit.page.get_by_role("button", name="CSV").click, tmp_path / "saved.csv")
    rows = list(csv.DictReader(text.splitlines()))
    assert sum(row["model"] == f"'{HOSTILE}" for row in rows) == 7


def test_a_failure_is_on_the_board_and_leads_to_its_case(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html") as visit:
        row = visit.page.locator(".board .tabulator-row", has_text="out of memory")
        row.get_by_role("link").first.click()
        visit.page.wait_for_url("**/cases/*.html")
        assert "CUDA out of memory" in visit.page.locator("main").inner_text()


def test_a_value_explains_itself_in_a_popover_that_takes_the_focus(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", "#leaderboard&find=resnet3d") as visit:
        visit.page.locator(".board").get_by_role("button", name="14.1").click()
        dialog = visit.page.get_by_role("dialog")
        assert "one run, with the 95 % interval of its own samples" in dialog.inner_text()
        assert dialog.locator(":focus").count() == 1
        visit.page.keyboard.press("Escape")
        assert not dialog.is_visible()


def test_what_a_hover_title_says_opens_by_keyboard_on_every_page(chromium: Any, site: Path) -> None:
    for file in pages_of(site):
        with Visit(chromium, file, java_script_enabled=False) as plain:
            told = plain.page.locator("table [title]").count()
        with Visit(chromium, file) as visit:
            visit.open_details()
            assert visit.page.locator("[title]:visible").count() == 0, file.name
            buttons = visit.page.locator("main .value:visible, main .about:visible")
            assert buttons.count() > 0 or told == 0, file.name
            for button in buttons.all()[:3]:
                button.focus()
                visit.page.keyboard.press("Enter")
                dialog = visit.page.get_by_role("dialog")
                assert dialog.locator(":focus").count() == 1, file.name
                assert len(dialog.inner_text()) > len("Close"), file.name
                visit.page.keyboard.press("Escape")
                assert button.evaluate("(each) => each === document.activeElement"), file.name


def test_a_treemap_shows_another_amount_without_a_script(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "models" / "by_module.html", java_script_enabled=False) as visit:
        for amount in ("Parameters", "MACs", "Bytes read and written"):
            visit.page.get_by_label(amount, exact=True).check()
            (shown,) = visit.page.locator(".switch figcaption:visible").all_inner_texts()
            assert shown.startswith(f"{amount} by module")


def test_the_board_is_a_real_table_of_the_same_values_without_a_script(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", java_script_enabled=False) as visit:
        plain = visit.column("#leaderboard-table", 1)
    with Visit(chromium, site / "board.html") as visit:
        assert not visit.page.locator("#leaderboard-table").is_visible()
        drawn = visit.cells("Model")
    assert len(plain) > 10
    assert plain == drawn[: len(plain)]


def test_one_goes_from_the_board_to_a_model_to_a_case_and_back(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", "#leaderboard&find=resnet3d") as visit:
        visit.page.locator(".board").get_by_role("link", name="resnet3d").first.click()
        visit.page.wait_for_url("**/models/*.html")
        visit.page.get_by_role("link", name="threads").or_(visit.page.locator("table a")).nth(1).click()
        visit.page.wait_for_url("**/cases/*.html")
        assert visit.draw_all() == 2
        visit.page.get_by_text("The records of this case").click()
        records = visit.page.locator("[data-module=samples] pre", has_text="resnet3d")  # written once it is opened
        record = json.loads(records.inner_text())[0]
        assert record["case"]["point"]["model"] == "resnet3d"
        visit.page.go_back()
        visit.page.go_back()
        assert visit.page.url.endswith("find=resnet3d")
        assert len(visit.cells("Model")) == 1
        assert visit.messages == []


def test_limits_on_the_overview_keep_the_models_that_respect_them(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "index.html") as visit:
        budget = visit.page.locator("[data-module=budget]")
        names = budget.locator("ol a")
        assert "resnet3d" in names.first.inner_text()
        slider = budget.get_by_label("Latency at most")
        slider.evaluate("input => { input.value = 60; input.dispatchEvent(new Event('input')); }")
        texts = budget.locator("ol li").all_inner_texts()
        assert texts
        assert not any("resnet3d" in text for text in texts), "its 14.1 ms are above the limit"
        limit = float(slider.locator("xpath=..").locator("output").inner_text().split()[0])
        assert all(float(text.split(" at ")[1].split()[0]) <= limit for text in texts)


def test_a_shared_address_of_the_overview_gives_the_same_limits(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "index.html") as visit:
        budget = visit.page.locator("[data-module=budget]")
        budget.get_by_label("Cost").select_option(label="MACs")
        budget.get_by_label("Latency at most").fill("60")
        texts, shared = budget.locator("ol li").all_inner_texts(), visit.page.url
    assert "#budget&" in shared
    with Visit(chromium, shared) as visit:
        budget = visit.page.locator("[data-module=budget]")
        assert budget.get_by_label("Latency at most").input_value() == "60"
        assert texts
        assert budget.locator("ol li").all_inner_texts() == texts
        assert visit.messages == []
    with Visit(chromium, site / "index.html", "#budget&cost=x&limit0=nan&limit1=-5&machine=%3Cb%3E") as visit:
        visit.page.locator("[data-module=budget] ol li").first.wait_for()
        assert visit.messages == []


def test_machines_are_not_ranked_with_each_other_on_the_overview(chromium: Any, site: Path) -> None:
    """By hand: a clip takes timed_a 20 ms on machine A and 2 ms on machine B, so 50 and 500 clips/s."""
    with Visit(chromium, site / "index.html") as visit:
        budget = visit.page.locator("[data-module=budget]")
        cost, gain, machine = budget.locator(".tools select").all()
        machine.select_option("")
        gain.select_option(label="Throughput, batch 1")
        cost.select_option(label="Latency")
        assert "Machines are not ranked with each other" in budget.locator("p").first.inner_text()
        texts = budget.locator("ol li").all_inner_texts()
        assert [text.rsplit(" ", 1)[1] for text in texts] == ["A", "B"]
        assert texts[1].startswith("timed_a 500 ")
        visit.draw_all()
        hover = visit.page.evaluate("() => document.querySelector('.plot-large').data[2].hovertemplate")
        assert "clips/s at" in hover
        assert "ms" in hover
        assert visit.messages == []


def test_a_point_of_the_overview_leads_to_its_model_and_the_chart_zooms(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "index.html") as visit:
        visit.draw_all()
        plot = visit.page.locator(".plot-large")
        axis = "() => document.querySelector('.plot-large')._fullLayout.xaxis.range.map(Number)"
        low, high = visit.page.evaluate(axis)
        box = plot.locator(".nsewdrag").bounding_box()
        x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3
        visit.page.mouse.move(x, y)
        visit.page.mouse.down()
        visit.page.mouse.move(x + box["width"] * 0.3, y + box["height"] * 0.4, steps=5)
        visit.page.mouse.up()
        visit.page.wait_for_timeout(300)
        zoomed = visit.page.evaluate(axis)
        assert low < zoomed[0] < zoomed[1] < high
        point = "p => document.querySelector('.plot-large').emit('plotly_click', {points: [{id: p}]})"
        address = visit.page.evaluate("() => document.querySelector('.plot-large').data[4].ids[0]")
        visit.page.evaluate(point, address)
        visit.page.wait_for_url("**/models/*.html")


def test_a_long_board_shows_all_rows_and_sorts_as_a_whole(chromium: Any, long_site: Path) -> None:
    with Visit(chromium, long_site / "board.html") as visit:
        assert visit.page.locator(".tools output").inner_text() == "250 rows"
        visit.sort("Parameters")
        visit.sort("Parameters")
        assert visit.cells("Parameters")[:2] == ["250", "249"]


def test_long_tables_unfold_and_are_sorted_and_filtered_as_a_whole(chromium: Any, long_site: Path) -> None:
    with Visit(chromium, long_site / "metrics.html") as visit:
        visit.open_details()
        box = visit.page.locator("[data-table=metrics-params]")
        assert len(visit.column(TABLE, 1)) == 100
        box.get_by_role("button", name="Show 100 more").click()
        assert len(visit.column(TABLE, 1)) == 200
        box.get_by_role("searchbox").fill("width=250")
        assert len(visit.column(TABLE, 1)) == 1
        box.get_by_role("searchbox").fill("")
        heading = visit.page.locator(f"{TABLE} thead th", has_text="Parameters")
        heading.get_by_role("button").first.click()
        heading.get_by_role("button").first.click()
        number = 1 + heading.evaluate("cell => cell.cellIndex")
        assert visit.column(TABLE, number)[:2] == ["250", "249"]


def test_a_filtered_table_is_saved_with_exact_values(chromium: Any, site: Path, tmp_path: Path) -> None:
    with Visit(chromium, site / "metrics.html", accept_downloads=True) as visit:
        visit.open_details()
        box = visit.page.locator("[data-table=metrics-params]")
        box.get_by_role("searchbox").fill("c3d_search increasing")
        assert box.locator("output").inner_text().startswith("1 of ")
        save = box.get_by_role("button", name="Save as CSV").click
        text = visit.download(save, tmp_path / "saved.csv")
    (row,) = csv.DictReader(text.splitlines())
    assert row["Parameters [elements]"] == "701232"


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_a_single_file_shows_one_page_at_a_time_and_draws_it(
    chromium: Any, single: Path, width: int, scheme: str
) -> None:
    with Visit(chromium, single, viewport={"width": width, "height": 844}, color_scheme=scheme) as visit:
        assert visit.page.locator("article:visible").count() == 1
        assert visit.page.locator("#page-index").is_visible()
        visit.page.get_by_role("navigation").get_by_role("link", name="Board").click()
        visit.page.locator(".board .tabulator-row").first.wait_for()
        assert not visit.page.locator("#page-index").is_visible()
        visit.page.locator(".board .tabulator-row").get_by_role("link").first.click()
        assert visit.page.locator("article:visible").get_attribute("id").startswith("page-models-")
        visit.page.go_back()
        assert visit.page.locator("#page-board").is_visible()
        assert visit.messages == []
        assert visit.requests == [single.as_uri()] or all(url.startswith(("file:", "data:")) for url in visit.requests)


def test_an_open_page_follows_the_records(chromium: Any, make: SimpleNamespace, tmp_path: Path) -> None:
    results = [make.counts("a"), make.counts("b")]
    index = write_live(results[:1], out=tmp_path, title=None, version="1")
    with Visit(chromium, index.with_name("board.html"), "#leaderboard&find=counts") as visit:
        write_live(results, out=tmp_path, title=None, version="2")
        visit.page.get_by_text("0 of 2 rows").wait_for(timeout=15_000)
        assert visit.messages == []


def test_an_open_page_of_a_server_follows_from_the_first_record_on(
    chromium: Any, make: SimpleNamespace, tmp_path: Path
) -> None:
    store = RecordStore(tmp_path / "results")
    live = LiveReport([tmp_path / "results"], out=tmp_path / "site", may_wait=True)
    with serving(live, port=0) as address, Visit(chromium, address) as visit:
        assert "No case has finished yet" in visit.page.inner_text("main")
        store.append(make.timing("slow_one", ms=20))
        visit.page.get_by_text("from 1 record.").wait_for(timeout=15_000)
        visit.page.goto(f"{address}board.html#leaderboard&find=_one")
        store.append(make.timing("quick_one", ms=10))
        visit.page.get_by_text("2 rows").wait_for(timeout=15_000)
        assert visit.cells("Latency") == ["10.0", "20.0"]
        assert visit.messages == []
        assert all(url.startswith(address) for url in visit.requests)


@pytest.mark.parametrize("width", [1440, 390])
def test_pages_of_comparisons_and_histories_need_no_network_and_pass_axe(
    chromium: Any, tmp_path: Path, width: int
) -> None:
    step = {"index": 1, "before": 10.0, "after": 12.0, "p": 0.01}
    commits = [
        {"commit": c * 40, "started_at": "2025-01-01", "value": v, "runs": 3} for c, v in (("a", 10.0), ("b", 12.0))
    ]
    change = {"first": commits[1], "last_before": commits[0], "step": step, "verdict": "worse"}
    facts = {"metric": "latency.p50_ms", "case": "c3d", "unit": "ms", "commits": commits, "changes": [change]}
    row = {"suite": "s", "case": "c3d", "metric": "latency.p50_ms", "unit": "ms", "base": 10.0, "head": 12.0}
    row |= {"runs": (3, 3), "verdict": "worse", "reason": "", "ratio": 1.2, "interval": (1.1, 1.3), "detectable": 0.05}
    row |= {"limit": "3%", "is_deciding": True, "is_across": False}
    pages = [
        write_history_page(tmp_path / "history.html", facts),
        write_comparison_page(tmp_path / "compare.html", [row], base="main", head="topic", headline="1 worse"),
    ]
    for file in pages:
        with Visit(chromium, file, viewport={"width": width, "height": 844}, bypass_csp=True) as visit:
            assert visit.messages == []
            assert visit.page.locator("svg circle").first.is_visible()
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
            assert visit.serious_faults() == [], file.name
            assert all(url.startswith(("file:", "data:")) for url in visit.requests)


def test_a_phone_shows_cards(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "board.html", viewport={"width": 390, "height": 844}) as visit:
        visit.page.locator(".tabulator-responsive-collapse-toggle").first.click()
        assert "Latency" in visit.page.locator(".card:visible").first.inner_text()
        assert visit.page.locator(".card b").count() == 0


def test_without_a_script_charts_are_static_and_tables_are_there(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "trade-offs.html", java_script_enabled=False) as visit:
        charts = visit.page.locator(".static-chart")
        assert charts.count() >= 3
        assert charts.first.locator("circle").count() >= 3
        assert charts.first.bounding_box()["height"] > 100
    with Visit(chromium, site / "board.html", java_script_enabled=False) as visit:
        visit.page.get_by_role("link", name="All rows and metrics as CSV").wait_for()
        assert (site / "data" / "board.csv").read_text(encoding="utf-8").startswith("model,arguments,suite,")
    with Visit(chromium, site / "failures.html", java_script_enabled=False) as visit:
        assert "CUDA out of memory" in visit.page.locator("table").first.inner_text()


def test_charts_take_the_colours_of_the_theme(chromium: Any, site: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with Visit(chromium, site / "trade-offs.html", color_scheme=scheme) as visit:
            visit.draw_all()
            text = visit.page.locator(".plot .xtick text").first
            seen[scheme] = text.evaluate("node => getComputedStyle(node).fill")
    assert seen["light"] != seen["dark"]


def test_text_has_enough_contrast_in_both_themes(chromium: Any, site: Path) -> None:
    for scheme in ("light", "dark"):
        with Visit(chromium, site / "index.html", color_scheme=scheme) as visit:
            ground, *inks = (
                visit.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
                for name in ("--paper", "--ink", "--muted", "--accent", "--link")
            )
            for ink in inks:
                assert contrast(ink, ground) >= 4.5  # WCAG 2.2, 1.4.3, level AA


def contrast(one: str, other: str) -> float:
    """Ratio of relative luminances of two `#rrggbb` colours."""
    lights = sorted(luminance(colour) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_paper_is_white_whatever_the_theme(chromium: Any, site: Path) -> None:
    with Visit(chromium, site / "trade-offs.html", color_scheme="dark") as visit:
        visit.draw_all()
        before = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        visit.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        on_paper = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        visit.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        after = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        assert on_paper == "rgb(68, 68, 68)"
        assert before == after != on_paper
