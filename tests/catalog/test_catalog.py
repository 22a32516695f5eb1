"""What the catalog knows of models, and what it asks only once."""

from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog
from bench.core.schema import Clip, Point


@pytest.mark.slow
def test_facts_of_another_package_are_collected_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = Catalog().model("torchvision:r3d_18")
    monkeypatch.setattr(Catalog, "_ask", lambda self, requests: pytest.fail(str(requests)) if requests else [])
    assert Catalog().model("torchvision:r3d_18") == found
    assert Catalog().known_model("torchvision:r3d_18") == found


def test_plugins_may_register_more_models_than_are_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "more_nets.py").write_text(
        "import torch\nfrom bench import register_model\n\n\n@register_model('tiny_of_plugin', clip='2x1x8')\n"
        "def tiny(num_classes: int = 3):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))\n"
    )
    assert "tiny_of_plugin" in Catalog(["more_nets"]).models


def test_planning_builds_and_runs_models_without_counting_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both kinds of answers name the same problems and modules; a counted one serves a plan too, not the reverse."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text(
        "from torch.nn import Flatten, Linear, Sequential\n\n\n"
        "def net(num_classes=2):\n    import own_part\n"
        "    return Sequential(Flatten(), Linear(own_part.WIDTH, num_classes))\n\n\n"
        "def broken():\n    raise RuntimeError('of mine')\n"
    )
    (tmp_path / "own_part.py").write_text("WIDTH = 3 * 2 * 8 * 8\n")
    points = [
        Point(model=model, clip=Clip.model_validate(clip))
        for model, clip in (
            ("c3d_search", "4x1x32"),
            ("c3d", "2x1x8"),
            ("own_nets:net", "2x1x8"),
            ("own_nets:net", "2x1x9"),
            ("own_nets:broken", "2x1x8"),
        )
    ]
    counted, uncounted = Catalog().check_models(points), Catalog(counted=False).check_models(points)
    assert [(c.problem, c.note, set(c.modules)) for c in counted] == [
        (c.problem, c.note, set(c.modules)) for c in uncounted
    ]
    assert [bool(c.problem or c.note) for c in uncounted] == [False, True, False, True, True]
    assert set(uncounted[2].modules) == {"own_nets", "own_part"}
    asked: list[object] = []
    real = Catalog._ask
    monkeypatch.setattr(Catalog, "_ask", lambda self, requests: asked.extend(requests) or real(self, requests))
    assert Catalog(counted=False).check_models(points[:1]) == counted[:1]
    assert asked == []
    narrow = [Point(model="c3d_search", args={"width": 0.01}, clip=Clip.model_validate("4x1x32"))]
    for planning in (True, True, False):
        [check] = Catalog(counted=not planning).check_models(narrow)
        assert (check.macs is None) == planning
    assert len(asked) == 2
