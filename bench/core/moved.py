"""Import paths and names of earlier versions, kept for one release with a DeprecationWarning.

`bench/__init__.py` adds `MovedModules` behind Python's own finders, so a name that exists is never looked up here.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Printed by CONTRIBUTING.md before 0.1.0, and so used by plug-ins. Remove with 0.2.0.
MOVED = {
    "bench.errors": "bench.core.errors",
    "bench.execution": "bench.runner",
    "bench.execution.environment": "bench.runner.environment",
    "bench.measure.axes": "bench.measure.axis_sets",
    "bench.measure.loaded": "bench.measure.context",
    "bench.registry": "bench.core.registry",
    "bench.schema": "bench.core.schema",
}


# Old name → new name, in modules that moved.
RENAMED = {"bench.measure.loaded": {"LoadedCase": "CaseContext"}}


class MovedModules(MetaPathFinder):
    """Finds a module under its old name and returns the one at its new name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, _Alias(MOVED[fullname]))


class _Alias(Loader):
    def __init__(self, new_name: str) -> None:
        self._new_name = new_name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is now {self._new_name}", DeprecationWarning, stacklevel=2)
        # A module of its own, so that the import system does not overwrite the `__spec__` of the real one.
        return _module_like(spec.name, import_module(self._new_name))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the names are there already."""


def _module_like(name: str, original: ModuleType) -> ModuleType:
    alias = ModuleType(name, original.__doc__)
    names = {key: value for key, value in vars(original).items() if not key.startswith("__")}
    renamed = {old: names[new] for old, new in RENAMED.get(name, {}).items() if new in names}
    alias.__dict__.update({**names, **renamed})
    if hasattr(original, "__path__"):
        alias.__path__ = []  # a package whose modules are found through MOVED alone
    return alias


def install() -> None:
    """Let old import paths work in this process."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
