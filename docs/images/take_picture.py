"""Takes the picture of a report that README.md shows, with the Chromium of this machine.

python docs/images/take_picture.py reports/site docs/images/report.png
"""

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1440, 1500
SCALE = 1.5  # pixels of the picture for one of the page, for sharp text on dense screens


def main() -> None:
    """Open the overview of the site in the first argument and write the picture to the second."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("the package playwright is not installed; install it with: pip install playwright")
    site, picture = map(Path, sys.argv[1:3])
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        sys.exit("no Chromium is installed")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 600}, device_scale_factor=SCALE)
        view.goto((site / "index.html").resolve().as_uri())
        if view.locator(".plot-large").count():
            view.locator(".plot-large .main-svg").first.wait_for()
        view.wait_for_timeout(500)  # plotly places the names of points
        height = min(HEIGHT, view.evaluate("document.documentElement.scrollHeight"))
        picture.write_bytes(view.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height}))
        browser.close()


if __name__ == "__main__":
    main()
