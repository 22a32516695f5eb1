"""Files and folders that are there whole or not at all, whatever ends their writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.files import remove_abandoned, unfinished_in, whole_file, whole_folder, write_whole


def test_a_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as unfinished:
        unfinished.write_text("half")
        assert not path.exists()
        assert unfinished_in(path.parent) == [unfinished]
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "before ü")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.txt") as unfinished:  # noqa: PT012
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_bytes() == "before ü".encode()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_unfinished_has_no_ending_by_which_others_look_for_files(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.jsonl") as unfinished:
        assert not unfinished.suffix


def test_modes_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o640, 0o750]


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.core.files import whole_file, whole_folder\n"
        "with whole_file(Path(sys.argv[1], 'x')), whole_folder(Path(sys.argv[1], 'y')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    elsewhere = tmp_path / ".unfinished-elsewhere-1-00000000"
    elsewhere.touch()
    assert len(unfinished_in(tmp_path)) == 3
    with whole_file(tmp_path / "z") as own:
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {elsewhere, own}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    write_whole(tmp_path / "a.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, "z", "a.json"}, "the next one cleans up"
