"""The table of real measurements counts all of them and lists those still missing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def noise() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "ab_noise.py"
    spec = importlib.util.spec_from_file_location("ab_noise", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kinds_take_turns_so_that_a_run_cut_short_holds_some_of_each(noise: ModuleType) -> None:
    assert list(noise.kinds_to_do(3, 1)) == ["same", "plus 5 %", "plus 10 %", "plus 50 %", "same", "same"]


def test_the_table_counts_all_measurements_and_lists_the_missing_ones(noise: ModuleType) -> None:
    def line(kind: str, verdict: str) -> dict[str, object]:
        return {
            "kind": kind,
            "verdict": verdict,
            "ratio": 1.0,
            "runs": 6,
            "seconds": 60.0,
            "budget": "2m",
            "load_1min": 1.0,
            "test": noise.TEST,
        }

    found = noise.table([line("same", "same"), line("same", "slower"), line("plus 5 %", "inconclusive")])
    assert "| same | e-value | 2 | 1 | 0 | 1 | 0 |" in found
    assert "| plus 5 % | e-value | 1 | 0 | 0 | 0 | 1 |" in found
    assert "Still missing: 18 same, 4 plus 5 %, 5 plus 10 %, 5 plus 50 %." in found
    assert "Still" not in noise.table([line(kind, "same") for kind, n in noise.WANTED.items() for _ in range(n)])
