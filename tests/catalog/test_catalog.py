"""What the catalog knows of models, and what it asks only once."""

from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog


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
