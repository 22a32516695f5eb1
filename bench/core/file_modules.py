"""Imports a Python file of the user by its path, so that `file.py:factory` works as `module:factory` does.

The file becomes a module under a name made of its path: two files of one name get different modules, and none
hides an installed package. Python's import system loads it, and so the imports of the file work as usual.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from bench.core.errors import InputError


def file_module_name(file: str) -> str:
    """Return the name of the module that a file becomes: `nets_small_py` for `nets/small.py`."""
    return re.sub(r"\W", "_", os.path.normpath(file))


def import_file(file: str) -> ModuleType:
    """Import a file, once in a process. Raises InputError if there is none; errors of its code pass through.

    Modules in the folder of the file can be imported by it; installed packages come first.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"there is no file {file}, from the working folder {Path.cwd()}")
    name = file_module_name(file)
    _FINDER.files[name] = path.resolve()
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


class _FileFinder(MetaPathFinder):
    """Finds the modules of files that `import_file` was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self.files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


_FINDER = _FileFinder()
