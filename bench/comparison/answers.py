"""Accuracies: two networks' answers to the same videos where both were kept, else the intervals over videos."""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from bench.comparison.judging import Finding, pending, settle
from bench.comparison.limits import Limits
from bench.comparison.outcome import Row
from bench.comparison.sides import Run
from bench.core.files import write_atomically
from bench.core.schema import Metric, digest
from bench.core.stats import Estimate

TOP = re.compile(r"accuracy\.top([1-9]\d*)")
COLUMNS = ["video", "label", "rank"]
LINES = ".csv"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """By video, its label as text and how many classes were scored above it."""

    ranks: dict[str, tuple[str, int]]


def find_networks(row: Row, limits: Limits, base: tuple[Run, Metric], head: tuple[Run, Metric]) -> Finding:
    """McNemar's test on the videos that only one of two networks gets right, else the binomial intervals of both.

    Either says whether these two networks differ, not whether a recipe that is trained anew would.
    """
    match = TOP.fullmatch(base[1].name)
    if match:
        old, new = read_answers(base[0]), read_answers(head[0])
        if old is not None and new is not None and _labels(old) == _labels(new):
            return _find_by_video(row, limits, old, new, k=int(match[1]), whose=_whose(base[0]))
    if base[1].value == head[1].value:
        return settle(row, "same", "equal")
    sides = [_estimate(metric) for _, metric in (base, head)]
    if None in sides:
        return settle(
            row, "inconclusive", "changed, but neither an interval nor per-video predictions say how sure it is"
        )
    from bench.comparison.evidence import change_of_shares

    old_share, new_share = (side for side in sides if side is not None)
    change = change_of_shares(old_share, new_share)
    return pending(row, limits, change, basis=f" by {change.how}, {_whose(base[0])}", more="videos")


def read_answers(run: Run) -> Answers | None:
    """The answers that a run kept as predictions, below its folder; None where there are none that can be read."""
    name = run.record.artifacts.get("predictions")
    if name is None or run.folder is None or ".." in Path(name).parts:
        return None
    file = run.folder / name
    if not (file.is_relative_to(run.folder) and file.is_file()):
        return None
    return _read_lines(file) if file.suffix == LINES else _read_table(file)


def keep_answers(answers: Answers, folder: Path, *, prefix: str) -> str:
    """Keep answers in `folder` as lines of text, a video each, by name: git shows which videos are answered otherwise.

    Returns the file's name: `prefix`, and a hash of what it holds, so that a file that is there never changes.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((video, *answers.ranks[video]) for video in sorted(answers.ranks))
    file = folder / f"{prefix}-{digest(lines.getvalue())}{LINES}"
    if not file.is_file():
        write_atomically(file, lines.getvalue())
    return file.name


def _read_lines(file: Path) -> Answers | None:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
            if header != COLUMNS or not rows:
                return None
            return Answers(ranks={video: (label, int(rank)) for video, label, rank in rows})
    except (OSError, ValueError, csv.Error):
        return None


def _read_table(file: Path) -> Answers | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(file, columns=COLUMNS).to_pydict()
    except (OSError, KeyError, pa.ArrowInvalid):
        return None
    if set(columns) != set(COLUMNS) or not columns["video"]:
        return None
    if not all(type(rank) is int for rank in columns["rank"]):
        return None
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    return Answers(ranks={str(video): (str(label), rank) for video, label, rank in rows})


def _find_by_video(row: Row, limits: Limits, base: Answers, head: Answers, *, k: int, whose: str) -> Finding:
    from bench.comparison.evidence import change_of_answers

    right = [(base.ranks[video][1] < k, head.ranks[video][1] < k) for video in base.ranks]
    only_base, only_head = right.count((True, False)), right.count((False, True))
    if not only_base and not only_head:
        reason = f"every one of the {len(right)} videos is answered alike, which says nothing of others"
        return settle(row, "same", reason)
    change = change_of_answers(only_base=only_base, only_head=only_head, videos=len(right))
    return pending(row, limits, change, basis=f" on {change.how}, {whose}", more="videos")


def _whose(run: Run) -> str:
    is_trained = run.record.case.point.recipe is not None
    return "one training a side, and training anew may change as much" if is_trained else "one network a side"


def _labels(answers: Answers) -> dict[str, str]:
    return {video: label for video, (label, _) in answers.ranks.items()}


def _estimate(metric: Metric) -> Estimate | None:
    """A share with its interval; None where that is undefined or has no width, which says nothing of how sure it is."""
    if metric.interval is None or metric.value is None:
        return None
    low, high = metric.interval
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    return Estimate(value=metric.value, low=low, high=high)
