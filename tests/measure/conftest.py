"""A small model in a case context."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.schema import Case, Json, Point
from bench.measure.context import CaseContext

Load = Callable[..., CaseContext]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Makes a case of `c3d_search` at 4x1x16 on the CPU; axes can be given, `model` and `args` among them."""

    def make(**axes: Json) -> CaseContext:
        given = {
            "model": "c3d_search",
            "args": {"width": 0.05, "num_classes": 4},
            "clip": "4x1x16",
            "device": "cpu",
            **axes,
        }
        case = Case(suite="s", point=Point.model_validate(given), measures={})
        return CaseContext(case, artifacts=tmp_path / "artifacts" / "x")

    return make
