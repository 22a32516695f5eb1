"""Arguments that several commands have, and the parsing of their values: `NAME=VALUE`, data sets, files to write."""

import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.core.errors import InputError
from bench.core.files import reason_of

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, source:name or file.py:factory.")
]
ModelArguments = Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, such as optimizer.lr=0.01; repeatable.",
    ),
]
Entry = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME",
        help="Which weights of a file that holds several; `vbench weights inspect` lists them.",
    ),
]

WAIT_IDLE, WAIT_IDLE_TIME = "--wait-idle", "10m"
WaitIdle = Annotated[
    str | None,
    typer.Option(
        WAIT_IDLE,
        metavar="[TIME]",
        help=f"Before each timed case, wait for an idle machine, at most TIME, such as 90s; {WAIT_IDLE_TIME} if bare.",
    ),
]
STAGE = "--stage"
TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
LIKE_A_TIME = re.compile(r"\d+(\.\d+)?\s*[a-zA-Z]*")  # 2d is a wrong time rather than a suite; 3d.yaml is none
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str, *, flag: str, needs_unit: bool = True) -> float:
    """Seconds of `90s`, `10m` or `1h`, and of `90` unless it `needs_unit`; raises InputError for anything else."""
    match = TIME.fullmatch(text.strip())
    if match is None or (needs_unit and not match[2]):
        raise InputError(f"{flag} {text!r} is not a time; allowed: seconds, minutes or hours, such as 90s, 10m, 1h")
    return float(match[1]) * SECONDS[match[2]]


def wait_idle_seconds(text: str | None) -> float | None:
    """Seconds of `--wait-idle`; None if it is not given."""
    return None if text is None else seconds_of(text, flag=WAIT_IDLE, needs_unit=False)


def with_optional_values(arguments: Sequence[str]) -> list[str]:
    """`arguments` in which a bare `--wait-idle` has its default time, and a bare `--stage` an empty value.

    Typer has no options with an optional value. That of `--stage` is given as `--stage=DIR` only: a suite may follow.
    """
    followers = [*arguments, ""][1:]  # one for each, also if there are none, as in completion
    return [
        f"{STAGE}="
        if each == STAGE
        else f"{WAIT_IDLE}={WAIT_IDLE_TIME}"
        if each == WAIT_IDLE and not LIKE_A_TIME.fullmatch(follower)
        else each
        for each, follower in zip(arguments, followers, strict=True)
    ]


def named_values(texts: Iterable[str], *, flag: str, example: str, as_text: Collection[str] = ()) -> dict[str, Any]:
    """Names with YAML values: `kernel_depth=3`, `shortcut=A`, `multi_label=true`; values of `as_text` stay text.

    Raises InputError if a text is not NAME=VALUE, a value is not YAML, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"{flag} {text!r} is not NAME=VALUE, such as {flag} {example}")
        if name in values:
            raise InputError(f"{flag} {name} is given twice, with {values[name]!r} and {value!r}")
        values[name] = value if name in as_text else _yaml(value, flag=flag, text=text)
    return values


def model_arguments(texts: Iterable[str] | None) -> dict[str, Any]:
    """The arguments of a model from `--arg`."""
    return named_values(texts or (), flag="--arg", example="depth=50")


def dataset_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """The options of a data set from `--option`; its folder and split have options of their own."""
    from bench.data.collection import text_options

    as_text = text_options() if texts else ()
    options = named_values(texts or (), flag="--option", example="videos=clips", as_text=as_text)
    for name in ("name", "root", "split"):
        if name in options:
            raise InputError(f"{name!r} is not an option of a data set" + (f"; use --{name}" if name != "name" else ""))
    return options


def finite(value: float | None) -> float | None:
    """Return the number of an option; raises typer.BadParameter for `nan` and `inf`, which click takes for numbers."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def check_writable(file: Path) -> None:
    """Create the folder of an output file; raises InputError if the file cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file} cannot be written: its folder cannot be created: {reason_of(error)}") from None
    if file.is_dir():
        raise InputError(f"{file} cannot be written: it is a folder")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"{file} cannot be written: this user is not allowed to")


def check_entry(entry: str | None, weights: Path | None) -> None:
    """Raise InputError if `--entry` is given without the file that it is a part of."""
    if entry is not None and weights is None:
        raise InputError(f"--entry {entry} is a part of --weights, which is not given")


def check_folder(folder: Path | None) -> None:
    """Raise InputError, before anything is measured, if the folder of `--out` is a file or lies below one."""
    for each in () if folder is None else (folder, *folder.parents):
        if each.exists() and not each.is_dir():
            raise InputError(f"--out {folder}: {each} is a file, and a folder is needed")


def _yaml(value: str, *, flag: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(StringIO(value))
    except (YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{flag} {text!r}: {value!r} is not a YAML value ({reason}); put text into quotes") from None
