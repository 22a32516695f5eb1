"""`make newcomer` walks through the documents: it finds the commands of the tutorial and the files that they need."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def newcomer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("newcomer_script", ROOT / "benchmarks" / "newcomer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_of_the_tutorial_is_walked(newcomer: ModuleType) -> None:
    commands = [" ".join(command[:2]) for command in newcomer.tutorial_commands()]
    assert commands == [
        "vbench doctor", "vbench profile", "vbench profile", "vbench plan", "vbench run", "vbench results",
        "vbench report",
    ]  # fmt: skip
    suites = {word for command in newcomer.tutorial_commands() for word in command if word.endswith(".yaml")}
    assert suites == set(newcomer.tutorial_files())


def test_a_step_that_fails_ends_the_walk_with_its_code(
    newcomer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    walk = newcomer.Walk(tmp_path / "cache")
    walk.run("clone", [sys.executable, "-c", "print('pip install')"], folder=tmp_path)
    with pytest.raises(SystemExit) as stop:
        walk.run("clone", [sys.executable, "-c", "raise SystemExit(3)"], folder=tmp_path)
    assert stop.value.code == 3
    assert "newcomer: exit code 3 of: " in capfd.readouterr().err
    walk.report(installed="pip install")
    rows = [line.split(" | ") for line in capfd.readouterr().out.splitlines() if line.startswith("| clone")]
    assert rows[0][3] == "1.00"  # the installation, in installations
    assert len(rows) == 2


def test_every_target_of_make_without_a_file_is_declared_as_one() -> None:
    """Else a file of its name, such as a folder `docs`, would keep it from running."""
    text = (ROOT / "Makefile").read_text()
    declared = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    assert sorted(declared) == sorted(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def test_make_has_the_walk() -> None:
    command = ["make", "--dry-run", "newcomer", "PYTHON=python3"]
    # The tests themselves may run under make, whose flags and level would change the output.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "python3 benchmarks/newcomer.py\n"
