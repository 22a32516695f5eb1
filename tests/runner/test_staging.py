"""Copies of a working tree for the jobs of a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.runner import staging
from bench.runner.environment import describe_environment
from bench.runner.staging import remove_staged_tree, stage_tree, staged_trees_in

LAYOUT = {
    ".gitignore": "data/\n*.pt\n__pycache__/\n",
    "suites/one.yaml": "suite: one\n",
    "src/own/net.py": "DEPTH = 3\n",
    "old.py": "",
    "data/video.mp4": "video",
    "best.pt": "weights",
    "src/own/__pycache__/net.cpython-311.pyc": "bytecode",
}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder, check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with tracked, new, deleted and ignored files, and a results folder."""
    root = tmp_path / "tree"
    for name, text in LAYOUT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root.parent, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "start")
    (root / "old.py").unlink()
    (root / "new.py").write_text("NEW = 1\n")
    (root / "results/one/logs").mkdir(parents=True)
    (root / "results/one/records.jsonl").touch()
    (root / "results/one/logs/case.log").touch()
    return root


def names(folder: Path) -> set[str]:
    """Every file and link below `folder`; links are not followed."""
    found = set()
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if Path(path, name).is_symlink()]
        found |= {str(Path(path, name).relative_to(folder)) for name in (*files, *links)}
    return found


def test_tracked_and_new_files_are_copied_and_ignored_ones_linked(tree: Path) -> None:
    stage = stage_tree(tree / "results/one/.staged", working=tree)
    copied = {".gitignore", "suites/one.yaml", "src/own/net.py", "new.py"}
    assert names(stage.folder) == copied | {"data", "best.pt"}
    assert (stage.folder / "data/video.mp4").read_text() == "video"
    assert {name for name in names(stage.folder) if (stage.folder / name).is_symlink()} == {"data", "best.pt"}
    assert (stage.files, stage.is_new) == (len(copied), True)
    assert stage.size_bytes == sum((tree / name).stat().st_size for name in copied)


def test_an_edit_after_staging_changes_no_copy_and_a_new_stage_has_it(tree: Path) -> None:
    into = tree / "results/one/.staged"
    first = stage_tree(into, working=tree)
    again = stage_tree(into, working=tree)
    assert (again.folder, again.is_new) == (first.folder, False)
    (tree / "src/own/net.py").write_text("DEPTH = 5\n")
    assert (first.folder / "src/own/net.py").read_text() == "DEPTH = 3\n"
    second = stage_tree(into, working=tree)
    assert (second.folder / "src/own/net.py").read_text() == "DEPTH = 5\n"
    assert staged_trees_in(tree / "results/one") == sorted([first.folder, second.folder])


def test_a_permission_and_a_name_belong_to_the_content(tree: Path) -> None:
    into = tree.parent / "stages"
    folders = {stage_tree(into, working=tree).folder}
    (tree / "new.py").chmod(0o755)
    folders.add(stage_tree(into, working=tree).folder)
    (tree / "new.py").rename(tree / "newer.py")
    folders.add(stage_tree(into, working=tree).folder)
    assert len(folders) == 3


def test_a_stage_is_sealed_and_can_be_removed_without_what_it_links_to(tree: Path) -> None:
    folder = stage_tree(tree.parent / "stages", working=tree).folder
    modes = {name: (folder / name).stat().st_mode & 0o222 for name in (".", "new.py", "src/own")}
    assert set(modes.values()) == {0}
    assert os.access(tree / "best.pt", os.W_OK)
    remove_staged_tree(folder)
    assert not folder.exists()
    assert (tree / "data/video.mp4").read_text() == "video"


def test_a_job_imports_the_copies_of_what_this_process_imports(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_tree(tree.parent / "stages", working=tree / "suites")
    monkeypatch.setattr(sys, "path", ["", str(tree / "src"), str(tree / "data"), "/usr/lib/python3"])
    found = stage.variables({"PYTHONPATH": f"{tree}{os.pathsep}/elsewhere", "VBENCH_DATA": "data"})
    assert found["PYTHONPATH"].split(os.pathsep) == [
        *(str(stage.folder / "src"), str(stage.folder)),
        "/elsewhere",
    ]
    assert found["VBENCH_DATA"] == str(Path.cwd() / "data")
    assert stage.place_of(tree / "suites/one.yaml").read_text() == "suite: one\n"
    with pytest.raises(InputError, match=r"--stage copies the working tree .*/tree, and /elsewhere/s\.yaml lies"):
        stage.place_of(Path("/elsewhere/s.yaml"))


def test_a_record_of_a_stage_has_the_commit_of_the_tree_and_the_name_of_the_copy(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is in a folder that git does not track, so git itself knows no commit there."""
    stage = stage_tree(tree / "results/one/.staged", working=tree)
    variables = stage.variables({})
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tree, text=True).strip()
    git(tree, "commit", "-qam", "later")
    monkeypatch.chdir(stage.folder / "suites")
    assert describe_environment().state["commit"] is None
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    state = describe_environment(model_file=str(stage.folder / "src/own/net.py")).state
    assert (state["commit"], state["is_dirty"]) == (head, True)
    assert (state["model_commit"], state["model_is_dirty"]) == (head, True)
    assert str(state["committed_at"]).startswith("20")
    assert state["staged_tree"] == stage.folder.name
    assert describe_environment(model_file=str(tree / "new.py")).state["model_is_dirty"] is False


def test_a_tree_that_holds_data_is_refused_with_its_largest_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "LARGEST_BYTES", 1000)
    (tree / "big.bin").write_bytes(bytes(1001))
    with pytest.raises(InputError, match=r"more than 1.000 B; the largest file is big\.bin\. Ignore"):
        stage_tree(tree.parent / "stages", working=tree)
    assert not (tree.parent / "stages").exists()


def test_an_edit_while_the_tree_is_copied_is_an_error_and_leaves_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_tree(root: Path, copy: Path, *, files: list[str], links: list[str]) -> None:
        (root / "new.py").write_text("NEW = 2\n")
        copy_all(root, copy, files=files, links=links)

    copy_all = staging._copy_tree
    monkeypatch.setattr(staging, "_copy_tree", copy_tree)
    with pytest.raises(InputError, match="changed while it was copied; run the command again"):
        stage_tree(tree.parent / "stages", working=tree)
    assert list((tree.parent / "stages").iterdir()) == []


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--stage copies the files that git knows, but .* is in no git repository"):
        stage_tree(tmp_path / "stages", working=tmp_path)
