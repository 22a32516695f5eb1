"""Hashes of vbench's own sources, which decide whether an answer about a model is still right."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import bench
from bench.catalog.user_code import code_hash
from bench.core.schema import digest

PACKAGE = Path(bench.__file__).resolve().parent
_MODEL_IMPORT = re.compile(r"^\s*from bench\.models\.(\w+) import", re.MULTILINE)


def model_source(module_file: str | None) -> str:
    """Return a hash of the code that defines a model: its file and the model files of vbench that it imports.

    Comments and docstrings do not count, so that rewording them repeats no measurement.
    """
    return _source_hash(module_file, code_hash)


def former_model_source(module_file: str | None) -> str:
    """Return the hash of the same files by the rule of records without a fingerprint, which also hashed comments."""
    return _source_hash(module_file, bytes_hash)


def sources_under(paths: Iterable[str]) -> list[Path]:
    """Return the Python and CSV files at and below these paths of the package, sorted within each."""
    found: list[Path] = []
    for path in map(PACKAGE.joinpath, paths):
        found += sorted(f for f in path.rglob("*") if f.suffix in (".py", ".csv")) if path.is_dir() else [path]
    return found


def bytes_hash(file: Path) -> str:
    """Return 16 hex digits of the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _source_hash(module_file: str | None, hash_of: Callable[[Path], str]) -> str:
    if module_file is None or not Path(module_file).is_file():
        return ""
    seen: dict[str, str] = {}
    waiting = [Path(module_file)]
    while waiting:
        file = waiting.pop()
        if file.name in seen or not file.is_file():
            continue
        seen[file.name] = hash_of(file)
        names = _MODEL_IMPORT.findall(file.read_text(encoding="utf-8"))
        waiting += [PACKAGE / "models" / f"{name}.py" for name in names]
    return digest(sorted(seen.items()))
