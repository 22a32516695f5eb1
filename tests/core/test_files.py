"""Files and folders that are there whole or not at all, whatever ends their writer."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.core.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    path_hint,
    remove_abandoned,
    unfinished_paths,
    write_atomically,
    write_cache,
)


def test_a_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as unfinished:
        unfinished.write_text("half")
        assert not path.exists()
        assert unfinished_paths(path.parent) == [unfinished]
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "before ü")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a.txt") as unfinished:  # noqa: PT012
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_bytes() == "before ü".encode()
    assert len(list(tmp_path.iterdir())) == 1


def test_unfinished_files_do_not_match_patterns_of_finished_ones(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.jsonl") as unfinished:
        assert not unfinished.suffix


def test_modes_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o640, 0o750]


def test_only_leftovers_of_dead_processes_of_this_machine_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.core.files import atomic_file, atomic_folder\n"
        "with atomic_file(Path(sys.argv[1], 'x')), atomic_folder(Path(sys.argv[1], 'y')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    elsewhere = tmp_path / ".unfinished-elsewhere-1-00000000"
    elsewhere.touch()
    assert len(unfinished_paths(tmp_path)) == 3
    with atomic_file(tmp_path / "z") as own:
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {elsewhere, own}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    write_atomically(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, "z", "a.json"}, "the next one cleans up"


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


def test_an_unwritable_cache_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_cache(tmp_path / "file" / "facts.json", {})
    write_cache(Path("/dev/null/facts.json"), {})
    write_cache(tmp_path / "facts.json", {"a": 1})
    assert (tmp_path / "facts.json").read_text() == '{"a": 1}'


def test_a_misspelt_path_finds_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("results/demo", "results/quickstart", "weights"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "weights" / "c3d.pth").touch()
    assert path_hint("results/dmeo") == "; did you mean: results/demo?"
    assert path_hint("resuts/demo") == "; did you mean: results/demo?"
    assert path_hint("reslts/quikstart") == "; did you mean: results/quickstart?"
    assert path_hint(tmp_path / "weigths" / "c3d.pht") == f"; did you mean: {tmp_path}/weights/c3d.pth?"
    assert path_hint("weights/c3d.pth/inner") == ""


@pytest.mark.parametrize("path", ["", ".", "/", "weights", "x" * 300, "a\0b", "/nowhere/near/anything"])
def test_a_path_that_is_there_or_resembles_none_has_no_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").touch()
    assert path_hint(path) == ""


def test_a_folder_of_very_many_files_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip_1.mp4").touch()
    assert "clip_1.mp4" in path_hint(tmp_path / "clip_2.mp4")
    monkeypatch.setattr("bench.core.files.MOST_LISTED", 0)
    assert path_hint(tmp_path / "clip_2.mp4") == ""
