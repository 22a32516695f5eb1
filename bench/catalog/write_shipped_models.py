"""Writes `shipped_models.json`: `make catalog`, after a change of models or of how they are counted."""

import json
import os
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from bench.catalog.catalog import Catalog, count_key
from bench.catalog.shipped_models import FILE, hashes_of, hashes_of_counting, model_files
from bench.core.files import write_atomically
from bench.core.schema import ModelCheck, ModelInfo, Point


def main() -> None:
    """Count every registered model whose code has changed at its default clip, or with `--all` every one."""
    if "--all" in sys.argv[1:]:
        FILE.unlink(missing_ok=True)
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # what the user's cache holds may be of other code
        catalog = Catalog()
        models = [model for _, model in sorted(catalog.models.items())]
        points = [Point(model=model.name, clip=model.clip) for model in models]
        counts = catalog.check_models(points)
    write_shipped(list(zip(models, map(count_key, points), counts, strict=True)))


def write_shipped(rows: Sequence[tuple[ModelInfo, str, ModelCheck]]) -> None:
    """Write the file from every model's facts, the key of its count, and the count."""
    files = {stem: [of() for of in hashes_of(path)] for stem, path in model_files().items()}
    stems = {hashes[0]: stem for stem, hashes in files.items()}
    lines = {
        "files": files,
        "counting": [of() for of in hashes_of_counting()],
        "models": [info.model_dump(mode="json") for info, _, _ in rows],
        "counts": [
            [stems[info.former_source], key, check.model_dump(mode="json", exclude_defaults=True)]
            for info, key, check in rows
        ],
    }
    # One entry a line, so that a difference between two versions can be read.
    parts = [f'"{name}": {_one_a_line(value)}' for name, value in lines.items()]
    write_atomically(FILE, "{\n" + ",\n".join(parts) + "\n}\n")


def _one_a_line(value: Any) -> str:
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
    return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n]"


if __name__ == "__main__":
    main()
