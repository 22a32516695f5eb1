"""Takes pictures of pages for README.md and the documentation, with the Chromium of this machine.

python docs/images/take_picture.py reports/site/index.html docs/images/report.png
"""

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1440, 1500
SCALE = 1.5  # pixels of the picture for one of the page, for sharp text on dense screens


def take_picture(page: Path, picture: Path, *, width: int = WIDTH, height: int = HEIGHT, scale: float = SCALE) -> None:
    """Open `page` and write its upper part as a PNG file; `width` and `height` are in pixels of the page."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("the package playwright is not installed; install it with: pip install playwright")
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        sys.exit("no Chromium is installed")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": width, "height": 600}, device_scale_factor=scale)
        view.goto(page.resolve().as_uri())
        for chart in view.locator(".plot, .plot-large").all()[:2]:  # those further down are outside the picture
            chart.scroll_into_view_if_needed()  # a chart is drawn once it is in view
            chart.locator(".main-svg").first.wait_for()
        view.evaluate("window.scrollTo(0, 0)")
        view.wait_for_timeout(500)  # plotly places the names of points
        shown = min(height, view.evaluate("document.documentElement.scrollHeight"))
        picture.write_bytes(view.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": shown}))
        browser.close()


if __name__ == "__main__":
    take_picture(*map(Path, sys.argv[1:3]))
