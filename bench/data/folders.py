"""Which folders hold the videos of a data set, so that an index of them can be made before anything is read."""

import os
from pathlib import Path
from typing import Any

from bench.core.errors import DatasetError
from bench.core.registry import DATASETS
from bench.data.collection import open_dataset, root_of
from bench.data.options import OF_EVERY_DATASET, checked_options


def folders_of_dataset(name: str, *, root: str | Path | None = None, **options: Any) -> tuple[Path, ...]:
    """The folder of data set `name`, and that of its option `videos` where it lies elsewhere.

    A data set that vbench writes itself is written. DatasetError with the expected tree where the folder is missing.
    """
    entry = DATASETS.get(name)
    checked = checked_options(entry, {name: value for name, value in options.items() if name not in OF_EVERY_DATASET})
    folder = root_of(entry, root)
    if folder is None or not folder.is_dir():
        folder = open_dataset(name, root=folder, split=entry.splits[0], **options).root
    if folder is None:
        raise DatasetError(f"data set {name}: has no folder of its own, so there is nothing to index")
    given = checked.get("videos")
    if given is None:
        return (folder,)
    if not (folder / given).is_dir():
        raise DatasetError(f"{folder / given}: is not a folder; it was given as the folder of the videos")
    return (folder,) if _is_inside(folder / given, folder) else (folder, folder / given)


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # as written: links are followed anyway
