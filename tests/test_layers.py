"""The direction of imports: each part may know only what stands below it, imports inside functions included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

PACKAGE = Path(bench.__file__).parent
STEPS = [
    {"errors"},
    {
        "reference",
        "schema",
        "stats",
        "registry",
        "nvml",
        "yaml_tree",
        "threshold",
        "complaints",
        "quantity",
        "importing",
        "git_environment",
        "atomic",
        "cache",
    },
    {"models", "data"},
    {"train"},
    {"suite", "store", "measure"},
    {"execution", "comparison", "reporting"},
    {
        "cli",
        "cli_data",
        "cli_gate",
        "cli_networks",
        "cli_predictions",
        "gating",
        "terminal",
        "__main__",
        "pytest_plugin",
    },
]
# A leaf may know another leaf where one is made of the other; nothing else may know its own step.
WITHIN = {
    ("registry", "schema"),
    ("cache", "atomic"),
    ("schema", "complaints"),
    ("reference", "schema"),
    ("cli", "terminal"),
    ("cli", "cli_data"),
    ("cli_data", "terminal"),
    ("cli", "cli_gate"),
    ("cli", "cli_networks"),
    ("cli_networks", "terminal"),
    ("cli", "cli_predictions"),
    ("cli_predictions", "terminal"),
    ("cli_gate", "gating"),
    ("cli_gate", "terminal"),
    ("__main__", "cli"),
}
HEAVY = {"torch", "torchvision", "pandas", "plotly", "scipy", "numpy", "av", "pyarrow", "fvcore", "thop", "ptflops"}
LIGHT = ["bench", "bench.cli", "bench.suite", "bench.store", "bench.execution.running", "bench.stats"]
LIGHT += ["bench.comparison.comparing", "bench.gating", "bench.cli_gate", "bench.cli_networks", "bench.cli_predictions"]


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def step_of(part: str) -> int:
    return next(number for number, parts in enumerate(STEPS) if part in parts)


def imports_of(file: Path) -> Iterator[str]:
    """Parts of bench that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            names = [node.module or ""]
            if node.module == "bench":
                names = [f"bench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("bench."))


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if part_of(file) != "__init__"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    own = part_of(file)
    for other in imports_of(file):
        if other == own or other not in {part for parts in STEPS for part in parts}:
            continue
        is_below = step_of(other) < step_of(own)
        assert is_below or (own, other) in WITHIN, f"{file.relative_to(PACKAGE)} imports {other}, which is not below it"


def test_every_part_has_a_step() -> None:
    known = {part for parts in STEPS for part in parts}
    found = {part_of(file) for file in FILES}
    assert found <= known, f"no step for {sorted(found - known)}"


def test_light_modules_import_nothing_heavy() -> None:
    """Also every open folder whose entries planning reads: measures, data sets, report sections."""
    code = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}: importlib.import_module(name)\n"
        "from bench.registry import MEASURES, DATASETS, SECTIONS\n"
        "assert list(MEASURES) and list(DATASETS) and list(SECTIONS)\n"
        f"heavy = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_function_shares_the_name_of_a_module() -> None:
    modules = {file.stem for file in FILES}
    for name in bench.__all__:
        assert name not in modules, f"the public function {name} has the name of a module"


def test_a_timing_does_not_wait_for_compilers_that_it_does_not_use() -> None:
    """Each takes as long to import as torch, in every process that times something."""
    code = (
        "import sys, bench.execution.worker, bench.measure.timing.taking, bench.measure.timing.variants\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
