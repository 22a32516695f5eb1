"""Downloads a published checkpoint file: resumes an interrupted download and compares the printed hash."""

import fcntl
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench.core.errors import DownloadError
from bench.reference.zoo_files import ZooFile

CHUNK = 1 << 20
TIMEOUT_S = 30.0
PAUSE_S = 1.0  # before another attempt, and longer each time
ATTEMPTS = 4
"""How often a download is resumed that broke off without receiving a byte."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the size of the file, None if the server does not state it."""


@dataclass(frozen=True, kw_only=True)
class DownloadedFile:
    """A file on disk, and what its hash says. `was_there` is True if nothing had to be downloaded."""

    path: Path
    n_bytes: int
    sha256: str
    is_verified: bool
    verification: str
    was_there: bool = False


def download(
    file: ZooFile, folder: Path, *, url: str | None = None, on_progress: Progress = lambda received, total: None
) -> DownloadedFile:
    """Download `file` into `folder`, or check the one that is there; `url` is another address of the same file.

    What an interrupted download received stays next to the target as `<name>.part`, and the next call goes on there if
    the server supports it. Raises DownloadError, with what to do, if the file cannot be had, if another process
    downloads it, or if its hash is not the printed one; then the file is deleted.
    """
    target = folder / file.file_name
    if target.is_file():
        return _checked(file, target, was_there=True)
    if url is None and file.needs_browser:
        raise DownloadError(f"{file.needs_browser}: {steps_in_browser(file, target)}")
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _exclusive(part) as content:
        _receive(url or file.download_url, content, steps=steps_in_browser(file, target), on_progress=on_progress)
        found = _checked(file, part)
        part.rename(target)
    _validator_file(part).unlink(missing_ok=True)
    return DownloadedFile(
        path=target,
        n_bytes=found.n_bytes,
        sha256=found.sha256,
        is_verified=found.is_verified,
        verification=found.verification,
    )


def steps_in_browser(file: ZooFile, target: Path) -> str:
    """Return what to do if only a browser gets the file."""
    return (
        f"open {file.url} in a browser, save {file.file} as {target}, "
        f"then check it: vbench weights get {file.id} --out {target.parent}"
    )


@contextmanager
def _exclusive(part: Path) -> Iterator[BinaryIO]:
    """The unfinished file, open and locked; raises DownloadError if another process has it."""
    with part.open("a+b") as content:
        try:
            fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"another process is downloading {part.with_suffix('')}") from None
        yield content


def _receive(url: str, content: BinaryIO, *, steps: str, on_progress: Progress) -> None:
    """Append to `content` until it is complete; connections that break are resumed."""
    failures = 0
    while True:
        before = content.seek(0, 2)
        try:
            total = _receive_once(url, content, steps=steps, on_progress=on_progress)
            received = content.seek(0, 2)
            if total is None or received >= total:
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DownloadError(f"{url} answered {error.code} {error.reason}; {steps}") from None
            received, total, reason = before, None, f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            # URLError is an OSError, and so is a timeout; a full disk is one too, and no reason to try again.
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise
            received, total, reason = content.seek(0, 2), None, str(getattr(error, "reason", error) or error)
        failures = 0 if received > before else failures + 1
        if failures == ATTEMPTS:
            of = f" of {total:,}" if total else ""
            raise DownloadError(
                f"{url}: {reason}; {received:,}{of} bytes are kept in {content.name}; the same command goes on there"
            )
        time.sleep(PAUSE_S * failures)


def _receive_once(url: str, content: BinaryIO, *, steps: str, on_progress: Progress) -> int | None:
    """Receive one answer; returns the size of the whole file if the server states it."""
    start = content.seek(0, 2)
    known = _validator_file(Path(content.name))
    headers = {"User-Agent": "vbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known.is_file():  # the server sends the whole file if it is not the one that was begun
            headers["If-Range"] = known.read_text(encoding="ascii").strip()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return start  # everything was received before
        content.truncate(0)
        raise http.client.HTTPException("the file there is shorter than what was received of it") from None
    with answer:
        return _append(answer, content, start=start, steps=steps, on_progress=on_progress)


def _append(
    answer: http.client.HTTPResponse, content: BinaryIO, *, start: int, steps: str, on_progress: Progress
) -> int | None:
    if answer.headers.get_content_type() == "text/html":
        raise DownloadError(f"{answer.url} answered with a web page, not with the file; {steps}")
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status == 206 and place is not None and int(place[1]) == start:
        total = None if place[2] == "*" else int(place[2])
    else:  # the server ignores ranges, or the file has changed
        content.truncate(0)
        length = answer.headers.get("Content-Length")
        start, total = 0, int(length) if length else None
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    if validator and not validator.startswith("W/"):  # a weak one does not promise the same bytes
        _validator_file(Path(content.name)).write_text(validator, encoding="ascii")
    received = start
    on_progress(received, total)
    while chunk := answer.read(CHUNK):
        content.write(chunk)
        content.flush()
        received += len(chunk)
        on_progress(received, total)
    return total


def _validator_file(part: Path) -> Path:
    """Where the ETag of an unfinished download is kept, so that it only goes on with the same file."""
    return part.with_name(f"{part.name}.etag")


def _checked(file: ZooFile, path: Path, *, was_there: bool = False) -> DownloadedFile:
    """What the hash of the file says. Raises DownloadError, and deletes a download, if it is not the printed one."""
    sha256, blob = _hashes(path)
    printed = file.printed_hash.lower()
    found = blob if file.hash_kind == "git blob" else sha256
    kind = "git blob id" if file.hash_kind == "git blob" else "sha256"
    is_same = bool(printed) and found.startswith(printed)
    if printed and not is_same and file.hash_kind != "not stated":
        fate = "it is left as it is; delete it to download it again" if was_there else "it was deleted"
        if not was_there:
            path.unlink()
            _validator_file(path).unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name.removesuffix('.part')}: its {kind} begins with {found[: len(printed)]}, and {printed} is "
            f"printed at {file.source}: the file is damaged or another one; {fate}"
        )
    if is_same:
        verification = f"{kind} is the printed one ({printed}{'…' if len(printed) < len(found) else ''})"
    elif printed:
        verification = f"the printed {printed} is of an unstated kind and not the sha256: not verified"
    else:
        verification = "no hash published: not verified"
    return DownloadedFile(
        path=path,
        n_bytes=path.stat().st_size,
        sha256=sha256,
        is_verified=is_same,
        verification=verification,
        was_there=was_there,
    )


def _hashes(path: Path) -> tuple[str, str]:
    """SHA-256 of the content, and the id that git gives it."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()
