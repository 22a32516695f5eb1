"""Planted mistakes on networks trained here are named first, and a right evaluation is not blamed.

A diagnosis is thousands of forward passes: `make plants` runs these for two seeds.
`benchmarks/diagnose_plants.py` does the same for as many seeds as wanted.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
FILE = Path(__file__).parents[2] / "benchmarks" / "diagnose_plants.py"


def benchmark():
    spec = importlib.util.spec_from_file_location("diagnose_plants", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plants = benchmark()


@pytest.fixture(scope="module", params=[0, 1])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"seed{request.param}")
    plants.write_videos(folder, seed=request.param)
    return plants.trained(folder, seed=request.param)


@pytest.mark.parametrize("plant", plants.TOPICS)
def test_a_planted_mistake_is_the_first_cause(plant, trained):
    model, videos = trained
    diagnosis = plants.found(plant, model, videos, number=100)
    assert plants.is_named(plant, diagnosis), diagnosis.sentences()
