"""The page as people use it, in a real Chromium: what is drawn, sorted, filtered and saved, and that it asks nobody."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.reporting.site import report
from bench.store import RecordStore

pytestmark = pytest.mark.browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-modeling",
    "--disable-component-update",
    "--disable-sync",
]
BOARD = "#leaderboard-table"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium of this machine; skips where there is none."""
    tools = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        pytest.skip("no Chromium is installed")
    with tools.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(make: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The quickstart, with a model whose name is hostile."""
    records = [*make.quickstart(), *(make.counts("=<b>x</b>", params=p, args={"depth": p}) for p in range(1, 8))]
    store = RecordStore(tmp_path_factory.mktemp("quickstart"))
    for record in records:
        store.append(record)
    store.write_suite(make.quickstart_facts)
    return report(store.folder, out=store.folder / "report").as_uri()


@pytest.fixture(scope="module")
def long_site(make: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """250 models and one on two machines."""
    records = [make.counts(params=p, args={"width": p}) for p in range(1, 251)]
    for machine, times in ((make.host, (20, 30)), (make.gpu_host, (2, 3))):
        records += [
            make.timing(n, ms=ms, environment=machine) for n, ms in zip(("timed_a", "timed_b"), times, strict=True)
        ]
    return report(records, out=tmp_path_factory.mktemp("long")).as_uri()


class Visit:
    """A page that is open, with everything it said and asked for."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def column(self, table: str, number: int) -> list[str]:
        """First words of the cells of a column, from the top, without marks and smaller lines."""
        cells = self.page.locator(f"{table} tbody tr > :nth-child({number})")
        texts: list[str] = cells.evaluate_all("cells => cells.map((cell) => cell.firstChild.textContent)")
        return texts

    def draw_all(self) -> int:
        """Scroll through the page, and return the number of charts that were drawn."""
        places = self.page.locator(".plot")
        for i in range(places.count()):
            places.nth(i).scroll_into_view_if_needed()
            places.nth(i).locator(".main-svg").first.wait_for()
        return places.count()


def test_a_report_draws_its_charts_asks_for_nothing_and_complains_of_nothing(chromium: Any, site: str) -> None:
    with Visit(chromium, site) as visit:
        assert visit.draw_all() == 6
        assert visit.said == []
        folder = site.rpartition("/")[0]
        assert all(url.startswith((folder, "data:", "blob:")) for url in visit.asked)


def test_names_are_not_run(chromium: Any, site: str) -> None:
    with Visit(chromium, site) as visit:
        assert visit.page.locator(f"{BOARD} b").count() == 0
        assert "=<b>x</b>" in visit.column(BOARD, 1)


def test_pressing_a_heading_sorts_and_unknown_values_stay_last(chromium: Any, site: str) -> None:
    with Visit(chromium, site) as visit:
        latency = visit.page.locator(f"{BOARD} thead th", has_text="Latency")
        number = 1 + latency.evaluate("cell => cell.cellIndex")
        latency.get_by_role("button").click()
        assert latency.get_attribute("aria-sort") == "ascending"
        assert visit.column(BOARD, number)[:5] == [
            "5.2",
            "9.7",
            "11.9",
            "14.1",
            "–",
        ]
        latency.get_by_role("button").click()
        assert visit.column(BOARD, number)[:5] == [
            "14.1",
            "11.9",
            "9.7",
            "5.2",
            "–",
        ]
        latency.get_by_role("button").click()
        assert latency.get_attribute("aria-sort") == "none"


def test_headings_can_be_reached_and_pressed_by_keyboard(chromium: Any, site: str) -> None:
    with Visit(chromium, site) as visit:
        button = visit.page.locator(f"{BOARD} thead button").nth(1)
        button.focus()
        visit.page.keyboard.press("Enter")
        cells = visit.column(BOARD, 2)
        assert len(cells) == 11
        assert visit.page.locator(f"{BOARD} thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_filtering_keeps_rows_that_have_every_word(chromium: Any, site: str) -> None:
    with Visit(chromium, site) as visit:
        box = visit.page.locator("[data-table=leaderboard-table]")
        box.get_by_role("searchbox").fill("c3d increasing")
        assert visit.column(BOARD, 1) == ["c3d_search"]
        assert box.locator("output").inner_text() == "1 of 11 rows"
        box.get_by_role("searchbox").fill("")
        assert len(visit.column(BOARD, 1)) == 11


def test_a_saved_table_has_whole_values_and_no_formulas(chromium: Any, site: str, tmp_path: Path) -> None:
    with Visit(chromium, site, accept_downloads=True) as visit:
        with visit.page.expect_download() as started:
            visit.page.locator("[data-table=leaderboard-table]").get_by_role("button", name="Save as CSV").click()
        started.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["MACs [MACs]"] for row in rows if row["Model"].startswith("resnet3d")] == ["402133000"]
    assert [row["Latency [ms]"] for row in rows if "kernel_depth=1" in row["Model"]] == ["5.2"]
    assert sum(row["Model"].startswith("'=<b>x</b>") for row in rows) == 7
    resnet = next(row for row in rows if row["Model"].startswith("resnet3d"))
    ends = [float(resnet[f"Latency [ms] {end}"]) for end in ("low", "high")]
    assert ends == pytest.approx([0.995 * 14.1, 1.006 * 14.1])
    assert resnet["Top-1, motions, 1x1 views [%] n"] == "2"
    assert [row["Latency [ms] marks"] for row in rows if "unsteady" in row["Latency [ms] marks"]] == ["unsteady"]


def test_a_saved_table_has_the_rows_that_the_filter_shows(chromium: Any, site: str, tmp_path: Path) -> None:
    with Visit(chromium, site, accept_downloads=True) as visit:
        box = visit.page.locator("[data-table=leaderboard-table]")
        box.get_by_role("searchbox").fill("c3d increasing")
        with visit.page.expect_download() as started:
            box.get_by_role("button", name="Save as CSV").click()
        started.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ["increasing" in row["Model"] for row in rows] == [True]


def test_long_tables_unfold_and_are_sorted_and_filtered_as_a_whole(chromium: Any, long_site: str) -> None:
    with Visit(chromium, long_site) as visit:
        box = visit.page.locator("[data-table=leaderboard-table]")
        assert len(visit.column(BOARD, 1)) == 100
        box.get_by_role("button", name="Show 100 more").click()
        assert len(visit.column(BOARD, 1)) == 200
        box.get_by_role("searchbox").fill("width=250")
        assert len(visit.column(BOARD, 1)) == 1
        box.get_by_role("searchbox").fill("")
        heading = visit.page.locator(f"{BOARD} thead th", has_text="Parameters")
        heading.get_by_role("button").click()
        heading.get_by_role("button").click()
        number = 1 + heading.evaluate("cell => cell.cellIndex")
        assert visit.column(BOARD, number)[:2] == ["250", "249"]


def test_sorting_by_a_timing_keeps_machines_separate(chromium: Any, long_site: str) -> None:
    with Visit(chromium, long_site) as visit:
        heads = visit.page.locator(f"{BOARD} thead th")
        machine = 1 + heads.filter(has_text="Machine").evaluate("cell => cell.cellIndex")
        latency = heads.filter(has_text="Latency")
        number = 1 + latency.evaluate("cell => cell.cellIndex")
        visit.page.locator("[data-table=leaderboard-table]").get_by_role("searchbox").fill("timed_")
        for direction in (["20.0", "30.0", "2.0", "3.0"], ["30.0", "20.0", "3.0", "2.0"]):
            latency.get_by_role("button").click()
            assert visit.column(BOARD, machine) == ["A", "A", "B", "B"]
            assert visit.column(BOARD, number) == direction


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(chromium: Any, site: str, width: int, scheme: str) -> None:
    with Visit(chromium, site, viewport={"width": width, "height": 844}, color_scheme=scheme) as visit:
        visit.draw_all()
        visit.page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_take_the_colours_of_the_theme(chromium: Any, site: str) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with Visit(chromium, site, color_scheme=scheme) as visit:
            visit.draw_all()
            text = visit.page.locator(".plot .xtick text").first
            seen[scheme] = text.evaluate("node => getComputedStyle(node).fill")
    assert seen["light"] != seen["dark"]


def test_text_has_enough_contrast_in_both_themes(chromium: Any, site: str) -> None:
    for scheme in ("light", "dark"):
        with Visit(chromium, site, color_scheme=scheme) as visit:
            ground, *inks = (
                visit.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
                for name in ("--paper", "--ink", "--muted", "--accent", "--link")
            )
            for ink in inks:
                assert contrast(ink, ground) >= 4.5  # WCAG 2.2, 1.4.3, level AA


def test_without_a_script_the_tables_are_still_there(chromium: Any, site: str) -> None:
    with Visit(chromium, site, java_script_enabled=False) as visit:
        assert visit.page.locator(f"{BOARD} tbody tr").count() == 11
        assert not visit.page.get_by_role("button", name="Save as CSV").first.is_visible()


def contrast(one: str, other: str) -> float:
    """Ratio of relative luminances of two `#rrggbb` colours."""
    lights = sorted(luminance(colour) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_paper_is_white_whatever_the_theme(chromium: Any, site: str) -> None:
    with Visit(chromium, site, color_scheme="dark") as visit:
        visit.draw_all()
        before = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        visit.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        on_paper = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        visit.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        after = visit.page.locator(".plot .xtick text").first.evaluate("node => getComputedStyle(node).fill")
        assert on_paper == "rgb(68, 68, 68)"
        assert before == after != on_paper
