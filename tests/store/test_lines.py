"""Errors of reading and writing files as messages for the user."""

import errno
from pathlib import Path
from typing import Literal

import pytest

from bench.core.errors import StoreError
from bench.store.lines import store_errors


@pytest.mark.parametrize(("done", "named"), [("written", "target"), ("read", "source")])
def test_a_failed_copy_names_the_file_on_the_side_that_failed(
    tmp_path: Path, done: Literal["read", "written"], named: str
) -> None:
    """As `shutil.copyfile` reports it, with both files."""
    message = rf"^{named} cannot be {done}: No space left on device$"
    with pytest.raises(StoreError, match=message), store_errors(tmp_path, done):
        raise OSError(errno.ENOSPC, "No space left on device", "source", None, "target")
