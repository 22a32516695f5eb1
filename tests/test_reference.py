"""The reference pages name everything that the code has: commands, keys, records, metrics, API, codes, variables."""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import bench
from bench.cli import listings
from bench.cli.app import app
from bench.core import errors, schema
from bench.core.registry import MEASURES
from bench.suite.axes import AXES, AXIS_ALIASES
from bench.suite.file import SuiteFile

ROOT = Path(__file__).parents[1]
# Passed from one process of vbench to another; a user never sets them.
INTERNAL_VARIABLES = re.compile(r"VBENCH_(PARENT_PID|CALL|CALLGRIND_DUMPS|RENDEZVOUS|STAGED|\w+_FD)")
# Set by launchers, containers and test runners, and only read here.
OF_OTHERS = {
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "SLURM_GPUS_PER_TASK"),
    *("KUBERNETES_SERVICE_HOST", "container", "PYTEST_XDIST_WORKER_COUNT", "SLURM_RESTART_COUNT", "LOCAL_WORLD_SIZE"),
}


@pytest.fixture(scope="module")
def reference_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference_pages: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("docs") / "reference"
    reference_pages.write(folder)
    return {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}


def commands_of(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for child, each in getattr(command, "commands", {}).items():
        if hasattr(each, "commands"):
            yield from commands_of(each, f"{name} {child}")
        else:
            yield f"{name} {child}", each


def rows_of(page: str, title: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    section = re.split(rf"^#+ {re.escape(title)}$", page, maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    cells = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in section.splitlines() if line.startswith("| `")]
    return {row[0].split("`")[1]: row[1:] for row in cells}


def types_in(kind: type[BaseModel]) -> set[type[BaseModel]]:
    """The pydantic types that a type consists of, itself included."""
    found = {kind}
    for field in kind.model_fields.values():
        for inner in re.findall(r"bench\.core\.schema\.(\w+)", repr(field.annotation)):
            found |= types_in(getattr(schema, inner))
    return found


def test_every_page_is_in_the_index(pages: dict[str, str]) -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^reference/(.+)$", index, re.MULTILINE)) == set(pages)


def test_every_command_has_its_arguments_and_options_explained(pages: dict[str, str]) -> None:
    commands = dict(commands_of(typer.main.get_command(app), "vbench"))
    assert set(re.findall(r"^## (vbench .+)$", pages["commands"], re.MULTILINE)) == set(commands)
    for name, command in commands.items():
        rows = rows_of(pages["commands"], name)
        shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
        assert len(rows) == len(shown), name
        assert all(meaning for _, meaning in rows.values()), name


def test_every_key_of_a_suite_has_its_meaning(pages: dict[str, str]) -> None:
    page = pages["suite-keys"]
    nested = {"`require`": "require", "`ablate`": "ablate", "A metric of `gate`": "gate"}
    tables = {"Keys of a suite": SuiteFile.model_fields, "Axes": dict.fromkeys(AXES)}
    for title, key in nested.items():
        found = re.findall(r"bench\.suite\.\w+\.(\w+)", repr(SuiteFile.model_fields[key].annotation))
        module = sys.modules["bench.suite.file"]
        tables[title] = getattr(module, found[0]).model_fields
    of_suite = set(re.findall(r"bench\.suite\.\w+\.(\w+)", repr(SuiteFile.__annotations__)))
    assert len(of_suite) == len(nested), "a type of suite keys has no table"
    for title, fields in tables.items():
        rows = rows_of(page, title)
        assert list(rows) == list(fields), title
        assert all(row[-1] for row in rows.values()), title
    assert all(f"`{alias}`" in page for alias in AXIS_ALIASES)


def test_every_option_of_a_measure_is_listed_and_every_metric_explained(pages: dict[str, str]) -> None:
    for measure in MEASURES:
        assert list(rows_of(pages["suite-keys"], measure.name)) == list(measure.options)
    metrics = rows_of(pages["metrics"], "Metrics")
    assert set(metrics) == {spec.name for measure in MEASURES for spec in measure.metrics}
    assert all(row[0] and row[2] and row[3] for row in metrics.values())  # unit, title, meaning


def test_every_field_of_a_record_has_its_meaning(pages: dict[str, str], reference_pages: ModuleType) -> None:
    kinds = types_in(schema.Record)
    assert {kind.__name__ for kind in kinds} == set(reference_pages.RECORD_TYPES)
    for kind in kinds:
        rows = rows_of(pages["records"], kind.__name__)
        assert list(rows) == list(kind.model_fields)
        assert all(row[-1] for row in rows.values()), kind


def test_every_public_name_has_an_entry_with_a_docstring(pages: dict[str, str]) -> None:
    entries = set(re.findall(r":: bench\.(\w+)$", pages["python-api"], re.MULTILINE))
    values = re.findall(r"^\| `(\w+)`", pages["python-api"], re.MULTILINE)
    assert entries | set(values) == set(bench.__all__)
    assert all(getattr(bench, name).__doc__ for name in entries)


def test_every_exit_code_of_an_error_is_explained(pages: dict[str, str]) -> None:
    explained = {int(code) for codes in listings.EXIT_CODES for code in codes.split(",")}
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.BenchError)]
    assert {kind.exit_code for kind in kinds} <= explained
    assert all(meaning in pages["exit-codes"] for meaning in listings.EXIT_CODES.values())


def test_the_page_of_the_command_line_has_the_same_exit_codes() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    assert dict(re.findall(r"^\| (\d[\d, ]*) \| (.+) \|$", page, re.MULTILINE)) == listings.EXIT_CODES


def test_every_environment_variable_that_the_code_reads_is_explained(pages: dict[str, str]) -> None:
    read = {name for file in sorted((ROOT / "bench").rglob("*.py")) for name in variables_of(file)}
    unexplained = {name for name in read - OF_OTHERS if f"`{name}`" not in pages["environment"]}
    assert not {name for name in unexplained if not INTERNAL_VARIABLES.fullmatch(name)}
    assert read > {"VBENCH_DATA", "VBENCH_TRUST", "XDG_CACHE_HOME", "HF_HOME"}  # the search finds what it should


def variables_of(file: Path) -> Iterator[str]:
    """The environment variables that a file names next to `os.environ`, as text or by a constant of any module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        keys: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            keys = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("os.environ."):
            keys = node.args[:1]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            keys = [node.left]
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value
            elif isinstance(key, ast.Name) and key.id.isupper():
                module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
                yield getattr(module, key.id)


def test_a_page_as_text_has_what_its_directives_insert(reference_pages: ModuleType, tmp_path: Path) -> None:
    docs = ROOT / "docs"
    included = reference_pages.text_form(docs / "extend.md")
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") in included
    page = tmp_path / "python-api.md"
    page.write_text("# Python\n\n```{eval-rst}\n.. autofunction:: bench.count\n```\n", encoding="utf-8")
    assert "count(model" in reference_pages.text_form(page)
    example = reference_pages.text_form(docs / "examples" / "plot_pareto.rst")
    assert example.startswith("# ")
    assert "```python" in example
    assert not any("{eval-rst}" in reference_pages.text_form(page) for page in docs.glob("*.md"))
