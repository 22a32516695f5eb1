"""Sphinx configuration of the documentation: `make docs` builds it offline, and warnings are errors."""

import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import reference_pages  # noqa: E402

import bench  # noqa: E402

project, author, release = "vbench", "The vbench developers", bench.__version__
copyright = "The vbench developers"  # noqa: A001  # the name that Sphinx reads
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "gallery"]  # its pages are written to `examples`
html_theme = "furo"
html_title = "vbench"
html_copy_source = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "image_scrapers": ("gallery_charts.save_figures",),
    "reset_modules": (),
    "capture_repr": (),
    "abort_on_example_error": True,
    "min_reported_time": 60,
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
}
# Links to files outside docs/, such as ../suites/quickstart.yaml, lead to the repository in the built pages.
REPOSITORY = "https://github.com/vbench/vbench"


def write_reference(app: Any) -> None:
    """Write the pages that are made from the code."""
    reference_pages.write(HERE / "reference")


def link_to_repository(app: Any, docname: str, source: list[str]) -> None:
    """Let links to files of the repository lead there, because the site does not contain these files."""
    source[0] = reference_pages.with_repository_links(source[0], page=HERE / f"{docname}.md", url=REPOSITORY)


def write_text_forms(app: Any, error: Exception | None) -> None:
    """Put the source of each page next to it as text, and list all pages in llms.txt."""
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    lines = ["# vbench", "", "> Benchmarks and analyses video action-recognition models.", ""]
    for docname in sorted(app.env.found_docs):
        target = out / f"{docname}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(reference_pages.text_form(Path(app.env.doc2path(docname))), encoding="utf-8")
        lines.append(f"- [{app.env.titles[docname].astext()}]({docname}.md)")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def add_example(app: Any, error: Exception | None) -> None:
    """Publish the example report of `make reports` below `example/`."""
    if error is None and app.builder.name == "html":
        shutil.copytree(HERE.parent / "reports" / "site", Path(app.outdir) / "example", dirs_exist_ok=True)


def setup(app: Any) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("source-read", link_to_repository)
    app.connect("build-finished", write_text_forms)
    app.connect("build-finished", add_example)
