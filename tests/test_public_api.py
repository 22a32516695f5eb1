"""The public API: every name is importable, documented, and enough to write what CONTRIBUTING shows."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import bench

ROOT = Path(__file__).parents[1]
# Printed by CONTRIBUTING.md in the release before, and so in plug-ins.
BEFORE = [
    ("bench.data.collection", "VideoSet"),
    ("bench.data.datasets.folder", "class_folders"),
    ("bench.measure.axes", "COUNT_AXES"),
    ("bench.measure.loaded", "LoadedCase"),
    ("bench.models.base", "VideoModel"),
    ("bench.registry", "register_dataset"),
    ("bench.registry", "register_measure"),
    ("bench.registry", "register_model"),
    ("bench.registry", "register_section"),
    ("bench.reporting.results", "Results"),
    ("bench.schema", "Metric"),
    ("bench.schema", "Record"),
]


@pytest.mark.parametrize("name", bench.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(bench, name)
    if not isinstance(found, frozenset):
        assert (inspect.getdoc(found) or "").strip(), f"bench.{name} has no docstring"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'profil'"):
        _ = bench.profil  # type: ignore[attr-defined]


def imports_in(document: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that the Python examples of a document import from bench."""
    for code in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "bench":
                yield from ((str(node.module), alias.name) for alias in node.names)


def test_names_that_contributing_imports_are_public() -> None:
    wanted = sorted({name for _, name in imports_in(ROOT / "CONTRIBUTING.md")})
    assert wanted, "CONTRIBUTING.md has examples"
    missing = [name for name in wanted if name not in bench.__all__]
    assert not missing, f"not public: {missing}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("module", "name"), BEFORE)
def test_paths_that_plugins_use_go_on_working(module: str, name: str) -> None:
    if name != "LoadedCase":
        assert getattr(import_module(module), name) is getattr(bench, name)
    else:
        assert inspect.isclass(getattr(import_module(module), name))


def test_importing_bench_imports_no_other_package() -> None:
    code = "import sys; import bench; print([n for n in ('torch', 'numpy', 'pydantic', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
