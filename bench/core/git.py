"""Runs git so that it answers for the repository of its folder, also inside a hook or `git rebase --exec`."""

import os
import re
from pathlib import Path

from bench.core.errors import nearest
from bench.core.process import ChildTimeoutError, Finished, run_supervised

TIMEOUT_S = 120.0
MOST_BYTES = 1 << 30  # of one answer: a file of records may be large

# The list of `git rev-parse --local-env-vars` without GIT_CONFIG_COUNT and the like, as git does for submodules.
REPOSITORY_VARIABLES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)


def git_environment() -> dict[str, str]:
    """The environment variables for git, without those that name another repository than that of its folder."""
    return {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}


def run_git(*arguments: str, folder: Path | None = None, stdin: str = "", timeout_s: float = TIMEOUT_S) -> Finished:
    """Run git in `folder`, without hooks, and return its exit code and output.

    Raises FileNotFoundError if git is not installed, TimeoutError if it does not answer in time; both are OSErrors.
    """
    # Without optional locks: a killed `git status` would leave index.lock, which blocks the user.
    command = ["git", "--no-optional-locks", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        return run_supervised(
            command,
            timeout_s=timeout_s,
            stdin=stdin.encode(),
            environment=git_environment(),
            cwd=folder,
            limit_bytes=MOST_BYTES,
        )
    except ChildTimeoutError:
        raise TimeoutError(f"git {arguments[0]} did not end within {timeout_s:g} s") from None


def commit_hint(ref: str, *, folder: Path | None = None) -> str:
    """Return what to add to the error that git does not know `ref`: similar names, or that the clone is shallow."""
    if run_git("rev-parse", "--is-shallow-repository", folder=folder).stdout.strip() == "true":  # as CI clones
        return ", because git has only the newest commits; fetch them all (actions/checkout: fetch-depth: 0)"
    known = run_git("for-each-ref", "--format=%(refname:short)", folder=folder).stdout.split()
    near = nearest(re.split(r"[~^@]", ref)[0], known)
    return f"; {near}" if near else ""
