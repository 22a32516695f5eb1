"""An installed vbench has what a checkout has: suites, recipes, reference data, templates and assets of pages."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling import build

from bench.core.errors import InputError
from bench.suite.shipped import suite_path

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


def test_the_wheel_brings_everything_that_reports_carry(installed: Path) -> None:
    assets = installed / "bench" / "reporting" / "assets"
    for name in ("report.css", "report.js", "board.js", "vendor/tabulator.min.js", "vendor/tabulator.min.css"):
        assert (assets / name).stat().st_size > 0
    notice = (assets / "NOTICE.txt").read_text(encoding="utf-8")
    assert "Tabulator" in notice
    assert "plotly.js" in notice
    assert not list(installed.rglob("axe.min.js"))


def test_recipes_are_found_by_name_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    found = planned(installed, tmp_path, recipe="quick")
    assert (found.returncode, found.stderr) == (0, "")
    assert "trained: 1 case," in found.stdout


def test_a_misspelt_recipe_is_held_against_those_that_came_with_vbench(installed: Path, tmp_path: Path) -> None:
    found = planned(installed, tmp_path, recipe="quikc")
    assert found.returncode == 2
    assert "trained.yaml:4:40: unknown recipe 'quikc'; did you mean: quick" in found.stderr


def run_installed(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_suites_are_found_by_name_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    found = run_installed(installed, tmp_path, "plan", "quickstart", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["suite"] == "quickstart"


def test_the_documentation_can_be_read_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    found = run_installed(installed, tmp_path, "help", "words")
    assert (found.returncode, found.stderr) == (0, "")
    assert "a YAML file that lists models" in found.stdout
    page = run_installed(installed, tmp_path, "help", "own-model")
    assert page.stdout == (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    assert not list((installed / "bench" / "docs").rglob("*.p*"))  # neither pictures nor Python


def test_a_misspelt_suite_names_the_nearest_one(installed: Path, tmp_path: Path) -> None:
    found = run_installed(installed, tmp_path, "run", "quikstart")
    assert found.returncode == 2
    assert "quikstart is neither a file nor a suite of vbench; did you mean: quickstart" in found.stderr


def test_a_file_of_the_working_folder_precedes_a_suite_of_vbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert suite_path("quickstart") == ROOT / "suites" / "quickstart.yaml"
    (tmp_path / "quickstart").touch()
    assert suite_path("quickstart") == Path("quickstart")
    with pytest.raises(InputError, match="did you mean vbench's own suite: quickstart"):  # a file name is no name
        suite_path("quickstart.yaml")


def test_the_wheel_holds_every_file_of_the_package_that_git_tracks(installed: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "bench", "suites"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [f"bench/{name}" if name.startswith("suites/") else name for name in tracked.stdout.splitlines()]
    missing = [name for name in names if not (installed / name).is_file()]
    assert len(names) > 300
    assert missing == []


@pytest.mark.slow
def test_the_wheel_runs_a_suite_and_writes_its_report(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "counts.yaml").write_text(
        "suite: counts\nmodels: [c3d]\nmatrix: {clip: [16x1x112]}\nmeasure: {params: {}, macs: {}}\n"
    )
    done = run_installed(installed, tmp_path, "run", "counts.yaml", "--out", "res")
    assert done.returncode == 0, done.stderr
    assert run_installed(installed, tmp_path, "report", "res", "--out", "site").returncode == 0
    assert (tmp_path / "site" / "index.html").is_file()


def test_an_editable_install_copies_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `bench` beside the dependencies would be a second package of that name."""
    with ZipFile(tmp_path / _built(monkeypatch, tmp_path, "build_editable")) as wheel:
        assert [name for name in wheel.namelist() if ".dist-info/" not in name] == ["_editable_impl_vbench_video.pth"]


HEAVY = (
    *("torch", "torchvision", "fvcore", "thop", "ptflops", "setuptools", "pandas", "codecarbon"),
    *("av", "simplejpeg", "safetensors"),
)
WITHOUT_HEAVY = """
import sys
sys.modules.update(dict.fromkeys(%r))
from bench.cli.app import run_command
sys.exit(run_command(sys.argv[1:]))
"""


def without_heavy(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run vbench in a process that cannot import what a light installation lacks."""
    command = [sys.executable, "-c", WITHOUT_HEAVY % (HEAVY,), *arguments]
    # An empty cache, since a stored answer needs no heavy package.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_each_dependency_is_either_of_the_light_installation_or_heavy() -> None:
    light = [line for line in (ROOT / "requirements-report.txt").read_text().splitlines() if not line.startswith("#")]
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    named = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in whole}
    own = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in light}
    assert own | set(HEAVY) == named
    assert not own & set(HEAVY)
    assert set(light) <= set(whole), "the same oldest versions"


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", str(ROOT / "reports" / "quickstart"), "--out", "site"),
        ("results", "show", str(ROOT / "reports" / "quickstart")),
        ("compare", str(ROOT / "reports" / "quickstart"), str(ROOT / "reports" / "quickstart")),
        ("results", "export", str(ROOT / "reports" / "quickstart")),
        ("baseline", "list"),
        ("help", "exit-codes"),
        ("suites", "list"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_light_installation_compares_and_reports(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = without_heavy(*arguments, folder=tmp_path)
    assert found.returncode in (0, 4), found.stderr  # 4: one run of each case is too few to decide
    assert "Traceback" not in found.stderr


def test_a_light_installation_names_the_package_that_a_command_lacks(tmp_path: Path) -> None:
    found = without_heavy("profile", "c3d", folder=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("vbench: this command needs torch, which is not installed; a whole installation")
