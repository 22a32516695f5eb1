"""Suites and recipes that come with vbench: next to the package in a checkout, inside it in a wheel."""

from pathlib import Path

import bench
from bench.core.errors import InputError, suggest
from bench.core.files import path_hint

ENDING = ".yaml"


def shipped_folders() -> tuple[Path, ...]:
    """Return the folders of vbench's own suites that exist."""
    package = Path(bench.__file__).parent
    return tuple(folder for folder in (package.parent / "suites", package / "suites") if folder.is_dir())


def shipped_suites() -> dict[str, Path]:
    """Return vbench's own suites by name, sorted."""
    files = {file.stem: file for folder in reversed(shipped_folders()) for file in folder.glob(f"*{ENDING}")}
    return dict(sorted(files.items()))


def shipped_recipes() -> dict[str, Path]:
    """Return vbench's own recipes by name, sorted."""
    folders = [folder / "recipes" for folder in reversed(shipped_folders())]
    return dict(sorted((file.stem, file) for folder in folders for file in folder.glob(f"*{ENDING}")))


def suite_path(suite: str | Path) -> Path:
    """Return the file of a suite: `suite` itself if it is a file, else vbench's own suite of that name.

    Raises InputError for a name that is neither, with the nearest spelling.
    """
    path, shipped = Path(suite), shipped_suites()
    if path.is_file() or (path.suffix and path.exists()):
        return path
    if path.name in shipped and len(path.parts) == 1:
        return shipped[path.name]
    hint = path_hint(path) or f"; {suggest(path.stem, shipped)}"
    if path.stem in shipped:  # of a checkout's path, such as suites/demo.yaml, only the name is known elsewhere
        hint = f"; did you mean vbench's own suite: {path.stem}?"
    raise InputError(f"{path} is neither a file nor a suite of vbench{hint}")


def recipe_folders(suite: Path) -> tuple[Path, ...]:
    """Return the folders that are searched for recipes: the one next to the suite, then those of vbench."""
    folders = (suite.parent / "recipes", *(folder / "recipes" for folder in shipped_folders()))
    return tuple(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))
