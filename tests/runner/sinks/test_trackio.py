"""A real trackio without a network: what its database on this machine holds."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bench.core.schema import Record

pytestmark = pytest.mark.slow


def test_the_local_database_has_a_run_for_each_record(
    send: Callable[..., list[str]], records: list[Record], tmp_path: Path
) -> None:
    warnings = send("trackio:videos", TRACKIO_DIR=str(tmp_path / "trackio"))
    assert warnings == ["None", "None"], "what a tracker prints would mix with --log-json"
    with closing(sqlite3.connect(tmp_path / "trackio" / "videos.db")) as database:
        configs = [json.loads(text) for (text,) in database.execute("select config from configs order by id")]
        metrics = [json.loads(text) for (text,) in database.execute("select metrics from metrics order by id")]
        names = [name for (name,) in database.execute("select run_name from configs order by id")]
    assert names == [f"{each.case.title} {each.case_id}-{each.run_index}" for each in records]
    assert [each["status"] for each in configs] == ["ok", "error"]
    for name, value in {"model": "c3d", "batch": 8, "num_classes": 4, "cpu": "Epyc", "suite": "kernel_depth"}.items():
        assert configs[0][name] == value
    assert metrics[0] == {"throughput.clips_per_s{batch=8}": 50.5, "macs.forward": 38_547_423_232}


def test_a_folder_that_cannot_be_written_costs_one_warning(send: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first, second = send("trackio:videos", TRACKIO_DIR=str(tmp_path / "file" / "trackio"))
    assert first.startswith("--sink trackio: ")
    assert second == "None"
