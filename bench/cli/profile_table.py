"""Several profiled models as one table: for the terminal with bars, as Markdown, CSV, LaTeX or JSON."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.core.doubts import value_text
from bench.core.errors import InputError, UnknownNameError
from bench.core.registry import find_metric_spec
from bench.core.schema import Better, Metric
from bench.core.units import DASH, MINUS, Scale, choose_scale

if TYPE_CHECKING:
    from bench.profiling import Profile

TableFormat = Literal["table", "md", "csv", "latex", "json"]
BLOCKS = " ▏▎▍▌▋▊▉█"  # a character can be filled by eighths
SMALLEST_BAR, LARGEST_BAR = 3, 12  # characters
LATEX = str.maketrans(
    {each: f"\\{each}" for each in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"≥": r"$\ge$", DASH: "--", MINUS: "$-$", "\N{NARROW NO-BREAK SPACE}": r"\,"}
)


@dataclass(frozen=True, kw_only=True)
class ProfileColumn:
    """One column of numbers. `key` is its name in CSV and JSON, `sort_names` are what `--sort` calls it."""

    key: str
    title: str
    unit: str
    value: Callable[["Profile"], float | None]
    better: Better = "lower"
    sort_names: tuple[str, ...] = ()


COUNTS = (
    ProfileColumn(key="params", title="params", unit="elements", value=lambda p: p.params),
    ProfileColumn(key="macs", title="MACs", unit="MACs", value=lambda p: p.macs, sort_names=("flops",)),
    ProfileColumn(
        key="macs_train_step",
        title="MACs, train step",
        unit="MACs",
        value=lambda p: p.macs_train_step,
        sort_names=("train_step",),
    ),
    ProfileColumn(
        key="memory_inference_bytes",
        title="memory",
        unit="B",
        value=lambda p: p.memory_inference_bytes,
        sort_names=("memory",),
    ),
    ProfileColumn(
        key="memory_training_bytes",
        title="training memory",
        unit="B",
        value=lambda p: p.memory_training_bytes,
        sort_names=("training_memory",),
    ),
    ProfileColumn(
        key="activation_bytes",
        title="activations",
        unit="B",
        value=lambda p: p.activation_bytes,
        sort_names=("activations",),
    ),
)
PER_VIDEO = ProfileColumn(key="macs_per_video", title="MACs of a video", unit="MACs", value=lambda p: p.macs_per_video)
IN_TABLES = ("params", "macs", "macs_per_video", "memory_inference_bytes")  # other counts are in CSV and JSON only
TIMED = ("latency.p50_ms", "throughput.clips_per_s")
SORT_NAMES = (
    "model",
    *(name for column in COUNTS for name in (column.key, *column.sort_names)),
    "latency",
    "throughput",
)


def columns_of(profiles: Sequence["Profile"]) -> list[ProfileColumn]:
    """The columns that these profiles have: counts, the cost of a video if it has several views, and timings."""
    columns = list(COUNTS)
    if any(profile.views != "1x1" for profile in profiles):
        columns.insert(2, PER_VIDEO)
    if any(profile.speed for profile in profiles):
        columns += [_timed_column(name) for name in TIMED]
    return columns


def _timed_column(metric: str) -> ProfileColumn:
    spec = find_metric_spec(metric)
    assert spec is not None, f"{metric} is declared by its measure"

    def value(profile: "Profile") -> float | None:
        found = _timing(profile, metric)
        return None if found is None else found.value

    return ProfileColumn(
        key=metric,
        title=spec.title.lower(),
        unit=spec.unit,
        value=value,
        better=spec.better or "lower",
        sort_names=(metric.partition(".")[0],),
    )


def _timing(profile: "Profile", name: str) -> Metric | None:
    return next((each for each in profile.speed if each.name == name), None)


def _doubts(profile: "Profile", column: ProfileColumn) -> tuple[str, ...]:
    """The doubts about a timing of `profile`; none about a count."""
    timing = _timing(profile, column.key)
    return () if timing is None else profile.speed_doubts.get(timing.key, ())


def check_sort(name: str | None, *, with_speed: bool) -> None:
    """Raise UnknownNameError for a column that `--sort` does not know, InputError for a timing without `--speed`."""
    if name is None:
        return
    if name.removeprefix("-") not in SORT_NAMES:
        raise UnknownNameError("column", name.removeprefix("-"), SORT_NAMES, where="--sort")
    if name.removeprefix("-") in ("latency", "throughput") and not with_speed:
        raise InputError(f"--sort {name} needs --speed, which measures it")


def sorted_profiles(profiles: Sequence["Profile"], by: str | None) -> list["Profile"]:
    """The profiles with the best value of column `by` first, or the worst if `by` begins with `-`.

    Doubtful timings come after the others, unknown values last; equal values keep their order.
    """
    if by is None:
        return list(profiles)
    name, is_reversed = by.removeprefix("-"), by.startswith("-")
    if name == "model":
        return sorted(profiles, key=lambda profile: profile.model, reverse=is_reversed)
    column = next(each for each in columns_of(profiles) if name in (each.key, *each.sort_names))
    sign = -1 if (column.better == "higher") != is_reversed else 1

    def place(profile: "Profile") -> tuple[bool, bool, float]:
        value = column.value(profile)
        return value is None, bool(_doubts(profile, column)), sign * (value or 0)

    return sorted(profiles, key=place)


def terminal_table(
    profiles: Sequence["Profile"], *, width: int | None
) -> tuple[list[str], list[list[str]], tuple[str, ...]]:
    """Heads, rows and right-aligned heads of the table for people; with a bar for each value if `width` has room.

    A bar is as long as the share of the largest value of its column; doubtful timings have none. `width` is that of the
    terminal in characters, or None for a pipe, which gets no bars.
    """
    heads, rows = readable_cells(profiles)
    numbers = _table_columns(profiles)
    right = tuple(heads[2:])
    bar = _bar_width(heads, rows, width=width)
    if bar < SMALLEST_BAR:
        return heads, rows, right
    wide_heads = [*heads[:2], *(head for name in heads[2:] for head in (name, ""))]
    bars = [_bars([_certain(column, profile) for profile in profiles], width=bar) for column in numbers]
    wide_rows = [
        [*row[:2], *(cell for place, text in enumerate(row[2:]) for cell in (text, bars[place][number]))]
        for number, row in enumerate(rows)
    ]
    return wide_heads, wide_rows, right


def _bar_width(heads: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None) -> int:
    """Characters that are left for each bar in a line of `width`, with two spaces between columns."""
    if width is None:
        return 0
    taken = sum(max(len(cell) for cell in column) + 2 for column in zip(heads, *rows, strict=True))
    return min(LARGEST_BAR, (width - taken) // (len(heads) - 2) - 2)


def _certain(column: ProfileColumn, profile: "Profile") -> float | None:
    return None if _doubts(profile, column) else column.value(profile)


def _bars(values: Sequence[float | None], *, width: int) -> list[str]:
    most = max((value for value in values if value), default=0)
    return ["" if value is None or not most else _bar(value / most, width=width) for value in values]


def _bar(share: float, *, width: int) -> str:
    """A bar of a share of `width` characters, to the eighth of a character; a share above 0 has at least one eighth."""
    eighths = max(round(8 * width * share), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    return BLOCKS[8] * full + (BLOCKS[rest] if rest else "")


def _table_columns(profiles: Sequence["Profile"]) -> list[ProfileColumn]:
    return [column for column in columns_of(profiles) if column.key in (*IN_TABLES, *TIMED)]


def readable_cells(profiles: Sequence["Profile"]) -> tuple[list[str], list[list[str]]]:
    """Heads with units, and a row of texts for each model, every column in one scale.

    `≥` marks a lower bound; a doubtful timing is written as `~9 ms`, with the digits that its interval supports.
    """
    columns = _table_columns(profiles)
    scales = [choose_scale([column.value(profile) for profile in profiles], column.unit) for column in columns]
    heads = [_head(column, scale) for column, scale in zip(columns, scales, strict=True)]
    rows = [
        [profile.model, _inputs(profile), *(_text(c, s, profile) for c, s in zip(columns, scales, strict=True))]
        for profile in profiles
    ]
    return ["model", "input", *heads], rows


def _head(column: ProfileColumn, scale: Scale) -> str:
    unit = scale.unit_after(column.title)
    if column.unit == "MACs":
        return f"{unit}{column.title}"
    return f"{column.title}, {unit}" if unit else column.title


def _text(column: ProfileColumn, scale: Scale, profile: "Profile") -> str:
    doubts, timing = _doubts(profile, column), _timing(profile, column.key)
    if doubts and timing is not None:
        return value_text(timing, doubts=doubts, interval=timing.interval)
    value = column.value(profile)
    is_lower_bound = column.unit == "MACs" and profile.uncounted_operators and value is not None
    return ("≥ " if is_lower_bound else "") + scale.text(value)


def _inputs(profile: "Profile") -> str:
    return ", ".join("x".join(map(str, shape)) for shape in profile.inputs)


def as_markdown(profiles: Sequence["Profile"]) -> str:
    """The table in GitHub's Markdown, numbers aligned to the right."""
    heads, rows = readable_cells(profiles)
    lines = [heads, ["---" if place < 2 else "---:" for place in range(len(heads))], *rows]
    escaped = ([cell.replace("\\", "\\\\").replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def as_latex(profiles: Sequence["Profile"]) -> str:
    """The table as a LaTeX `tabular`, numbers aligned to the right."""
    heads, rows = readable_cells(profiles)
    first, *others = (" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in (heads, *rows))
    return "\n".join(
        [rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", first, r"\hline", *others, r"\end{tabular}", ""]
    )


def as_csv(profiles: Sequence["Profile"]) -> str:
    """All columns as CSV, unscaled, in the units of their names; unknown values are empty."""
    columns = columns_of(profiles)
    has_speed = any(profile.speed for profile in profiles)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["model", "input", *(column.key for column in columns), "is_complete", *(["doubts"] if has_speed else [])]
    )
    writer.writerows(_csv_rows(profiles, columns))
    return text.getvalue()


def _csv_rows(profiles: Sequence["Profile"], columns: Sequence[ProfileColumn]) -> Iterator[list[object]]:
    for profile in profiles:
        is_complete = "no" if profile.uncounted_operators else "yes"
        doubts = dict.fromkeys(doubt for column in columns for doubt in _doubts(profile, column))
        last = [" ".join(doubts)] if any(each.speed for each in profiles) else []
        yield [profile.model, _inputs(profile), *(column.value(profile) for column in columns), is_complete, *last]
