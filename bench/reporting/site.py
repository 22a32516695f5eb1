"""Writes a report: one page with its style and script, and plotly's script. It opens from disk, without a network."""

import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import bench
from bench.core.errors import InputError
from bench.core.registry import SECTIONS, SectionEntry
from bench.core.schema import Record
from bench.core.units import plural
from bench.reporting.metric_text import listed
from bench.reporting.rendering import render, render_file
from bench.reporting.results import Progress, Results, collect
from bench.store import read_records, read_suite_info, record_files

ASSETS = Path(__file__).parent / "assets"
Source = str | Path | Iterable[str | Path] | Iterable[Record]


class ReportWarning(UserWarning):
    """A section raised an exception; the page shows a notice in its place."""


@dataclass(frozen=True, kw_only=True)
class DrawnSection:
    """The HTML of one section."""

    name: str
    title: str
    html: str


def report(source: Source, *, out: str | Path, title: str | None = None) -> Path:
    """Write a report of `source` into the folder `out` and return the path of its `index.html`.

    `source` is a results folder (and all below it), a records file, a pattern of them, a list of those, or records.
    Raises InputError if there is no record or `out` is a file, and StoreError if a file cannot be read.
    """
    results = _read(source)
    if not results.records:
        raise InputError("there is no record to report on; measure something first with: vbench run SUITE")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a report needs a folder")
    return _write(folder, build_page(results, title=title))


def write_page(folder: Path, sections: Sequence[DrawnSection], *, title: str, description: str) -> Path:
    """Write one page of `sections` with its assets into `folder`; returns the path of its `index.html`."""
    return _write(folder, _page(sections, title=title, description=description))


def build_page(results: Results, *, title: str | None = None) -> str:
    """The page of `results` as HTML."""
    return _page(
        list(_draw_all(results)),
        title=title or _title(results),
        description=results.suites[0].description if len(results.suites) == 1 else "",
        records=len(results.records),
    )


def _page(sections: Sequence[DrawnSection], *, title: str, description: str, records: int = 0) -> str:
    page = render_file(
        "page.html",
        title=title,
        description=description,
        sections=sections,
        has_charts=any('class="plot"' in section.html for section in sections),
        records=records,
        version=bench.__version__,
    )
    return str(page)


def _read(source: Source) -> Results:
    """Read records, the folders they come from, and the facts of their suites there."""
    items = [source] if isinstance(source, str | Path) else list(source)
    records = [item for item in items if isinstance(item, Record)]
    files = dict.fromkeys(file for path in items if not isinstance(path, Record) for file in record_files(path))
    folders: dict[int, Path] = {}
    for file in files:
        read = read_records(file)
        folders.update((id(record), file.parent) for record in read)
        records += read
    if records and all(record.in_turns for record in records):
        what = f"all {plural(len(records), 'record')} are of vbench ab, whose sides took turns"
        raise InputError(f"{what}; use vbench compare to compare the two sides")
    return collect(records, [read_suite_info(folder) for folder in dict.fromkeys(folders.values())], folders=folders)


def _title(results: Results) -> str:
    suites = results.suites
    if len(suites) == 1:
        return f"{suites[0].title or suites[0].name}{_unfinished(results.progress[0])}"
    quoted = [
        (f"“{suite.title}”" if suite.title else suite.name) + _unfinished(progress)
        for suite, progress in zip(suites, results.progress, strict=True)
    ]
    return f"Results of {listed(quoted, most=3)}"


def _unfinished(progress: Progress) -> str:
    """` (1 of 2 cases done)`; empty for a complete suite."""
    return "" if progress.is_complete else f" ({progress.text})"


def _draw_all(results: Results) -> Iterable[DrawnSection]:
    for entry in sorted(SECTIONS, key=lambda entry: (entry.order, entry.name)):
        html = _draw(entry, results)
        if html:
            yield DrawnSection(name=entry.name, title=entry.title, html=html)


def _draw(entry: SectionEntry, results: Results) -> str | None:
    """The HTML of a section, None if it has nothing to show. A section that fails becomes a notice; the others stay."""
    from markupsafe import Markup

    try:
        html = entry.function(results)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        warnings.warn(f"report section {entry.name!r} could not be drawn: {what}", ReportWarning, stacklevel=2)
        return render('<p class="loud">This section could not be drawn: {{ what }}</p>', what=what)
    return Markup(html) if html else None


def _write(folder: Path, page: str) -> Path:
    try:
        return _written(folder, page)
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be written: {error.strerror}") from None


def _written(folder: Path, page: str) -> Path:
    assets = folder / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    for asset in sorted(ASSETS.iterdir()):
        shutil.copyfile(asset, assets / asset.name)
    if "assets/plotly.min.js" in page:
        shutil.copyfile(_plotly_script(), assets / "plotly.min.js")
    index = folder / "index.html"
    index.write_text(page, encoding="utf-8")
    return index


def _plotly_script() -> Path:
    """plotly's script in its package, located without importing it."""
    spec = find_spec("plotly")
    places = list(spec.submodule_search_locations or ()) if spec else []
    script = next((Path(p) / "package_data" / "plotly.min.js" for p in places), None)
    if script is None or not script.is_file():
        raise InputError("the package plotly is not installed, or is broken; install it with: pip install plotly")
    return script
