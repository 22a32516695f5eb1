"""Keeps a report up to date while records arrive: written again after every change, or served on this machine."""

import glob
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from bench.core.errors import BenchError, InputError, StoreError
from bench.core.process import ReplyPipe, read_requests
from bench.core.registry import import_plugins
from bench.core.schema import digest
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.site import write_live, write_page
from bench.store import record_files

INTERVAL_S = 1.0
FOLLOWING_S = 2.5  # an open page asks for news every 2 s (live.js)
LOOPBACK = "127.0.0.1"
WAITING = (
    "<p>No case has finished yet. This page follows: it shows the results of the first one once they are there.</p>"
)


class LiveReport:
    """A report in the folder `out` that is written again by `refresh` if its records have changed.

    If it `may_wait`, sources without a record are no error: a page without results takes the place of the report.
    """

    def __init__(self, sources: list[str | Path], *, out: Path, title: str | None = None, may_wait: bool = False):
        self.sources, self.out, self.title, self.may_wait = sources, out, title, may_wait
        self.lock = Lock()  # held while pages are written or read, so that no page mixes two versions
        self._version = ""
        self._is_waiting = False
        self._last_asked = -FOLLOWING_S

    @property
    def is_followed(self) -> bool:
        """Whether an open page has asked for news a moment ago."""
        return monotonic() - self._last_asked < 2 * FOLLOWING_S

    def was_asked(self) -> None:
        self._last_asked = monotonic()

    def refresh(self) -> Path | None:
        """Write the report if a record was added since the last one, and return its `index.html`; else None.

        Raises what `report` raises for the first report; later errors, such as of a folder that is being replaced,
        leave the report as it is.
        """
        try:
            version = version_of(self.sources)
            if version == self._version:
                return None
            index = write_live(self.sources, out=self.out, title=self.title, version=version)
        except StoreError:
            if self._version:
                return None
            if not self.may_wait:
                raise
            if self._is_waiting:
                return None
            self._is_waiting = True
            section = DrawnSection(name="waiting", title="Waiting for the first result", html=render(WAITING))
            return write_page(self.out, [section], title=self.title or "No result yet", description="", version="none")
        self._version = version
        return index


def watch(live: LiveReport, *, wait: Callable[[float], None], on_written: Callable[[Path], None]) -> None:
    """Write the report now and after every change of its records, until `wait` raises an exception.

    `wait` is called with the seconds until the next look at the files.
    """
    while True:
        with live.lock:
            index = live.refresh()
        if index is not None:
            on_written(index)
        wait(INTERVAL_S)


@contextmanager
def serving(live: LiveReport, *, port: int) -> Iterator[str]:
    """Serve the report on the loopback interface within the block, which is given its address.

    The report is written again only when a page is opened or an open page asks for news, so that it costs nothing while
    nobody reads it. `port` 0 takes a free one. Raises InputError if the port is taken.
    """
    with live.lock:
        live.refresh()
    try:
        server = _Server((LOOPBACK, port), partial(_Handler, live=live, directory=str(live.out)))
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} cannot be used: {error}; give another one, or 0 for any free one") from None
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}/"
        server.shutdown()


def serve_child() -> None:
    """In a child of `vbench run`: serve the report of its results folder until the parent writes a second request.

    The process has the lowest priority, because a report must not take time from what is measured.
    """
    requests, reply = read_requests(), ReplyPipe()
    request = next(requests)
    os.nice(19)
    folder = Path(request["folder"])
    live = LiveReport([glob.escape(str(folder)) + "/records*.jsonl"], out=folder / "report", may_wait=True)
    warnings.simplefilter("ignore")  # the report at the end of the run tells them
    try:
        import_plugins(request["plugins"])
        with serving(live, port=request["port"]) as address:
            reply.send(address=address)
            next(requests, None)
            if live.is_followed:  # its reader sees the last result before the server ends
                with live.lock:
                    live.refresh()
                sleep(FOLLOWING_S)
                live.lock.acquire()  # an answer that is on its way is finished first
    except BenchError as error:
        reply.send(error=str(error))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a page in the middle of an answer is no error to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(SimpleHTTPRequestHandler):
    """Serves the files of a report, which is written again before a page or the number of its version is read."""

    def __init__(self, *args: Any, live: LiveReport, **options: Any) -> None:
        self.live = live
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        # Another name for this address may belong to a page of a stranger that wants to read local results.
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in (LOOPBACK, "localhost"):
            self.send_error(403, "Open this report as http://127.0.0.1")
            return
        path = urlsplit(self.path).path
        if path.endswith("/data/version.js"):
            self.live.was_asked()
        with self.live.lock:
            if path.endswith(("/", ".html", "/data/version.js")):
                try:
                    self.live.refresh()
                except (StoreError, InputError) as error:
                    self.send_error(500, "The report cannot be written", str(error))
                    return
            super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Folders have no list of their files."""
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
        """Requests are not printed: the terminal shows the run."""


def version_of(sources: list[str | Path]) -> str:
    """A text that changes with the names, sizes and times of the records files."""
    files = [file for source in sources for file in record_files(source)]
    states = [(str(file), state.st_size, state.st_mtime_ns) for file in files if (state := file.stat())]
    return digest([list(state) for state in states])
