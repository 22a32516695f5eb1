"""`NAME=VALUE` as people type it behind `--arg` and `--option`."""

import os
from collections.abc import Collection, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from bench.core.errors import InputError


def named_values(texts: Iterable[str], *, flag: str, example: str, as_text: Collection[str] = ()) -> dict[str, Any]:
    """Names with YAML values: `kernel_depth=3`, `shortcut=A`, `multi_label=true`; InputError for anything else.

    Values of the names `as_text` are taken as they are typed.
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


def dataset_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """What `--option` says of a data set; its folder and its split have names of their own."""
    from bench.data.collection import text_options

    as_text = text_options() if texts else ()
    options = named_values(texts or (), flag="--option", example="videos=clips", as_text=as_text)
    for name in ("name", "root", "split"):
        if name in options:
            raise InputError(f"{name!r} is no option of a data set" + (f"; use --{name}" if name != "name" else ""))
    return options


def check_writable(file: Path) -> None:
    """Make the folder of a file that is to be written; InputError where that or the file itself cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file} cannot be written: its folder cannot be made: {error.strerror}") from None
    if file.is_dir():
        raise InputError(f"{file} cannot be written: it is a folder")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"{file} cannot be written: this user is not allowed to")


def _yaml(value: str, *, flag: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(StringIO(value))
    except (YAMLError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise InputError(f"{flag} {text!r}: {value!r} is no YAML value ({told}); put text into quotes") from None
