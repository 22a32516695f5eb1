"""Names of other packages' models, read without importing these packages."""

import json
from pathlib import Path

import pytest

from bench.catalog.model_sources import model_sources
from bench.models.sources import models_with_weights
from bench.reference.huggingface_cache import cached_folder, cached_video_models


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_names_are_those_that_the_package_gives_itself(package: str) -> None:
    if package == "timm":
        timm = pytest.importorskip("timm")
        expected = [f"timm:{name}" for name in timm.list_models()]
    else:
        from torchvision import models

        expected = [f"torchvision:{name}" for name in models.list_models(module=models.video)]
    assert sorted(model_sources()[package].families) == sorted(expected)


def test_every_video_model_of_torchvision_has_weights() -> None:
    assert models_with_weights("torchvision") == set(model_sources()["torchvision"].families)


def cached_model(hub: Path, repository: str, kind: str, *, revision: str = "abc", is_main: bool = True) -> Path:
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
    if is_main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(revision)
    return snapshot


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_video_models_in_the_cache_of_hugging_face_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HOME": "hub", "HF_HUB_CACHE": ".", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    hub = tmp_path / below
    cached_model(hub, "MCG-NJU/videomae-base", "videomae")
    cached_model(hub, "org/a--b", "vivit")
    cached_model(hub, "org/text", "bert")
    broken = cached_model(hub, "org/broken", "vivit")
    (broken / "config.json").write_text("{")
    assert cached_video_models() == {"MCG-NJU/videomae-base": "videomae", "org/a--b": "vivit"}


def test_the_main_revision_of_a_cached_model_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached_model(tmp_path, "org/net", "vivit", revision="zzz", is_main=True)
    cached_model(tmp_path, "org/net", "vivit", revision="aaa", is_main=False)
    found = cached_folder("org/net")
    assert found is not None
    assert found.name == "zzz"
    assert cached_folder("org/other") is None
    assert cached_folder("../../etc/passwd") is None
