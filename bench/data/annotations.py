"""Read annotation files of others. Every error names file and line.

Byte-order marks, CRLF line ends and blank lines are fine. Wrong encodings, missing columns, unknown labels, ids that
occur twice and paths that lead out of their folder are errors.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bench.core.errors import DatasetError, suggest

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_MOST_DIGITS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ListLine:
    """The fields of one line, with its file and number."""

    path: Path
    number: int
    fields: tuple[str, ...]

    def fail(self, message: str) -> DatasetError:
        """Return the error to raise: `file:line: message`."""
        return DatasetError(f"{self.path}:{self.number}: {message}")


class FileLocation(Protocol):
    """A place in a file that an error can point to."""

    @property
    def number(self) -> int: ...

    def fail(self, message: str) -> DatasetError: ...


class Labels:
    """Class names and their positions; a label is looked up by name, or by number counted from `first`.

    Raises DatasetError if two classes have the same name.
    """

    def __init__(self, names: Sequence[str], *, first: int = 0) -> None:
        self.names = tuple(names)
        self._position = {name: position for position, name in enumerate(names)}
        if len(self._position) < len(self.names):
            twice, _ = Counter(self.names).most_common(1)[0]
            raise DatasetError(f"class {twice!r} has two numbers, the first is {first + names.index(twice)}")
        self._first = first

    def __getitem__(self, label: str) -> int:
        return self._position[label]

    def position(self, label: str, *, at: "FileLocation") -> int:
        """Return the position of the class `label`; DatasetError with the nearest spellings if there is none."""
        if label in self._position:
            return self._position[label]
        raise at.fail(f"unknown label {label!r}; {suggest(label, self.names)}")

    def numbered(self, number: str, *, at: "FileLocation") -> int:
        """Return the position of the class with this number; DatasetError if it is no number, or of no class."""
        try:
            position = int(number) - self._first
        except ValueError:
            raise at.fail(f"label {number!r} is not a number") from None
        if not 0 <= position < len(self.names):
            raise at.fail(f"label {number} is not from {self._first} to {self._first + len(self.names) - 1}")
        return position


def read_lines(path: Path, *, separator: str | None, strip: str | None = None) -> Iterator[ListLine]:
    """Yield lines that are not blank, split at `separator` as CSV; None leaves a line whole, without `strip` around it.

    Raises DatasetError for a file without a line, and with the line for an open quote and text that is not UTF-8.
    """
    is_empty = True
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for line in _texts(path, file, strip) if separator is None else _records(path, file, separator):
                is_empty = False
                yield line
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    if is_empty:
        raise DatasetError(f"{path}:1: is empty")


def _texts(path: Path, file: Iterable[str], strip: str | None) -> Iterator[ListLine]:
    for number, text in enumerate(file, start=1):
        if text.strip():
            yield ListLine(path=path, number=number, fields=(text.strip(strip),))


def _records(path: Path, file: Iterable[str], separator: str) -> Iterator[ListLine]:
    """Yield each line as one record; a field that continues in the next line began with a stray quote."""
    reader, before = csv.reader(file, delimiter=separator, strict=True), 0
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DatasetError(f"{path}:{before + 1}: is not CSV: {error}; is there a stray quote?") from error
        if fields is None:
            return
        if reader.line_num > before + 1:
            raise DatasetError(
                f"{path}:{before + 1}: a quote is opened here and closed in line {reader.line_num}; a row is one line"
            )
        before += 1
        if any(field.strip() for field in fields):
            yield ListLine(path=path, number=before, fields=tuple(field.strip() for field in fields))


def _not_utf8(path: Path) -> DatasetError:
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return DatasetError(f"{path}:{line}: is not UTF-8 text: {error.reason}")
    return DatasetError(f"{path}: is not UTF-8 text")


def read_table(
    path: Path, *, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[ListLine, dict[str, str]]]:
    """Yield the rows of a CSV file with a header, each with its `columns` and those of `optional` that exist."""
    lines = read_lines(path, separator=",")
    header = next(lines)
    place = {name.lower(): at for at, name in enumerate(header.fields)}
    missing = [column for column in columns if column not in place]
    if missing:
        raise header.fail(f"no column {', '.join(missing)}; found {', '.join(header.fields)}")
    taken = {name: place[name] for name in (*columns, *optional) if name in place}
    line = header
    for line in lines:
        if len(line.fields) <= max(taken.values()):
            raise line.fail(f"{len(line.fields)} columns, but the header has {len(header.fields)}")
        yield line, {name: line.fields[at] for name, at in taken.items()}
    if line is header:
        raise header.fail("there is no row below the names of the columns")


class JsonFile:
    """A JSON file that knows the lines of its keys.

    Raises DatasetError with the line for what is not JSON, and for a key that occurs twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8-sig")
            self.value: Any = json.loads(
                self._text, object_pairs_hook=self._unique, parse_constant=self._no_number, parse_int=self._whole
            )
            if _HALF_CHARACTER.search(self._text):
                json.dumps(self.value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            line = self._text.count("\n", 0, max(0, self._text.lower().find(half))) + 1
            raise DatasetError(f"{path}:{line}: {half} is half of a surrogate pair, not text") from error
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from error
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except RecursionError as error:
            raise DatasetError(f"{path}: is not JSON text: {error}") from error
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error

    def at(self, key: str) -> "JsonLocation":
        """Return the first place of `key`, for a message."""
        return JsonLocation(self, key)

    def line_of(self, key: str) -> int:
        """Return the line of the first `key`; 1 if there is none."""
        place = max(0, self._text.find(json.dumps(key, ensure_ascii=False)))
        return self._text.count("\n", 0, place) + 1

    def mapping(self, value: Any, *, what: str, key: str) -> Mapping[str, Any]:
        """Return `value` if it is a JSON object; DatasetError naming `what` if not."""
        if not isinstance(value, dict):
            raise self.at(key).fail(f"{what} is {json.dumps(value)[:40]}, not an object")
        return value

    def _no_number(self, text: str) -> float:
        """Refuse NaN and Infinity, which Python's reader accepts although JSON does not have them."""
        raise self._fail_at(text, f"{text} is not a JSON number")

    def _whole(self, text: str) -> int:
        if len(text) > _MOST_DIGITS:
            raise self._fail_at(text, f"{text[:_MOST_DIGITS]}… is too long for a number")
        return int(text)

    def _fail_at(self, text: str, message: str) -> DatasetError:
        line = self._text.count("\n", 0, max(0, self._text.find(text))) + 1
        return DatasetError(f"{self.path}:{line}: {message}")

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, times in counts.items() if times > 1)
            raise self.at(twice).fail(f"{twice!r} occurs twice")
        return made


@dataclass(frozen=True, slots=True)
class JsonLocation:
    """A key of a JSON file. Its line is searched only if an error needs it, because the search is slow."""

    file: JsonFile
    key: str

    @property
    def number(self) -> int:
        return self.file.line_of(self.key)

    def fail(self, message: str) -> DatasetError:
        """Return the error to raise: `file:line: message`."""
        return DatasetError(f"{self.file.path}:{self.number}: {message}")


def name_for_split(name: str, split: str) -> str:
    """Return the name of an annotation with `{split}` replaced by the split."""
    return name.replace("{split}", split)


def first_file(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the files `names` that exists under `root`."""
    return next((root / name for name in names if (root / name).is_file()), None)


def require_file(root: Path, names: Sequence[str], *, what: str) -> Path:
    """Return the first of the files `names` under `root`; DatasetError that lists them if none exists."""
    found = first_file(root, names)
    if found is None:
        raise DatasetError(f"{root}: {what} is missing; looked for {', '.join(names)}")
    return found


def safe_id(text: str, *, at: FileLocation) -> str:
    """Return `text` if it is a file name; DatasetError if it is empty or a path."""
    if not text or "/" in text or "\\" in text or "\0" in text or text in (".", ".."):
        raise at.fail(f"{text!r} is not an id: empty, or a path")
    return text


def safe_path(text: str, *, within: Path, at: FileLocation) -> str:
    """Return `text` relative to the folder `within`; DatasetError if it leads out of it."""
    path = PurePosixPath(text)
    if path.is_absolute():
        try:
            path = PurePosixPath(path.relative_to(within.absolute().as_posix()))
        except ValueError:
            raise at.fail(f"{text!r} is an absolute path outside {within}") from None
    if not text or ".." in path.parts or "\0" in text or "\\" in text or path == PurePosixPath("."):
        raise at.fail(f"{text!r} is not a path inside {within}")
    return str(path)


class UniqueNames:
    """Refuses a name that comes a second time."""

    def __init__(self, what: str) -> None:
        self._what, self._seen = what, dict[str, int | JsonLocation]()

    def check(self, key: str, *, at: FileLocation) -> str:
        """Return `key` the first time; DatasetError with both lines after that."""
        if key in self._seen:
            before = self._seen[key]
            number = before if isinstance(before, int) else before.number
            raise at.fail(f"{self._what} {key!r} occurs twice, before in line {number}")
        self._seen[key] = at if isinstance(at, JsonLocation) else at.number  # the line of a JSON key is a search
        return key
