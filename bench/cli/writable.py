"""Files that a command is to write, looked at before it works for them."""

import os
from pathlib import Path

from bench.core.errors import InputError


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
