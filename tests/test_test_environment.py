"""Tests pass in surroundings that are not their own: a slow machine, a checkout that cannot be written to."""

import subprocess
import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).parents[1]


def test_properties_have_all_the_time_and_leave_nothing() -> None:
    assert settings().deadline is None
    assert settings().database is None


def test_a_cache_that_cannot_be_written_fails_no_test(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ".", "-n", "0", "."]
    done = subprocess.run(
        [*command, "-o", "cache_dir=/proc/nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 passed" in done.stdout
