"""A watched report is written again for every change of the records, and never without one."""

from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from bench.cli.app import run_command
from bench.core.errors import InputError, StoreError
from bench.reporting.watching import LiveReport, serving, watch
from bench.store import RecordStore


class StopLookingError(Exception):
    """Ends the loop, as an interrupt from the keyboard does."""


def test_a_report_is_written_again_once_a_record_is_added(make: SimpleNamespace, tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "results")
    store.append(make.counts("a"))
    rows, looks = [], iter(["nothing", "add", "nothing", "stop"])

    def wait(seconds: float) -> None:
        assert seconds > 0
        match next(looks):
            case "add":
                store.append(make.counts("b"))
            case "stop":
                raise StopLookingError

    def count(index: Path) -> None:
        rows.append(index.with_name("board.html").read_text(encoding="utf-8").count("<tr>"))

    with pytest.raises(StopLookingError):
        watch(LiveReport([tmp_path / "results"], out=tmp_path / "site"), wait=wait, on_written=count)
    assert rows == [2, 3]


def test_an_open_page_knows_the_version_it_is_of(make: SimpleNamespace, tmp_path: Path) -> None:
    RecordStore(tmp_path / "results").append(make.counts("a"))

    def stop(seconds: float) -> None:
        raise StopLookingError

    with pytest.raises(StopLookingError):
        watch(LiveReport([tmp_path / "results"], out=tmp_path / "site"), wait=stop, on_written=lambda index: None)
    page = make.page((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    (version,) = (given["data-version"] for _, given in page.tags if "data-version" in given)
    assert f'"version":"{version}"' in (tmp_path / "site" / "data" / "version.js").read_text(encoding="utf-8")


def test_a_source_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        LiveReport([tmp_path / "nowhere"], out=tmp_path / "site").refresh()


@pytest.mark.parametrize("flag", ["--watch", "--serve"])
def test_a_single_file_cannot_be_watched_or_served(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", "results", flag, "--single-file"]) == 2
    assert f"{flag} writes a folder" in capsys.readouterr().err


def test_a_port_without_a_server_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", "results", "--port", "8000"]) == 2
    assert "--port is the port of --serve, which is not given" in capsys.readouterr().err


def read(address: str, path: str = "", **headers: str) -> tuple[int, str]:
    """The status and the text of a page."""
    try:
        with urlopen(Request(address + path, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, ""


def test_a_served_report_has_every_record_that_was_there_when_it_was_asked_for(
    make: SimpleNamespace, tmp_path: Path
) -> None:
    store = RecordStore(tmp_path / "results")
    live = LiveReport([tmp_path / "results" / "records*.jsonl"], out=tmp_path / "site", may_wait=True)
    with serving(live, port=0) as address:
        assert "No case has finished yet" in read(address)[1]
        for number, name in enumerate(("first", "second"), start=1):
            before = read(address, "data/version.js")
            store.append(make.counts(name))
            assert read(address, "data/version.js") != before
            assert f"from {number} record{'s' if number > 1 else ''}. " in read(address)[1]
            assert name in read(address, "board.html")[1]
        assert live.is_followed
        assert read(address, "assets/")[0] == 404  # no list of files
        assert read(address, "../results/records.jsonl")[0] == 404
        assert read(address, Host="stranger.example")[0] == 403


def test_a_port_that_is_taken_is_named(make: SimpleNamespace, tmp_path: Path) -> None:
    RecordStore(tmp_path / "results").append(make.counts("a"))
    live = LiveReport([tmp_path / "results"], out=tmp_path / "site")
    with serving(live, port=0) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match=f"port {port} cannot be used"), serving(live, port=port):
            pass
