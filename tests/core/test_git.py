"""Git answers for the folder that it is asked in, whatever repository a hook names; and so for tests."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.ab.sides import Side, SideSetup, read_side, side_setup
from bench.comparison.baselines import current_branch
from bench.comparison.history import _places
from bench.comparison.runs import open_side
from bench.core.errors import InputError, SetUpError
from bench.core.git import REPOSITORY_VARIABLES, commit_hint, git_environment, run_git
from bench.core.yaml_tree import Tree
from bench.runner.environment import describe_environment


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(
        command, cwd=folder, env=git_environment(), check=True, capture_output=True, text=True
    ).stdout.strip()


def make_repository(folder: Path) -> str:
    """A repository with one commit, on a branch of the folder's name; gives the commit."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", folder.name)
    (folder / f"of_{folder.name}.py").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", folder.name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of the repository `own`, in which the user stands, while the variables of a hook name `other`."""
    found = make_repository(tmp_path / "own")
    make_repository(tmp_path / "other")
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / ".git" / "index"))
    return found


def test_repository_variables_are_those_of_git_without_settings() -> None:
    asked = subprocess.run(["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True)
    told = set(asked.stdout.split())
    assert REPOSITORY_VARIABLES - told <= {"GIT_INTERNAL_SUPER_PREFIX"}, "which git no longer has since 2.40"
    assert told - REPOSITORY_VARIABLES >= {"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}


def test_facts_of_the_code_are_those_of_the_folder(commit: str) -> None:
    state = describe_environment().state
    assert (state["commit"], state["is_dirty"]) == (commit, False)


def test_a_side_of_ab_is_measured_in_a_worktree_of_the_folders_repository(commit: str, tmp_path: Path) -> None:
    with side_setup(read_side("own")) as place:
        assert (place.folder / "of_own.py").is_file()
        assert "vbench-ab-" not in git(tmp_path / "other", "worktree", "list")
    with pytest.raises(InputError, match="no commit, branch or tag 'other'"):
        read_side("other")


def test_a_side_and_its_children_do_not_see_another_repository(commit: str, tmp_path: Path) -> None:
    """It may be a commit from before vbench itself saw to that."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {tmp_path}/told\n")
    python.chmod(0o755)
    place = SideSetup(title="x", folder=Path(), python=str(python))
    with pytest.raises(SetUpError, match="without a message"):
        Side("base", place, Tree.of({}, name="s.yaml"), path=Path("s.yaml"), out=tmp_path / "x").wait_for_plan()
    assert not [line for line in (tmp_path / "told").read_text().splitlines() if line.startswith("GIT_DIR=")]


def test_results_branches_and_orders_are_of_the_folders_repository(commit: str) -> None:
    assert current_branch() == "own"
    assert _places([commit], Path()) == {commit: 0}
    with pytest.raises(InputError, match="no such commit"), open_side("git:other"):
        pass
    with pytest.raises(InputError, match=r"no records\.jsonl"), open_side("git:own"):
        pass


def test_tests_see_neither_a_repository_nor_user_settings() -> None:
    given = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
    assert given == {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    listed = subprocess.run(["git", "config", "--list", "--show-scope"], check=True, capture_output=True, text=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} <= {"local"}


def test_asking_for_the_status_never_locks_or_writes_the_index(commit: str, tmp_path: Path) -> None:
    index = tmp_path / "own" / ".git" / "index"
    os.utime(tmp_path / "own" / "of_own.py", (1, 1))  # git would write the new time into its index
    before = index.read_bytes()
    assert run_git("status", "--porcelain", folder=tmp_path / "own").stdout == ""
    assert index.read_bytes() == before


def test_an_unknown_branch_is_named_with_the_nearest_one(commit: str, tmp_path: Path) -> None:
    git(tmp_path / "own", "tag", "v1.0")
    assert commit_hint("onw~3") == "; did you mean: own?"
    assert commit_hint("v1.1") == "; did you mean: v1.0?"
    assert commit_hint("elsewhere") == ""
    with pytest.raises(InputError, match=r"no commit, branch or tag 'onw' here; did you mean: own\?; allowed too"):
        read_side("onw")
    with (
        pytest.raises(InputError, match=r"git:onw: no such commit, branch or tag here; did you mean: own\?"),
        open_side("git:onw"),
    ):
        pass
