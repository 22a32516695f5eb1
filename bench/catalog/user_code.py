"""Which modules of the user's own code a model is built from, and hashes of code that ignore comments.

The user's code is every module outside of the standard library, the installed packages and vbench itself. A change of
those is a change of the environment, or of a measure's version.
"""

import ast
import builtins
import hashlib
import importlib
import io
import sys
import sysconfig
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import bench

PACKAGE = Path(bench.__file__).resolve().parent
FILE = "file:"  # marks a node of the import graph that is a file without a module name


def code_hash(file: Path) -> str:
    """Return 16 hex digits of a Python file without its comments and docstrings; of other files, of their bytes."""
    state = file.stat()
    return _code_hash(file, state.st_mtime_ns, state.st_ctime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _code_hash(file: Path, *state: int) -> str:
    content = file.read_bytes()
    if file.suffix == ".py":
        # A file that cannot be parsed is identified by its bytes.
        with suppress(SyntaxError, ValueError, tokenize.TokenError):
            content = code_without_comments(content.decode("utf-8")).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def code_without_comments(source: str) -> str:
    """Return `source` without comments, docstrings, blank lines and spaces at line ends.

    Text is cut out instead of unparsed, so that the result does not depend on the version of Python.
    """
    lines = [bytearray(line, "utf-8") for line in source.split("\n")]
    for row, start, end in (*_docstrings(source, lines), *_comments(source)):
        lines[row][start:end] = b" " * (min(end, len(lines[row])) - start)
    return "\n".join(text for line in lines if (text := line.decode("utf-8").rstrip()))


def _docstrings(source: str, lines: Sequence[bytearray]) -> Iterator[tuple[int, int, int]]:
    """Yield row, first and past-the-last byte of every line of every docstring."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
            continue
        if isinstance(first.value.value, str) and first.end_lineno and first.end_col_offset:
            for row in range(first.lineno - 1, first.end_lineno):
                start = first.col_offset if row == first.lineno - 1 else 0
                yield row, start, first.end_col_offset if row == first.end_lineno - 1 else len(lines[row])


def _comments(source: str) -> Iterator[tuple[int, int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            start = len(token.line[: token.start[1]].encode())
            yield token.start[0] - 1, start, start + len(token.string.encode())


@lru_cache(maxsize=16384)
def is_user_file(file: str | None) -> bool:
    """Whether a file is neither of vbench nor of the standard library nor of an installed package."""
    if file is None or file.startswith("<"):
        return False
    path = Path(file).resolve()
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _foreign_folders())


def is_user_module(name: str) -> bool:
    """Whether a loaded module is the user's code."""
    return is_user_file(getattr(sys.modules.get(name), "__file__", None))


@lru_cache(maxsize=1)
def _foreign_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [Path(path) for name in names if (path := sysconfig.get_paths().get(name))]
    installed = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return (PACKAGE, *dict.fromkeys(folder.resolve() for folder in (*found, *installed)))


def user_modules() -> dict[str, str]:
    """Return the hash of every module of the user's code that this process has loaded, by name."""
    return hashes_of(list(sys.modules))


def hashes_of(names: Iterable[str]) -> dict[str, str]:
    """Return the hash of each of these modules, or files after `file:`, that is the user's code; sorted by name."""
    found = {}
    for name in sorted(set(names)):
        module = sys.modules.get(name)
        file = name.removeprefix(FILE) if name.startswith(FILE) else getattr(module, "__file__", None)
        if is_user_file(file):
            found[Path(str(file)).name if name.startswith(FILE) else name] = code_hash(Path(str(file)))
    return found


def package_modules(function: Any) -> dict[str, str]:
    """Return the hashes of the user's modules in the package that defines `function`; empty if it is not the user's."""
    own = getattr(function, "__module__", "") or ""
    if not is_user_module(own):
        return {}
    top = own.partition(".")[0]
    return hashes_of(name for name in list(sys.modules) if name.partition(".")[0] == top)


class Build:
    """What one build imported: `modules` is the hash of each module of the user's code, by name."""

    modules: dict[str, str]

    def __init__(self) -> None:
        self.modules = {}


class ImportTracker:
    """Follows import statements, also of modules that are loaded already, so that builds can be distinguished.

    `sys.modules` alone would give a model the modules that another one has loaded before in the same process. Imports
    made while a module executes belong to that module; those made inside a function belong to the current build.
    """

    def __init__(self) -> None:
        self._graph: dict[str, set[str]] = defaultdict(set)
        self._build: set[str] | None = None
        self._plain_import, self._plain_import_module = builtins.__import__, importlib.import_module
        builtins.__import__ = self._import
        importlib.import_module = self._import_module
        # Files that are executed by their path have no import statement.
        sys.addaudithook(self._on_event)

    @contextmanager
    def build(self, *modules: str) -> Iterator[Build]:
        """Collect the modules that are imported inside the context; those of `modules` are included from the start."""
        self._build = set(modules)
        build = Build()
        try:
            yield build
        finally:
            build.modules = hashes_of(self._reached(self._build))
            self._build = None

    def _reached(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._graph.get(name, ())
        return found

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  # the names of `builtins.__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        module = self._plain_import(name, globals, locals, fromlist or (), level)
        importer = str((globals or {}).get("__name__", ""))
        package = str((globals or {}).get("__package__") or importer.rpartition(".")[0])
        full = resolve_name("." * level + name, package) if level else name
        self._note(importer, [full, *(f"{full}.{item}" for item in fromlist or () if f"{full}.{item}" in sys.modules)])
        return module

    def _import_module(self, name: str, package: str | None = None) -> Any:
        module = self._plain_import_module(name, package)
        importer = str(sys._getframe(1).f_globals.get("__name__", ""))
        self._note(importer, [resolve_name(name, package) if name.startswith(".") and package else name])
        return module

    def _note(self, importer: str, names: Iterable[str]) -> None:
        specification = getattr(sys.modules.get(importer), "__spec__", None)
        is_executing = bool(getattr(specification, "_initializing", False))
        target = self._graph[importer] if is_executing else self._build
        if target is not None:
            for name in names:  # `import a.b.c` loads a, a.b and a.b.c
                parts = name.split(".")
                target.update(".".join(parts[: length + 1]) for length in range(len(parts)))

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "exec" or self._build is None or not isinstance(arguments[0], CodeType):
            return
        code = arguments[0]
        if code.co_name != "<module>" or not is_user_file(code.co_filename):
            return
        specifications = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
        if any(getattr(each, "origin", None) == code.co_filename for each in specifications):
            return  # a module, which its import statement reports
        executing = _executing_module()
        target = self._graph[executing] if executing else self._build
        target.add(f"{FILE}{Path(code.co_filename).resolve()}")


def _executing_module() -> str:
    """Return the name of the user's module whose body is being executed; empty if there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and is_user_file(frame.f_code.co_filename):
            return str(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return ""
