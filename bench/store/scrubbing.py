"""Removes private text from what a results folder holds besides records: logs, damaged lines, texts and predictions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core.errors import StoreError
from bench.core.files import atomic_file
from bench.core.privacy import anonymous_text, clean_file
from bench.store.leases import LEASES
from bench.store.lines import store_errors
from bench.store.record_store import DAMAGED, DISCARDED, RECORDS

# Logs of jobs on a cluster end in .out, .err and .sh.
TEXTS = frozenset({".csv", ".err", ".json", ".jsonl", ".log", ".md", ".out", ".sh", ".txt", ".yaml", ".yml"})


def scrub_files(folder: Path, *, dry_run: bool) -> list[Path]:
    """Remove secrets, home folders and host names from the files below a results folder; returns those that changed.

    These are `records.damaged`, `discarded.jsonl`, and below `logs/`, `leases/`, `submissions/` and `artifacts/` text
    files and the metadata of Parquet files; checkpoints and training states stay as they are, as do the suite and the
    records. Raises StoreError for a file that cannot be read or written.
    """
    return [file for file in _files(folder) if _scrub(file, dry_run=dry_run)]


def _files(folder: Path) -> Iterator[Path]:
    yield from (file for name in (DAMAGED, DISCARDED) if (file := folder / name).is_file())
    for name in ("logs", LEASES, "submissions", "artifacts"):
        yield from sorted(file for file in (folder / name).rglob("*") if file.is_file() and not file.is_symlink())


def _scrub(file: Path, *, dry_run: bool) -> bool:
    if file.name == RECORDS:  # of another results folder
        return False
    with store_errors(file, "read"):
        if file.suffix == ".parquet":
            return _scrub_metadata(file, dry_run=dry_run)
        if file.name != DAMAGED and file.suffix not in TEXTS:
            return False
        if dry_run:
            text = file.read_bytes().decode(errors="surrogateescape")
            return anonymous_text(text) != text
        return clean_file(file)


def _scrub_metadata(file: Path, *, dry_run: bool) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(file).metadata or {}
        clean = {key: _scrubbed(value) for key, value in metadata.items()}
        if clean == metadata or dry_run:
            return clean != metadata
        table = pq.read_table(file).replace_schema_metadata(clean)
    except pa.ArrowException as error:
        raise StoreError(f"{file} cannot be read: {error}") from None
    with atomic_file(file) as part:
        pq.write_table(table, part, compression="zstd")
    return True


def _scrubbed(value: bytes) -> bytes:
    """Metadata without identity. JSON stays as it is written if nothing in it changes."""
    text = value.decode(errors="surrogateescape")
    try:
        clean = json.dumps(_anonymous(json.loads(text)))
        changed = _anonymous(json.loads(text)) != json.loads(text)
    except (ValueError, RecursionError):
        clean, changed = anonymous_text(text), True
    return clean.encode(errors="surrogateescape") if changed else value


def _anonymous(value: Any) -> Any:
    if isinstance(value, str):
        return anonymous_text(value)
    if isinstance(value, dict):
        return {key: _anonymous(item) for key, item in value.items()}
    return [_anonymous(item) for item in value] if isinstance(value, list) else value
