"""A watched report is written again for every change of the records, and never without one."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.cli.app import run_command
from bench.core.errors import StoreError
from bench.reporting.watching import watch
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
        watch(tmp_path / "results", out=tmp_path / "site", wait=wait, on_written=count)
    assert rows == [2, 3]


def test_an_open_page_knows_the_version_it_is_of(make: SimpleNamespace, tmp_path: Path) -> None:
    RecordStore(tmp_path / "results").append(make.counts("a"))

    def stop(seconds: float) -> None:
        raise StopLookingError

    with pytest.raises(StopLookingError):
        watch([tmp_path / "results"], out=tmp_path / "site", wait=stop, on_written=lambda index: None)
    page = make.page((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    (version,) = (given["data-version"] for _, given in page.tags if "data-version" in given)
    assert f'"version":"{version}"' in (tmp_path / "site" / "data" / "version.js").read_text(encoding="utf-8")


def test_a_source_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        watch(tmp_path / "nowhere", out=tmp_path / "site", wait=lambda seconds: None, on_written=lambda index: None)


def test_a_single_file_cannot_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", "results", "--watch", "--single-file"]) == 2
    assert "give one of them" in capsys.readouterr().err
