"""Per-video predictions of a run: read from its artifacts, and kept as text next to a baseline."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from bench.comparison.runs import Run
from bench.core.files import write_atomically
from bench.core.input_change import UNCHANGED
from bench.core.schema import digest

COLUMNS = ["video", "label", "rank"]
TEXT_SUFFIX = ".csv"


@dataclass(frozen=True, kw_only=True)
class LabelRanks:
    """By video: the label as text, and how many classes had a higher score than the label."""

    ranks: dict[str, tuple[str, int]]

    @property
    def labels(self) -> dict[str, str]:
        return {video: label for video, (label, _) in self.ranks.items()}


def read_ranks(run: Run, *, change: str = UNCHANGED) -> LabelRanks | None:
    """Return the predictions that a run kept below its folder, those for one change of the input.

    None if there are none or they cannot be read.
    """
    name = run.record.artifacts.get("predictions")
    if name is None or run.folder is None or ".." in Path(name).parts:
        return None
    file = run.folder / name
    # A record is untrusted input: its artifact must not name a file elsewhere.
    if not (file.is_relative_to(run.folder) and file.is_file()):
        return None
    if file.suffix == TEXT_SUFFIX:  # next to a baseline only those for the unchanged input are kept
        return _read_text(file) if change == UNCHANGED else None
    return _read_parquet(file, change=change)


def write_ranks(ranks: LabelRanks, folder: Path, *, prefix: str) -> str:
    """Write one line per video, sorted by name, so that `git diff` shows which predictions changed.

    Returns the file's name: `prefix` and a hash of the content, so that an existing file never changes.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((video, *ranks.ranks[video]) for video in sorted(ranks.ranks))
    file = folder / f"{prefix}-{digest(lines.getvalue())}{TEXT_SUFFIX}"
    if not file.is_file():
        write_atomically(file, lines.getvalue())
    return file.name


def _read_text(file: Path) -> LabelRanks | None:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
            if header != COLUMNS or not rows:
                return None
            return LabelRanks(ranks={video: (label, int(rank)) for video, label, rank in rows})
    except (OSError, ValueError, csv.Error):
        return None


def _read_parquet(file: Path, *, change: str) -> LabelRanks | None:
    import pyarrow as pa  # late: most comparisons read no predictions
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, columns=[*COLUMNS, *{"change"}.intersection(pq.read_schema(file).names)])
        names = table["change"].to_pylist() if "change" in table.column_names else [UNCHANGED] * len(table)
        columns = table.select(COLUMNS).filter(pa.array([name == change for name in names])).to_pydict()
    except (OSError, KeyError, pa.ArrowInvalid):
        return None
    if set(columns) != set(COLUMNS) or not columns["video"]:
        return None
    if not all(type(rank) is int for rank in columns["rank"]):
        return None
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    return LabelRanks(ranks={str(video): (str(label), rank) for video, label, rank in rows})
