"""Writes a report: a site of pages over data files, or a single file. It opens from disk, without a network."""

import base64
import gc
import hashlib
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench
from bench.core.errors import InputError
from bench.core.files import reason_of
from bench.core.registry import SECTIONS, SectionEntry
from bench.core.schema import Record
from bench.core.units import plural
from bench.reporting.board import label_of
from bench.reporting.case_page import case_sections
from bench.reporting.case_results import CaseResult
from bench.reporting.contact_sheet import MOST_CLIPS, MOST_CLIPS_IN_SINGLE_FILE, image_name
from bench.reporting.data_files import CSV_BEGINNING, board_csv, board_data, case_data, data_script
from bench.reporting.links import BOARD_CSV, Links, page_id
from bench.reporting.metric_text import listed
from bench.reporting.model_page import error_sheets, model_sections
from bench.reporting.rendering import DrawnSection, render, render_file
from bench.reporting.results import Progress, Results, collect
from bench.store import read_records, read_suite_info, record_files

ASSETS = Path(__file__).parent / "assets"
Source = str | Path | Iterable[str | Path] | Iterable[Record]

# The pages of sections, in the order of the navigation. A page without content is left out.
PAGES = {
    "index": "Overview",
    "board": "Board",
    "ablations": "Ablations",
    "trade-offs": "Trade-offs",
    "roofline": "Roofline",
    "metrics": "Metrics",
    "training": "Training",
    "ledger": "Published results",
    "protocols": "Protocols",
    "machines": "Machines",
    "failures": "Failures and warnings",
    "method": "Method",
}
# Scripts and style sheets of `data-module="NAME"` elements, below `assets`; every page has report.js and report.css.
MODULES = {
    "board": ("vendor/tabulator.min.js", "board.js", "vendor/tabulator.min.css", "board.css"),
    "budget": ("budget.js",),
    "samples": ("samples.js",),
}
PLOTLY = "plotly.min.js"
NAVIGATION = """
<nav aria-label="Pages">
<ol>
{% for page in pages %}
<li><a href="{{ links.page(page.name) }}"\
{%- if page.name == current %} aria-current="page"{% endif %}>{{ page.title }}</a></li>
{% endfor %}
</ol>
</nav>
"""
# Pages of single cases are left out of a single file with more cases than this: it has to fit into a mail.
MOST_CASES_IN_SINGLE_FILE = 100


class ReportWarning(UserWarning):
    """A section raised an exception; the page shows a notice in its place."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: its sections, and its data files as JSON by name. `name` is its path below the root, without ending.

    `files` are texts that it offers to save, by their path below the root.
    """

    name: str
    title: str
    sections: Sequence[DrawnSection]
    description: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def modules(self) -> list[str]:
        return [name for name in MODULES if any(f'data-module="{name}"' in s.html for s in self.sections)]

    @cached_property
    def assets(self) -> list[str]:
        """Scripts and style sheets of its modules, each once."""
        return list(dict.fromkeys(file for name in self.modules for file in MODULES[name]))

    @cached_property
    def images(self) -> dict[str, bytes]:
        """The image files of its sections, by their path below the root."""
        return {path: data for section in self.sections for path, data in section.images.items()}

    @cached_property
    def has_charts(self) -> bool:
        drawing = {"budget", "samples"}.intersection(self.modules)
        return bool(drawing) or any('class="plot"' in section.html for section in self.sections)


@dataclass(frozen=True, kw_only=True)
class Site:
    """All pages of one report under one title."""

    title: str
    description: str
    pages: Sequence[Page]
    links: Links
    records: int = 0
    version: str = ""  # of a live site, whose open pages follow it

    @cached_property
    def navigation(self) -> list[Page]:
        """The pages at the root of the site."""
        return [page for page in self.pages if "/" not in page.name]

    def page_html(self, page: Page) -> str:
        """One page of the folder."""
        links = self.links.from_subfolder if "/" in page.name else self.links
        return str(
            render_file(
                "page.html",
                site=self,
                page=page,
                links=links,
                navigation=self._navigation_html(links, current="" if "/" in page.name else page.name),
                version=bench.__version__,
                plotly=PLOTLY,
            )
        )

    def _navigation_html(self, links: Links, *, current: str) -> str:
        """The list of pages; the same for all pages of models and cases, so it is written once."""
        key = (links.prefix, current)
        if key not in self._navigations:
            self._navigations[key] = render(NAVIGATION, pages=self.navigation, links=links, current=current)
        return self._navigations[key]

    @cached_property
    def _navigations(self) -> dict[tuple[str, str], str]:
        return {}

    @property
    def _copied_libraries(self) -> list[str]:
        """The libraries that a single file contains."""
        has_tables = any(file.startswith("vendor/tabulator") for page in self.pages for file in page.assets)
        has_charts = any(page.has_charts for page in self.pages)
        return [name for name, is_used in (("Tabulator", has_tables), ("plotly.js", has_charts)) if is_used]

    def single_html(self, *, inline: bool = True) -> str:
        """All pages in one file, with styles, scripts and data inside; without them if not `inline`."""
        scripts = list(_inline_scripts(self.pages)) if inline else []
        styles = [(ASSETS / name).read_text(encoding="utf-8") for name in _styles(self.pages)] if inline else []
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
        html = render_file(
            "single.html",
            site=self,
            page_id=page_id,
            version=bench.__version__,
            styles=styles,
            scripts=scripts,
            hashes=hashes,
            has_charts=any(page.has_charts for page in self.pages),
            copies=listed(self._copied_libraries) if inline else "",
        )
        return str(html)


@dataclass(frozen=True, kw_only=True)
class ErrorFrames:
    """Asks for frames of the videos that models got wrong; `root` is the data set's folder if not the recorded one."""

    root: Path | None = None


def report(
    source: Source,
    *,
    out: str | Path,
    title: str | None = None,
    single_file: bool = False,
    with_frames: bool = False,
    root: str | Path | None = None,
) -> Path:
    """Write a report of `source` into the folder `out` and return the path of its `index.html`.

    `source` is a results folder (and all below it), a records file, a pattern of them, a list of those, or records.
    With `single_file`, `out` is the HTML file to write. With `with_frames`, confusion matrices lead to frames of the
    videos that were taken for another class, read from `root` or the folder that the case names; ReportWarning if no
    case has stored predictions. Raises InputError if there is no record, `out` cannot be written or `root` is given
    without `with_frames`, and StoreError if a file cannot be read.
    """
    if root is not None and not with_frames:
        raise InputError("--root is the folder of the videos of --with-frames, which is not given")
    frames = ErrorFrames(root=None if root is None else Path(root).expanduser()) if with_frames else None
    results = read_results(source)
    if not results.records:
        raise InputError("there is no record to report on; measure something first with: vbench run SUITE")
    place = Path(out)
    if single_file:
        if place.is_dir():
            raise InputError(f"{place} is a folder; --single-file needs the name of a file, such as report.html")
        return _written(
            place, lambda: _write_single(place, build_site(results, title=title, single_file=True, frames=frames))
        )
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; a report needs a folder")
    return _written(place, lambda: _write_site(place, build_site(results, title=title, frames=frames)))


def write_live(source: Source, *, out: Path, title: str | None, version: str) -> Path:
    """Write a report as `report` does, whose open pages are read again once another `version` was written."""
    results = read_results(source)
    if not results.records:
        raise InputError("there is no record to report on; measure something first with: vbench run SUITE")
    site = replace(build_site(results, title=title), version=version)
    return _written(out, lambda: _write_site(out, site))


def build_site(
    results: Results, *, title: str | None = None, single_file: bool = False, frames: ErrorFrames | None = None
) -> Site:
    """Draw every page of `results`, with contact sheets of errors if `frames` are asked for."""
    has_details = not single_file or len(results.cases) <= MOST_CASES_IN_SINGLE_FILE
    if frames is not None and not has_details:
        raise InputError(
            f"--with-frames needs the pages of models, which a single file of more than {MOST_CASES_IN_SINGLE_FILE} "
            "cases leaves out; write a folder instead"
        )
    links = Links(is_single_file=single_file, has_details=has_details)
    results = replace(results, links=links)
    pages = [*_section_pages(results), *(_detail_pages(results, frames) if has_details else ())]
    if frames is not None and not any(page.name.startswith("errors/") for page in pages):
        what = "no case has stored predictions of one label a video, so there are no errors to show frames of"
        warnings.warn(what, ReportWarning, stacklevel=2)
    return Site(
        title=title or _title(results),
        description=results.suites[0].description if len(results.suites) == 1 else "",
        pages=pages,
        links=links,
        records=len(results.records),
    )


def write_page(
    folder: Path, sections: Sequence[DrawnSection], *, title: str, description: str, version: str = ""
) -> Path:
    """Write a site of one page of `sections` into `folder`; returns the path of its `index.html`.

    An open page with a `version` is read again once another one was written.
    """
    page = Page(name="index", title=title, sections=sections)
    site = Site(title=title, description=description, pages=[page], links=Links(), version=version)
    return _written(folder, lambda: _write_site(folder, site))


def write_single_page(file: Path, sections: Sequence[DrawnSection], *, title: str, description: str) -> Path:
    """Write one page of `sections` as a single HTML file; returns its path."""
    page = Page(name="index", title=title, sections=sections)
    site = Site(title=title, description=description, pages=[page], links=Links(is_single_file=True))
    return _written(file, lambda: _write_single(file, site))


def _section_pages(results: Results) -> Iterator[Page]:
    """Pages of the registered sections, in the order of `PAGES`, then pages that plug-ins name."""
    found: dict[str, list[DrawnSection]] = defaultdict(list)
    board: dict[str, Any] = {}
    for entry in sorted(SECTIONS, key=lambda entry: (entry.order, entry.name)):
        found[entry.page] += _drawn(entry.name, entry.title, partial(_section, entry, results))
    for name in dict.fromkeys([*PAGES, *found]):
        if found[name]:
            page = Page(name=name, title=PAGES.get(name, found[name][0].title), sections=found[name])
            if {"board", "budget"}.intersection(page.modules):
                board = board or board_data(results)
                page = replace(page, data={"board": data_script("board", board)})
            if "board" in page.modules and not results.links.is_single_file:
                page = replace(page, files={BOARD_CSV: board_csv(board)})
            yield page


def _detail_pages(results: Results, frames: ErrorFrames | None) -> Iterator[Page]:
    """A page for each model, with one of the frames of its errors if asked for, then a page for each case."""
    links = results.links.from_subfolder
    by_model: dict[str, list[CaseResult]] = defaultdict(list)
    for case in results.cases:
        by_model[label_of(case.case.point.model, case.case.point.args)].append(case)
    most = MOST_CLIPS_IN_SINGLE_FILE if links.is_single_file else MOST_CLIPS
    most_clips = max(1, most // max(1, len(by_model))) if frames is not None else 0
    for label, cases in by_model.items():
        name = results.model_names[label]
        sections = _drawn(name, label, partial(model_sections, results, label, cases, links, most_clips=most_clips))
        yield Page(name=name, title=label, sections=sections)
        if frames is not None:
            draw = partial(error_sheets, results, label, cases, links, root=frames.root, most_clips=most_clips)
            name = f"errors/{name.partition('/')[2]}"
            if sheets := _drawn(name, f"Errors of {label}", draw):
                yield Page(name=name, title=f"Errors of {label}", sections=sheets)
    for case in results.cases:
        name = results.case_names[id(case)]
        data = {name: data_script(name, case_data(case))}
        sections = _drawn(name, case.case.title, partial(case_sections, results, case, links))
        yield Page(name=name, title=case.case.title, sections=sections, data=data)


def read_results(source: Source) -> Results:
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


def _section(entry: SectionEntry, results: Results) -> list[DrawnSection]:
    """The section of `entry`; none if it has nothing to show."""
    from markupsafe import Markup

    html = entry.function(results)
    return [DrawnSection(name=entry.name, title=entry.title, html=Markup(html))] if html else []


def _drawn(name: str, title: str, draw: Callable[[], list[DrawnSection]]) -> list[DrawnSection]:
    """What `draw` returns. If it fails, a notice takes its place, and the rest of the site stays."""
    try:
        return draw()
    except Exception as error:  # a plug-in's section may raise anything
        what = f"{type(error).__name__}: {error}"
        warnings.warn(f"report section {name!r} could not be drawn: {what}", ReportWarning, stacklevel=2)
        html = render('<p class="loud">This section could not be drawn: {{ what }}</p>', what=what)
        return [DrawnSection(name=name.replace("/", "-"), title=title, html=html)]


def _written(place: Path, write: Callable[[], Path]) -> Path:
    """What `write` returns; raises InputError if something cannot be written.

    Nearly all of a report lives until it is written, so that looking for garbage in between finds none: a tenth of the
    time of a large one.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return write()
    except OSError as error:
        raise InputError(f"{error.filename or place} cannot be written: {reason_of(error)}") from None
    finally:
        if was_enabled:
            gc.enable()


def _write_site(folder: Path, site: Site) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    used = {file for page in site.pages for file in page.assets}
    live = ["live.js"] if site.version else []
    for name in ["report.css", "report.js", "NOTICE.txt", *live, *sorted(used)]:
        _copy(ASSETS / name, folder / "assets" / name)
    if any(page.has_charts for page in site.pages):
        _copy(_plotly_script(), folder / "assets" / PLOTLY)
    for parent in {folder / page.name for page in site.pages} | {folder / "data" / name for name in _data(site.pages)}:
        parent.parent.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{page.name}.html": page for page in site.pages}
    data = {folder / "data" / f"{name}.js": text for name, text in _data(site.pages).items()}
    images = {folder / path: content for page in site.pages for path, content in page.images.items()}
    data |= {folder / path: text for page in site.pages for path, text in page.files.items()}
    _remove_old(folder, keep={*files, *data, *images})
    for file, content in images.items():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    for file, page in files.items():
        _write_if_changed(file, site.page_html(page))
    for file, text in data.items():
        _write_if_changed(file, text)
    if site.version:  # last, because pages are read again when it changes
        (folder / "data").mkdir(exist_ok=True)
        text = data_script("version", {"version": site.version})
        (folder / "data" / "version.js").write_text(text, encoding="utf-8")
    return folder / "index.html"


def _write_if_changed(file: Path, text: str) -> None:
    """Write `text`, unless `file` has it: a report is written again after every case, and few pages change."""
    new = text.encode()
    try:
        if file.read_bytes() == new:
            return
    except FileNotFoundError:
        pass
    file.write_bytes(new)


def _remove_old(folder: Path, *, keep: Collection[Path]) -> None:
    """Remove pages and data files of an earlier report, such as of failures that are gone; files of others stay."""
    found = [*folder.glob("*.html"), *folder.glob("models/*.html"), *folder.glob("cases/*.html")]
    found += folder.glob("errors/*.html")
    for file in [*found, *folder.glob("data/*.js"), *folder.glob("data/cases/*.js"), folder / BOARD_CSV]:
        if file not in keep and file.exists():
            with file.open(encoding="utf-8", errors="replace") as stream:
                beginning = stream.read(600)
            is_data = beginning.startswith(("vbench_data[", CSV_BEGINNING))
            if is_data or '<meta name="generator" content="vbench ' in beginning:
                file.unlink()
    for file in folder.glob("frames/*.jpg"):  # a report without --with-frames must not keep frames of an earlier one
        if file not in keep and file.name == image_name(file.read_bytes()):
            file.unlink()


def _write_single(file: Path, site: Site) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(site.single_html(), encoding="utf-8")
    return file


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _data(pages: Sequence[Page]) -> dict[str, str]:
    return {name: text for page in pages for name, text in page.data.items()}


def _styles(pages: Sequence[Page]) -> list[str]:
    used = dict.fromkeys(file for page in pages for file in page.assets if file.endswith(".css"))
    return ["report.css", *used]


def _inline_scripts(pages: Sequence[Page]) -> Iterator[str]:
    """The texts of all scripts, in the order in which they must run. None of them may end its script element."""
    used = dict.fromkeys(file for page in pages for file in page.assets if file.endswith(".js"))
    files = [ASSETS / "report.js", *(ASSETS / name for name in used)]
    if any(page.has_charts for page in pages):
        files.insert(1, _plotly_script())
    texts = [file.read_text(encoding="utf-8") for file in files]
    texts[1:1] = _data(pages).values()
    for text in texts:
        yield f"\n{text}".replace("</script", r"<\/script").replace("<!--", r"<\!--").replace("\r\n", "\n")


def _plotly_script() -> Path:
    """plotly's script in its package, located without importing it."""
    spec = find_spec("plotly")
    places = list(spec.submodule_search_locations or ()) if spec else []
    script = next((Path(p) / "package_data" / PLOTLY for p in places), None)
    if script is None or not script.is_file():
        raise InputError("the package plotly is not installed, or is broken; install it with: pip install plotly")
    return script
