"""An installed vbench has what a checkout has: files that `pyproject.toml` puts beside the code are found there."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling import build

ROOT = Path(__file__).parents[1]
SUITE = """\
suite: trained
models: [{name: c3d_search, width: 0.1, num_classes: 8}]
matrix: {clip: [16x1x32]}
measure: {accuracy: {dataset: motions, recipe: %s}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch, ZipFile(folder / _built(patch, folder)) as wheel:
        wheel.extractall(folder)
    return folder


def _built(patch: pytest.MonkeyPatch, folder: Path, kind: str = "build_wheel") -> str:
    patch.chdir(ROOT)
    name: str = getattr(build, kind)(str(folder))
    return name


def planned(installed: Path, folder: Path, *, recipe: str) -> subprocess.CompletedProcess[str]:
    (folder / "trained.yaml").write_text(SUITE % recipe)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "bench", "plan", "trained.yaml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_recipes_are_found_by_name_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    found = planned(installed, tmp_path, recipe="quick")
    assert (found.returncode, found.stderr) == (0, "")
    assert "trained: 1 cases" in found.stdout


def test_a_misspelt_recipe_is_held_against_those_that_came_with_vbench(installed: Path, tmp_path: Path) -> None:
    found = planned(installed, tmp_path, recipe="quikc")
    assert found.returncode == 2
    assert "trained.yaml:4:40: unknown recipe 'quikc'; did you mean: quick" in found.stderr


def test_an_editable_install_copies_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `bench` beside the dependencies would be a second package of that name."""
    with ZipFile(tmp_path / _built(monkeypatch, tmp_path, "build_editable")) as wheel:
        assert [name for name in wheel.namelist() if ".dist-info/" not in name] == ["_editable_impl_vbench.pth"]
