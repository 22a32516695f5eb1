"""Models as `vbench models` lists them."""

from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog, model_rows
from bench.core.errors import UnknownNameError


def test_a_pattern_chooses_by_name_with_counts() -> None:
    rows = {model.name: probe for model, probe in model_rows("x3d_x*", Catalog())}
    assert list(rows) == ["x3d_xs"]
    assert rows["x3d_xs"].params == 3_794_274
    assert round((rows["x3d_xs"].macs or 0) / 1e9, 2) == 0.61


def test_a_pattern_without_matches_is_unknown() -> None:
    with pytest.raises(UnknownNameError, match="x3d_z"):
        model_rows("x3d_z*", Catalog())


@pytest.mark.slow
def test_models_of_another_package_are_listed_by_its_name() -> None:
    rows = {model.name: probe for model, probe in model_rows("torchvision:r*", Catalog())}
    assert list(rows) == ["torchvision:r2plus1d_18", "torchvision:r3d_18"]
    assert rows["torchvision:r3d_18"].macs == 40_696_553_472


@pytest.mark.slow
def test_facts_of_another_package_are_collected_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = Catalog().model("torchvision:r3d_18")
    monkeypatch.setattr(Catalog, "_ask", lambda self, requests: pytest.fail(str(requests)) if requests else [])
    assert Catalog().model("torchvision:r3d_18") == found
