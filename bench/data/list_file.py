"""Lists of videos as users and other projects write them: CSV of any separator, or "path label" separated by spaces.

Separator, header and columns are settled once per file, and a row that does not fit is refused with its line. Formats
that are read: one row per video with path and label; MMAction2's `path frames label`; PySlowFast's `path label`.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.core.errors import DatasetError
from bench.data.annotations import ListLine, read_lines
from bench.data.media import FILE_SUFFIXES, stem_of

# Names of columns by what they hold, preferred names first; compared in lower case with "_" for other characters.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "video_path", "file_path", "filepath", "clip_path", "video", "file", "filename", "file_name",
        "video_name", "clip", "clip_name", "frame_dir", "frames_path", "video_file", "video_filename", "name",
        "video_id", "clip_id", "id", "uri", "url", "relative_path", "full_path",
    ),
    "label": (
        "label", "class", "category", "action", "labels", "classes", "class_id", "label_id", "class_index", "class_idx",
        "label_idx", "category_id", "action_id", "target", "class_name", "label_name", "category_name", "action_name",
        "activity", "y", "tag", "tags", "ground_truth", "gt",
    ),
    "frames": ("frames", "num_frames", "n_frames", "nframes", "total_frames", "frame_count", "number_of_frames"),
    "split": ("split", "subset", "set", "partition", "usage", "phase"),
    "start": ("start_s", "time_start", "start_time", "start", "start_sec", "start_seconds", "t_start"),
    "end": ("end_s", "time_end", "end_time", "end", "stop", "end_sec", "end_seconds", "t_end"),
}  # fmt: skip
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
_SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space"}
_SUFFIX_INSIDE = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(FILE_SUFFIXES)))})[\"']?[\s,;]", re.IGNORECASE)
_PER_FRAME = {"frame_id", "frame_index", "start_frame", "stop_frame", "end_frame"}
_SAMPLE = 200  # rows that are looked up on disk to settle a format; more would cost a stat each


@dataclass(frozen=True, kw_only=True, slots=True)
class ListRow:
    """One video of a list. `frames`, `start_s` and `end_s` are None if the list does not give them."""

    line: ListLine
    path: str
    labels: tuple[str, ...]
    frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """The rows of a list and how it was read, as a sentence for people."""

    path: Path
    rows: tuple[ListRow, ...]
    format: str


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Rows split into fields by one separator."""

    separator: str
    lines: list[ListLine] = field(default_factory=list)


def read_video_list(path: Path, *, exists: Callable[[str], bool], is_multi_label: bool = False) -> VideoList:
    """Read the list at `path`; `exists` says whether a path of it leads to a video, which settles ambiguous formats.

    Raises DatasetError with file and line for a row that does not fit the format of the file.
    """
    lines, separator = _content(path)
    separator = separator or _separator_of(lines, exists)
    table = _Table(separator=separator, lines=[_split(line, separator) for line in lines])
    columns = _header(table, exists)
    if columns is None:
        rows = [_positional_row(line, separator=separator, is_multi_label=is_multi_label) for line in table.lines]
        header = "no header"
    else:
        names, body = table.lines[0], table.lines[1:]
        if not body:
            raise names.fail("there is no row below the header")
        rows = [_named_row(line, names, columns, is_multi_label=is_multi_label) for line in body]
        named = ", ".join(f"{role}: {names.fields[at]}" for role, at in columns.items())
        header = f"header in line {names.number} ({named})"
    has_frames = any(row.frames is not None for row in rows)
    layout = f"separated by {_SEPARATORS[separator]}, {header}{', with numbers of frames' if has_frames else ''}"
    return VideoList(path=path, rows=tuple(rows), format=layout)


def rows_of_split(videos: VideoList, split: str) -> tuple[ListRow, ...]:
    """Return the rows of `split` if the list has a column of splits, else all of them.

    Raises DatasetError for a word that names no split, and if the split has no row.
    """
    for row in videos.rows:
        if row.split is not None and _split_named(row.split) is None:
            allowed = ", ".join(word for words in _SPLITS.values() for word in words)
            raise row.line.fail(f"split {row.split!r} is unknown; allowed: {allowed}")
    found = tuple(row for row in videos.rows if row.split is None or _split_named(row.split) == split)
    if not found:
        present = ", ".join(sorted({str(row.split) for row in videos.rows}))
        raise DatasetError(f"{videos.path}: no row is of split {split}; found: {present}")
    return found


def _split_named(word: str) -> str | None:
    return next((split for split, words in _SPLITS.items() if word.lower() in words), None)


def _content(path: Path) -> tuple[list[ListLine], str | None]:
    """Return the lines below leading comments, and the separator if a first line `sep=;` (Excel) names it."""
    lines, separator = list(read_lines(path, separator=None, strip=" \r\n")), None
    if (text := lines[0].fields[0].lower()).startswith("sep=") and len(text) == 5:
        separator, lines = text[4], lines[1:]
        if separator not in _SEPARATORS:
            raise DatasetError(f"{path}:1: separator {separator!r}; allowed: tab, semicolon, comma, space")
    while len(lines) > 1 and lines[0].fields[0].startswith("#"):
        line, text = lines[0], lines[0].fields[0].lstrip("# ")
        if _roles(re.split(r"[\s,;]+", text)).keys() >= {"path", "label"}:
            lines[0] = ListLine(path=path, number=line.number, fields=(text,))
            break
        lines = lines[1:]
    if not lines:
        raise DatasetError(f"{path}:1: there is no row")
    return lines, separator


def _separator_of(lines: Sequence[ListLine], exists: Callable[[str], bool]) -> str:
    """Return the separator that gives most rows a path that exists, then most rows a path and a label at all."""
    sample = lines[:: max(1, len(lines) // _SAMPLE)]

    def quality(separator: str) -> tuple[int, int]:
        rows = []
        for line in sample:
            try:
                fields = _split(line, separator).fields
            except DatasetError:
                continue
            # A suffix followed by a separator inside a field: this separator did not split the path off.
            if len(fields) > 1 and not any(map(_SUFFIX_INSIDE.search, fields)):
                rows.append(next((each for each in fields if stem_of(each) != each), fields[0]))
        return sum(map(exists, rows)), len(rows)

    return max(_SEPARATORS, key=quality)


def _split(line: ListLine, separator: str) -> ListLine:
    """Split a line as CSV; by spaces, a path may contain spaces as long as its suffix shows where it ends."""
    text = line.fields[0]
    if separator == " " and '"' not in text:
        return ListLine(path=line.path, number=line.number, fields=_split_by_spaces(text))
    try:
        (fields,) = csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise line.fail(f"is not CSV: {error}; is there a stray quote?") from error
    return ListLine(path=line.path, number=line.number, fields=tuple(each.strip() for each in fields))


def _split_by_spaces(text: str) -> tuple[str, ...]:
    words = list(re.finditer(r"\S+", text))
    ends = [at for at, word in enumerate(words) if stem_of(word[0]) != word[0]]
    if not ends:
        return tuple(word[0] for word in words)
    last = ends[-1]
    return (text[: words[last].end()].strip(), *(word[0] for word in words[last + 1 :]))


def _header(table: _Table, exists: Callable[[str], bool]) -> dict[str, int] | None:
    """Return the columns by role if the first line names them, None if it is a row; DatasetError if it is unclear."""
    first, others = table.lines[0], table.lines[1:]
    roles, known = _roles(first.fields), {_plain(name) for name in first.fields}
    if "youtube_id" in known:
        raise first.fail("these are the columns of Kinetics (youtube_id); open the list as data set kinetics")
    if known & _PER_FRAME and "label" in roles:
        raise first.fail(f"column {', '.join(sorted(known & _PER_FRAME))} is of single frames; list one row per video")
    if {"path", "label"} <= roles.keys() and not exists(first.fields[0]):
        return roles
    is_unlike = bool(others) and stem_of(first.fields[0]) == first.fields[0]
    is_unlike = is_unlike and all(stem_of(line.fields[0]) != line.fields[0] for line in others)
    if is_unlike and not exists(first.fields[0]):
        wanted = "path" if "path" not in roles else "label"
        raise first.fail(
            f"looks like a header, {', '.join(map(repr, first.fields))}, that names no {wanted}; names of that column "
            f"that are read: {', '.join(COLUMNS[wanted][:12])}"
        )
    return None


def _roles(names: Sequence[str]) -> dict[str, int]:
    """Return the position of each column that is known, by its role."""
    plain = [_plain(name) for name in names]
    found = {
        role: next((plain.index(name) for name in known if name in plain), None) for role, known in COLUMNS.items()
    }
    return {role: at for role, at in found.items() if at is not None}


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def _positional_row(line: ListLine, *, separator: str, is_multi_label: bool) -> ListRow:
    """Read `path label`, `path frames label`, and several labels of a multi-label list."""
    path, *rest = line.fields
    frames: int | None = None
    is_folder = stem_of(path) == path
    if is_folder and separator == " " and not is_multi_label and len(rest) > 1:
        # The path of a frame folder may contain spaces: the label is the last word, a number before it the frames.
        words, rest = [path, *rest[:-1]], rest[-1:]
        if len(words) > 1 and words[-1].isdecimal():
            frames = int(words.pop())
        path = " ".join(words)
    elif is_folder and len(rest) > 1 and rest[0].isdecimal():
        frames, rest = int(rest[0]), rest[1:]
    if any(stem_of(word) != word for word in rest) and is_folder:
        raise line.fail(f"the path stands second, {rest[0]!r}; put it first, or add a header such as label,path")
    return ListRow(line=line, path=path, labels=_labels(line, rest, is_multi_label=is_multi_label), frames=frames)


def _named_row(line: ListLine, header: ListLine, columns: Mapping[str, int], *, is_multi_label: bool) -> ListRow:
    if len(line.fields) != len(header.fields):
        raise line.fail(
            f"{len(line.fields)} fields, but the header in line {header.number} has {len(header.fields)}; "
            "quote a field that contains the separator"
        )
    value = {role: line.fields[at] for role, at in columns.items()}
    frames = value.get("frames", "")
    if frames and not re.fullmatch(r"\d+(\.0*)?", frames):
        raise line.fail(f"number of frames {frames!r} is not a whole number")
    return ListRow(
        line=line,
        path=value["path"],
        labels=_labels(line, [value["label"]], is_multi_label=is_multi_label),
        frames=int(float(frames)) if frames else None,
        start_s=_seconds(line, value.get("start", "")),
        end_s=_seconds(line, value.get("end", "")),
        split=value.get("split"),
    )


def _seconds(line: ListLine, text: str) -> float | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        raise line.fail(f"time {text!r} is not a number of seconds")
    return float(text)


def _labels(line: ListLine, given: Sequence[str], *, is_multi_label: bool) -> tuple[str, ...]:
    """Return the labels as text, whole numbers without a fraction: 3.0 is how pandas writes 3 in a column with gaps."""
    parts = [part for text in given for part in _parts(text, is_multi_label=is_multi_label)]
    labels = tuple(re.sub(r"^(\d+)\.0*$", r"\1", part.strip()) for part in parts if part.strip())
    if not labels:
        raise line.fail(f"expected 'path label', found {' '.join(line.fields)!r}")
    if len(labels) > 1 and not is_multi_label:
        raise line.fail(
            f"{len(labels)} labels, {', '.join(labels)}, or a name or path that contains the separator; set the option "
            "multi_label to true for several labels, or quote the field"
        )
    fraction = next((label for label in labels if re.fullmatch(r"[+-]?\d*\.\d+", label)), None)
    if fraction is not None:
        raise line.fail(f"label {fraction!r} is not a whole number")
    return labels


def _parts(text: str, *, is_multi_label: bool) -> Iterator[str]:
    """Split a field of several numbers, and of several names if the list is multi-label."""
    if re.fullmatch(r"\[?\s*\d+(\.0*)?(\s*[\s,;|]\s*\d+(\.0*)?)+\s*\]?", text):
        yield from re.split(r"[\s,;|]+", text.strip("[] "))
    elif is_multi_label:
        yield from re.split(r"[,;|]", text)
    else:
        yield text
