"""The cache folder is there for every user, and nothing fails for want of it."""

import os
import tempfile
from pathlib import Path

import pytest

from bench.core.cache import cache_folder, write_cache


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "vbench"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/vbench")


def test_a_user_without_a_home_has_one_among_the_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a number that no list of users knows."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert cache_folder() == Path(tempfile.gettempdir(), f"vbench-{os.getuid()}")


def test_what_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_cache(tmp_path / "file" / "facts.json", {})
    write_cache(Path("/dev/null/facts.json"), {})
    write_cache(tmp_path / "facts.json", {"a": 1})
    assert (tmp_path / "facts.json").read_text() == '{"a": 1}'
