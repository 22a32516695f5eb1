"""Refuses to run code that a suite from elsewhere names: its plug-ins, and the modules and files of its models."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core.errors import InputError
from bench.core.model_name import runs_user_code
from bench.core.yaml_tree import Place, Tree
from bench.suite.shipped import shipped_folders

TRUST = "VBENCH_TRUST"  # environment variable: folders whose suites may run code; child processes inherit it


def check_trust(tree: Tree) -> None:
    """Raise InputError if the suite runs code and does not lie in a trusted folder, even if the suite has errors.

    Trusted are the working folder, the root of its git repository, the suites of vbench, and the folders in the
    environment variable VBENCH_TRUST. What the command line itself names is trusted.
    """
    trusted = list(_trusted_folders())
    for place, what in _code_in(tree.data):
        origin = Path(tree.position(place).file)
        if origin.is_file() and not any(origin.resolve().is_relative_to(folder) for folder in trusted):
            raise InputError(
                f"{origin} would run {what}, and it lies outside the working folder; read it, then add --trust, "
                f"or set {TRUST}={origin.resolve().parent}"
            )


def trust_folder_of(suite: Path) -> None:
    """Trust the folder of a suite in this process and its children."""
    folders = [folder for folder in os.environ.get(TRUST, "").split(os.pathsep) if folder]
    os.environ[TRUST] = os.pathsep.join(dict.fromkeys([*folders, str(suite.resolve().parent)]))


def _code_in(suite: Any) -> Iterator[tuple[Place, str]]:
    """Plug-ins and model factories in the values of a suite, which need not be valid: other versions may read it."""
    for number, plugin in enumerate(_list_of(suite, "plugins")):
        yield ("plugins", number), f"the plug-in {plugin}"
    for number, entry in enumerate(_list_of(suite, "models")):
        name = entry.get("name") if isinstance(entry, dict) else entry
        if isinstance(name, str) and runs_user_code(name):
            yield ("models", number), f"the model factory {name}"


def _list_of(suite: Any, key: str) -> list[Any]:
    found = suite.get(key) if isinstance(suite, dict) else None
    return found if isinstance(found, list) else []


def _trusted_folders() -> Iterator[Path]:
    here = Path.cwd()
    yield here
    yield from (parent for parent in here.parents if (parent / ".git").exists())
    yield from shipped_folders()
    yield from (Path(folder).expanduser().resolve() for folder in os.environ.get(TRUST, "").split(os.pathsep) if folder)
