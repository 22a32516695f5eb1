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


def line(noise: ModuleType, kind: str, verdict: str, **given: object) -> dict[str, object]:
    own = {"kind": kind, "verdict": verdict, "ratio": 1.0, "runs": 6, "seconds": 60.0, "load_1min": 1.0}
    return {**own, "tool": noise.VBENCH, "test": noise.TEST, "cases": 1, "busy": 0, **given}


def test_a_run_cut_short_has_some_of_each_and_goes_on_with_what_is_missing(noise: ModuleType) -> None:
    wanted = noise.still_wanted([], is_quick=False)
    assert wanted[: len(noise.PLAN)] == list(noise.PLAN)
    assert len(wanted) == sum(each.count for each in noise.PLAN)
    first = noise.PLAN[0]
    done = [line(noise, first.kind, "worse", cases=first.cases, busy=first.busy)]
    assert noise.still_wanted(done, is_quick=False)[0] == noise.PLAN[1]
    assert noise.still_wanted(done, is_quick=False).count(first) == first.count - 1
    former = {key: value for key, value in done[0].items() if key not in ("tool", "test", "cases", "busy")}
    assert noise.still_wanted([former], is_quick=False).count(first) == first.count


def test_a_quick_run_does_one_of_each_change_and_tool(noise: ModuleType) -> None:
    quick = noise.still_wanted([], is_quick=True)
    assert {each.tool for each in quick} == set(noise.TOOLS)
    assert {each.kind for each in quick if each.tool == noise.VBENCH} == set(noise.HEADS)
    assert {(each.cases, each.busy) for each in quick} == {(1, 0)}


def test_the_table_counts_all_measurements_and_lists_the_missing_ones(noise: ModuleType) -> None:
    lines = [line(noise, "same", "same"), line(noise, "same", "slower"), line(noise, "plus 5 %", "inconclusive")]
    found = noise.table(lines)
    assert f"| vbench ab | 1 | 0 | same | {noise.TEST} | 2 | 1 | 0 | 1 | 0 |" in found
    assert f"| vbench ab | 1 | 0 | plus 5 % | {noise.TEST} | 1 | 0 | 0 | 0 | 1 |" in found
    assert "18 vbench ab, same, 1 cases, 0 busy" in found
    all_of_them = [
        line(noise, each.kind, "same", tool=each.tool, cases=each.cases, busy=each.busy)
        for each in noise.PLAN
        for _ in range(each.count)
    ]
    assert "Still" not in noise.table(all_of_them)
