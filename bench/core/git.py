"""Which repository git answers for: that of the folder it is asked in, also inside of a hook or `git rebase --exec`."""

import os

# Those of `git rev-parse --local-env-vars`, but for what `git -c` and GIT_CONFIG_COUNT set, as git does for submodules.
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
    """The environment for git and other processes, without what names a repository in the place of their folder's."""
    return {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
