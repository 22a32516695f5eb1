"""Runs git so that it answers for the repository of its folder, also inside a hook or `git rebase --exec`."""

import os

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
