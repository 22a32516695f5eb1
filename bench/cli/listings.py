"""The commands `suites`, `recipes`, `measures` and `help`: what there is, with an example of each."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import bench
from bench.cli.arguments import AsJson
from bench.cli.console import print_json, print_page, print_table, print_text
from bench.core.errors import UnknownNameError

suites_app = typer.Typer(name="suites", no_args_is_help=True, help="Suites that come with vbench.")
recipes_app = typer.Typer(name="recipes", no_args_is_help=True, help="Recipes for training that come with vbench.")
measures_app = typer.Typer(name="measures", no_args_is_help=True, help="What can be measured.")

EXIT_CODES = {
    "0": "success",
    "1": "a regression (`compare`, `ab` and the pytest gate only)",
    "2": "wrong input",
    "3": "incomplete: a case failed or is missing, or nothing was measured",
    "4": "inconclusive",
    "70": "a fault of vbench itself; the message names the file with the traceback",
    "129, 130, 143": "ended by SIGHUP, Ctrl-C or SIGTERM; everything finished is kept",
    "141": "the reader of the output has gone, such as `head`; everything finished is kept",
}
ENVIRONMENT = {
    "VBENCH_DATA": "The folder with data sets, each in a folder of its name; used if no `root` is given.",
    "VBENCH_TRUST": "Folders whose suites may run code, separated by `:`.",
    "VBENCH_TEST_ASSETS": "A folder with real clips and published references for tests, some of which skip without it.",
    "XDG_CACHE_HOME": "The folder for caches (counts, compiled graphs, synthetic data); `~/.cache` by default.",
    "OMP_NUM_THREADS": "The threads of a process on a CPU; recorded with every result.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that vbench sees; `cuda:0` is the first of them.",
    "HF_HUB_CACHE": "The folder with models of Hugging Face; also `HUGGINGFACE_HUB_CACHE`, or `hub` below `HF_HOME`.",
    "GLOO_SOCKET_IFNAME": "The network interface of ranks on CPUs; if unset, the one that leads to the first rank.",
    "PYTHONPATH": "Where else models and plug-ins of your own are found; jobs on a cluster get it too.",
    "RAY_USAGE_STATS_ENABLED": "Whether Ray sends statistics of use; 0 if `--executor ray` finds it unset.",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "Tries of a request to MLflow; 1 if `--sink mlflow` finds it unset.",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "Seconds of a request to MLflow; 10 if `--sink mlflow` finds it unset.",
    "WORLD_SIZE": "The processes of one case; torchrun sets it, `RANK`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`.",
}
TOPICS = ("exit-codes", "words", "environment")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from the list.")]


@suites_app.command("list")
def list_suites(as_json: AsJson = False) -> None:
    """List the suites of vbench and the question that each answers."""
    from bench.suite import read_suite
    from bench.suite.shipped import shipped_suites

    trees = {name: read_suite(path).data for name, path in shipped_suites().items()}
    rows = [(name, "yes" if "small" in tree else "no", tree.get("title", "")) for name, tree in trees.items()]
    _print_rows(("suite", "small form", "question"), rows, as_json=as_json)


@suites_app.command("show")
def show_suite(name: Name) -> None:
    """Print the file of a suite, to copy and change."""
    from bench.suite.shipped import shipped_suites

    _print_file(_named("suite", name, shipped_suites()))


@recipes_app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes of vbench with their sources."""
    from bench.core.yaml_tree import read_yaml

    recipes = {name: read_yaml(path).data for name, path in _recipes().items()}
    rows = [(name, recipe.get("epochs"), recipe.get("source", "")) for name, recipe in recipes.items()]
    _print_rows(("recipe", "epochs", "source"), rows, as_json=as_json)


@recipes_app.command("show")
def show_recipe(name: Name) -> None:
    """Print the file of a recipe, to copy and change."""
    _print_file(_named("recipe", name, _recipes()))


@measures_app.command("list")
def list_measures(as_json: AsJson = False) -> None:
    """List the measures and what each reports."""
    rows = [(name, _first_line(entry.function.__doc__)) for name, entry in _measures().items()]
    _print_rows(("measure", "reports"), rows, as_json=as_json)


@measures_app.command("show")
def show_measure(name: Name, as_json: AsJson = False) -> None:
    """Show the options, metrics and axes of a measure, and how to write it in a suite."""
    import inspect

    entry = _named("measure", name, _measures())
    options = {key: "required" if value is inspect.Parameter.empty else value for key, value in entry.options.items()}
    metrics = [(spec.name, spec.title, spec.unit, spec.better, spec.meaning) for spec in entry.metrics]
    columns = ("metric", "title", "unit", "better", "meaning")
    if as_json:
        facts = {"measure": name, "options": options, "axes": sorted(entry.depends_on), "version": entry.version}
        facts |= {"example": entry.example}
        facts |= {"duration_s": entry.duration_s, "headlines": [spec.name for spec in entry.metrics if spec.headline]}
        print_json({**facts, "metrics": [dict(zip(columns, row, strict=True)) for row in metrics]})
        return
    print_text(f"{name}: {_first_line(entry.function.__doc__)}")
    print_text(f"axes: {', '.join(sorted(entry.depends_on))}")
    if name not in ("accuracy", "frozen"):  # their time depends on the data
        print_text(f"rough duration of a run: {entry.duration_s:g} s, and the start of a process")
    if options:
        print_table(("option", "default"), [(key, repr(value)) for key, value in options.items()])
    if metrics:
        print_table(columns, metrics)
    print_text(f"in a suite:\n  measure:\n    {name}: {entry.example}")


def show_help(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="exit-codes, words, environment, or a page such as suites.")
    ] = None,
) -> None:
    """Explain exit codes, words or environment variables, or print a page of the documentation."""
    pages = documentation_pages()
    if topic is None:
        print_text(f"topics: {', '.join(TOPICS)}")
        print_table(("page", "title"), [(name, _title(page)) for name, page in pages.items()])
    elif topic == "exit-codes":
        print_table(("code", "meaning"), list(EXIT_CODES.items()))
    elif topic == "environment":
        print_table(("variable", "meaning"), list(ENVIRONMENT.items()))
    elif topic == "words":
        print_table(("word", "meaning"), _glossary(pages["glossary"]))
    elif topic in pages:
        print_page(pages[topic].read_text(encoding="utf-8"))
    else:
        raise UnknownNameError("topic", topic, [*TOPICS, *pages])


def documentation_pages() -> dict[str, Path]:
    """Return the pages of the documentation by name; the wheel holds them inside the package."""
    package = Path(bench.__file__).parent
    folder = next(each for each in (package.parent / "docs", package / "docs") if (each / "glossary.md").is_file())
    pages = {file.stem: file for file in sorted(folder.glob("*.md"))}
    # The start page is a list of links, and `extend` includes CONTRIBUTING.md, which the wheel does not hold.
    return {name: file for name, file in pages.items() if name not in ("index", "extend")}


def _title(page: Path) -> str:
    return _first_line(page.read_text(encoding="utf-8")).lstrip("# ")


def _glossary(page: Path) -> list[tuple[str, str]]:
    """Return the rows of the glossary."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [(word, meaning) for word, meaning in rows if word not in ("word", "---")]


def _recipes() -> dict[str, Path]:
    from bench.suite.shipped import shipped_recipes

    return shipped_recipes()


def _measures() -> dict[str, Any]:
    from bench.core.registry import MEASURES

    return {entry.name: entry for entry in sorted(MEASURES, key=lambda entry: entry.name)}


def _named(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def _print_file(path: Path) -> None:
    print_text(f"# {path}")
    print_text(path.read_text(encoding="utf-8").rstrip())


def _print_rows(columns: tuple[str, ...], rows: list[tuple[Any, ...]], *, as_json: bool) -> None:
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]
