"""Where vbench keeps what it could find out or make again."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.core.files import write_whole


def cache_folder() -> Path:
    """The user's cache folder of vbench; among the temporary files where the user has no home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "vbench"
    try:
        return Path.home() / ".cache" / "vbench"
    except RuntimeError:  # a number without a name, as containers are given
        return Path(tempfile.gettempdir()) / f"vbench-{os.getuid()}"


def write_cache(file: Path, value: Any) -> None:
    """Write `value` as JSON under its final name at once; a cache that cannot be written is done without."""
    with suppress(OSError):
        write_whole(file, json.dumps(value))
