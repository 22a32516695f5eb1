"""The direction of imports: each part may know only what stands below it, imports inside functions included."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bench

PACKAGE = Path(bench.__file__).parent
STEPS = [
    {"core"},
    {"reference"},
    {"models", "data"},
    {"train"},
    {"suite", "store", "measure"},
    {"catalog"},
    {"runner", "comparison", "reporting"},
    {"ab", "drafting", "profiling"},
    {"cli", "pytest_plugin"},
    {"__main__"},
]
HEAVY = {"torch", "torchvision", "pandas", "plotly", "scipy", "numpy", "av", "pyarrow", "fvcore", "thop", "ptflops"}
LIGHT = ["bench", "bench.cli.app", "bench.suite", "bench.store", "bench.runner.running", "bench.core.stats"]
LIGHT += [
    "bench.comparison.comparing",
    "bench.ab.gate",
    "bench.cli.gate",
    "bench.cli.history",
    "bench.comparison.alarms",
    "bench.cli.models",
    "bench.cli.profile_command",
    "bench.cli.weights",
    "bench.cli.train",
    "bench.cli.prediction_views",
    "bench.cli.predictions",
]


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def step_of(part: str) -> int:
    return next(number for number, parts in enumerate(STEPS) if part in parts)


def imports_of(file: Path) -> Iterator[str]:
    """Parts of bench that a file imports, anywhere in it."""
    yield from (name.split(".")[1] for name in modules_of(file))


def modules_of(file: Path) -> Iterator[str]:
    """Modules of bench that a file imports, anywhere in it; of `from package import name`, `package.name` as well."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("bench."))


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if part_of(file) != "__init__"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    own = part_of(file)
    for other in imports_of(file):
        if other == own or other not in {part for parts in STEPS for part in parts}:
            continue
        is_below = step_of(other) < step_of(own)
        assert is_below, f"{file.relative_to(PACKAGE)} imports {other}, which is not below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also within a part, imports inside functions included."""
    modules = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in FILES}
    graph = {name: {other for other in modules_of(file) if other in modules} for name, file in modules.items()}
    while ends := [
        name for name, others in graph.items() if not others or not any(map(_imports(name), graph.values()))
    ]:
        for end in ends:
            del graph[end]
        for others in graph.values():
            others.difference_update(ends)
    assert not graph, f"a circle of imports runs through some of {sorted(graph)}"


def _imports(name: str) -> Callable[[set[str]], bool]:
    return lambda others: name in others


def test_every_part_has_a_step() -> None:
    known = {part for parts in STEPS for part in parts}
    found = {part_of(file) for file in FILES}
    assert found <= known, f"no step for {sorted(found - known)}"


def test_light_modules_import_nothing_heavy() -> None:
    """Also every open folder whose entries planning reads: measures, data sets, report sections."""
    code = (
        "import sys, importlib\n"
        f"for name in {LIGHT!r}: importlib.import_module(name)\n"
        "from bench.core.registry import MEASURES, DATASETS, SECTIONS\n"
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
        "import sys, bench.runner.worker, bench.measure.timing.case_timing, bench.measure.timing.forward\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
