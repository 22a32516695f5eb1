"""Downloads from a server on loopback that breaks off, ignores ranges, redirects or serves other bytes."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.core.errors import DownloadError
from bench.models.weights import download as module
from bench.models.weights.download import download
from bench.reference import zoo_files as zoo
from bench.reference.zoo_files import ZooFile, zoo_file

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server does, and the headers of the requests it got."""

    content: bytes = CONTENT
    has_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    etag: str = '"one"'
    requests: list[dict[str, str]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
            elif self.path == "/page":
                self._send(200, b"<html>sign in</html>", kind="text/html; charset=utf-8")
            elif self.path == "/file":
                self._send_file()
            else:
                self.send_error(404)

        def _send_file(self) -> None:
            start, code, place = 0, 200, ""
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            is_same = self.headers.get("If-Range", state.etag) == state.etag
            if state.has_ranges and wanted and is_same:
                start, code = int(wanted[1]), 206
                if start >= len(state.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                place = f"bytes {start}-{len(state.content) - 1}/{len(state.content)}"
            self._send(code, state.content[start:], place=place)

        def _send(self, code: int, body: bytes, *, kind: str = "application/octet-stream", place: str = "") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", state.etag)
            if place:
                self.send_header("Content-Range", place)
            self.end_headers()
            self.wfile.write(body[: state.breaks_after.pop(0)] if state.breaks_after else body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def published(url: str, *, printed: str = SHA256[:8], kind: zoo.HashKind = "sha256") -> ZooFile:
    return ZooFile(
        id="a-zoo/net", model="c3d", file="net.pth", url=url, size="", printed_hash=printed, hash_kind=kind,
        trained_on="Kinetics-400", num_classes=400, source="a zoo's README", commit="", row="net", note="",
    )  # fmt: skip


def test_a_file_is_downloaded_and_its_printed_digits_are_compared(server: Server, tmp_path: Path) -> None:
    shown: list[tuple[int, int | None]] = []
    found = download(published(f"{server.address}/file"), tmp_path, on_progress=lambda *now: shown.append(now))
    assert found.path == tmp_path / "net.pth"
    assert found.path.read_bytes() == CONTENT
    assert (found.sha256, found.is_verified) == (SHA256, True)
    assert shown[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]


def test_without_a_printed_hash_nothing_is_called_verified(server: Server, tmp_path: Path) -> None:
    found = download(published(f"{server.address}/file", printed=""), tmp_path)
    assert (found.is_verified, found.verification) == (False, "no hash published: not verified")


def test_digits_of_an_unstated_kind_verify_only_if_they_agree(server: Server, tmp_path: Path) -> None:
    file = published(f"{server.address}/file", printed="00000000", kind="not stated")
    assert not download(file, tmp_path / "other").is_verified
    assert download(published(f"{server.address}/file", kind="not stated"), tmp_path / "same").is_verified


def test_the_id_that_git_gives_a_file_is_compared(server: Server, tmp_path: Path) -> None:
    blob = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()
    assert download(published(f"{server.address}/file", printed=blob, kind="git blob"), tmp_path).is_verified


def test_a_wrong_hash_is_an_error_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"sha256 begins with {SHA256[:8]}, and deadbeef is printed"):
        download(published(f"{server.address}/file", printed="deadbeef"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [300_000, 200_000]
    assert download(published(f"{server.address}/file"), tmp_path).path.read_bytes() == CONTENT
    assert [each.get("range") for each in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_command_goes_on_with_what_an_earlier_one_received(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [100_000, *[0] * module.ATTEMPTS]
    file = published(f"{server.address}/file")
    with pytest.raises(DownloadError, match=r"100,000 of 1,024,000 bytes are kept .* the same command goes on"):
        download(file, tmp_path)
    server.breaks_after.clear()
    assert download(file, tmp_path).path.read_bytes() == CONTENT
    assert server.requests[-1]["range"] == "bytes=100000-"


def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, tmp_path: Path) -> None:
    server.has_ranges, server.breaks_after = False, [300_000]
    assert download(published(f"{server.address}/file"), tmp_path).path.read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_not_patched_together(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [300_000, *[0] * module.ATTEMPTS]
    with pytest.raises(DownloadError):
        download(published(f"{server.address}/file"), tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    server.breaks_after.clear()
    found = download(published(f"{server.address}/file", printed=""), tmp_path)
    assert found.path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("received", [CONTENT, CONTENT + b"more"])
def test_a_download_that_only_lacked_its_name_is_finished(server: Server, tmp_path: Path, received: bytes) -> None:
    (tmp_path / "net.pth.part").write_bytes(received)
    assert download(published(f"{server.address}/file"), tmp_path).path.read_bytes() == CONTENT


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [300_000]
    assert download(published(f"{server.address}/moved"), tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("path", "part"), [("gone", "answered 404"), ("page", "answered with a web page")])
def test_what_is_no_file_says_what_to_do_in_a_browser(server: Server, tmp_path: Path, path: str, part: str) -> None:
    with pytest.raises(DownloadError, match=f"{part}.*open .* in a browser, save net.pth as"):
        download(published(f"{server.address}/{path}"), tmp_path)


def test_a_file_that_is_there_is_checked_and_kept(server: Server, tmp_path: Path) -> None:
    file = published(f"{server.address}/file")
    download(file, tmp_path)
    assert download(file, tmp_path).was_there
    assert len(server.requests) == 1
    (tmp_path / "net.pth").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="left as it is"):
        download(file, tmp_path)


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "net.pth.part").open("a+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process is downloading"):
            download(published(f"{server.address}/file"), tmp_path)


def test_the_command_gets_a_published_file_from_a_mirror(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    id_ = "torchvision/r3d_18-b3b3357e"
    arguments = ["weights", "get", id_, "--out", str(tmp_path), "--from", f"{server.address}/file"]
    assert run_command(arguments) == 3
    assert f"sha256 begins with {SHA256[:8]}, and b3b3357e is printed" in capsys.readouterr().err
    right = published(zoo_file(id_).url)
    monkeypatch.setattr(zoo, "zoo_files", lambda: (right,))
    arguments[2] = right.id
    assert run_command(arguments) == 0
    assert "sha256 is the printed one" in capsys.readouterr().out


def test_a_file_behind_a_browser_ends_with_3_and_the_steps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(["weights", "get", "3d-resnets/r3d50_k_200ep", "--out", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert "drive.google.com" in told
    assert "vbench weights get 3d-resnets/r3d50_k_200ep --out" in told
