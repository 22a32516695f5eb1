"""Models as `vbench models` lists them, registered and of other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog
from bench.catalog.listing import (
    ListedModel,
    ModelFilter,
    matches_elsewhere,
    matching_models,
    with_counts,
    with_known_facts,
    with_weights_known,
)
from bench.core.errors import InputError, MissingPackageError, UnknownNameError
from bench.core.schema import Clip, ModelCheck, ModelInfo


def model(name: str, *, paper: str = "", params: int | None = None, macs: int | None = None) -> ListedModel:
    info = ModelInfo(name=name, family="net", clip=Clip.model_validate("4x1x32"), arguments={}, paper=paper)
    count = None if params is None else ModelCheck(params=params, macs=macs)
    return ListedModel(name=name, family="net", source="", task="classification", paper=paper, info=info, count=count)


def names(models: list[ListedModel]) -> list[str]:
    return [each.name for each in models]


def test_a_pattern_chooses_by_name_with_counts() -> None:
    [found] = with_counts(matching_models("x3d_x*", Catalog()), Catalog())
    assert (found.name, found.params, found.year) == ("x3d_xs", 3_794_274, 2020)
    assert round((found.macs or 0) / 1e9, 2) == 0.61


def test_a_pattern_without_matches_anywhere_is_unknown() -> None:
    with pytest.raises(UnknownNameError, match="x3d_z"):
        matching_models("x3d_z*", Catalog())


def test_a_pattern_that_matches_no_registered_model_finds_those_of_other_packages() -> None:
    assert names(matching_models("swin3d_*", Catalog())) == [
        "torchvision:swin3d_b",
        "torchvision:swin3d_s",
        "torchvision:swin3d_t",
    ]


def test_matches_of_other_packages_are_found_together_with_registered_ones() -> None:
    assert "mvitv2_s_16x4" in names(matching_models("mvit*", Catalog()))
    assert matches_elsewhere("mvit_*") == {"torchvision": ["torchvision:mvit_v1_b", "torchvision:mvit_v2_s"]}
    assert matches_elsewhere("c3d*") == {}


def test_an_unknown_source_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown source of models 'tim'; did you mean: timm\?"):
        matching_models("tim:*", Catalog())
    with pytest.raises(UnknownNameError, match=r"torchvision:r3d"):
        matching_models("torchvision:r4d*", Catalog())
    from bench.catalog import model_sources

    monkeypatch.setattr(model_sources, "_version", lambda package: None)
    model_sources.model_sources.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="pip install timm"):
            matching_models("timm:*", Catalog())
    finally:
        model_sources.model_sources.cache_clear()


def test_filters_keep_what_is_known_to_fit() -> None:
    small = model("small", paper="Tran et al., 2015, arXiv:1412.0767", params=1_000_000, macs=2_000_000_000)
    large = model("large", paper="arXiv:2103.11511", params=9_000_000, macs=90_000_000_000)
    unknown = model("unknown")
    every = (small, large, unknown)

    def kept(wanted: ModelFilter) -> list[str]:
        return [each.name for each in every if wanted.accepts(each)]

    assert kept(ModelFilter()) == ["small", "large", "unknown"]
    assert kept(ModelFilter(max_macs=2e9)) == ["small"]
    assert kept(ModelFilter(max_params=9e6)) == ["small", "large"]
    assert kept(ModelFilter(years=(2021, 2021))) == ["large"]
    assert kept(ModelFilter(years=(2015, 2021))) == ["small", "large"]
    assert kept(ModelFilter(family="n*t")) == ["small", "large", "unknown"]
    assert kept(ModelFilter(task="head")) == []
    assert kept(ModelFilter(has_weights=True)) == []


def test_tasks_of_registered_models() -> None:
    tasks = {each.name: each.task for each in matching_models("vjepa2*", Catalog())}
    assert (tasks["vjepa2_l"], tasks["vjepa2_l_encoder"], tasks["vjepa2_l_probe"]) == (
        "classification",
        "features",
        "head",
    )


def test_weights_are_known_of_models_with_published_files() -> None:
    found = {each.name: each.has_weights for each in with_weights_known(matching_models("c*d*", Catalog()), Catalog())}
    assert found["c2d_r50"] is True
    assert found["c3d_search"] is False


def test_unknown_facts_are_null_in_json() -> None:
    plain = ListedModel(name="timm:x", family="vit", source="timm", task="classification").as_dict()
    assert [plain[name] for name in ("params", "macs", "clip", "year", "has_weights", "problem")] == [None] * 6
    assert (plain["source"], plain["task"]) == ("timm", "classification")


def test_listing_imports_no_torch_and_starts_no_process(tmp_path: Path) -> None:
    script = """
import sys
from bench.catalog.catalog import Catalog
from bench.catalog.listing import *
Catalog._ask = lambda self, requests: sys.exit(f"asked {requests}") if requests else []
catalog = Catalog()
catalog.__dict__["models"] = {}
for pattern in ("timm:*", "torchvision:*", "mvit_v*", "resnet50*"):
    assert with_known_facts(matching_models(pattern, catalog), catalog), pattern
heavy = {"torch", "torchvision", "timm", "transformers", "numpy", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"XDG_CACHE_HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_model_of_the_user_is_listed_by_its_exact_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no module 'no_such_module'"):
        matching_models("no_such_module:small", Catalog())


@pytest.mark.slow
def test_models_of_another_package_are_counted_when_asked() -> None:
    rows = {each.name: each for each in with_counts(matching_models("torchvision:r*", Catalog()), Catalog())}
    assert list(rows) == ["torchvision:r2plus1d_18", "torchvision:r3d_18"]
    assert rows["torchvision:r3d_18"].macs == 40_696_553_472
    known = with_known_facts(matching_models("torchvision:r3d*", Catalog()), Catalog())
    assert known[0].macs == 40_696_553_472
