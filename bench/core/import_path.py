"""Lets this process and its children import this vbench, even if the working folder has a package `bench` too."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

OWN = str(Path(__file__).resolve().parents[2])  # the folder that holds this vbench


def add_working_folder() -> None:
    """Put the working folder first on the import path, as `python -m` does, so that the user's modules are found.

    If it holds another package `bench`, this vbench goes before it, here and in child processes.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    if finds_another_bench(sys.path):
        sys.path.insert(0, OWN)
        os.environ.update(child_environment(os.environ))


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a child `python -m bench.…`, which must import the code of its parent."""
    given = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if not finds_another_bench(["", *given, *sys.path]):
        return dict(environment)
    paths = os.pathsep.join(dict.fromkeys([OWN, *given]))
    return {**environment, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}  # safe path: no working folder before these


def environment_with_import_path() -> dict[str, str]:
    """The environment of a child that must find every module that this process can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}


def finds_another_bench(entries: Sequence[str]) -> bool:
    """Whether an import path with these entries finds another package `bench` than this one."""
    found = PathFinder.find_spec("bench", list(entries))
    places = [] if found is None else list(found.submodule_search_locations or [found.origin or ""])
    return bool(places) and Path(places[0]).resolve() != Path(OWN, "bench")
