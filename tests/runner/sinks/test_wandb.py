"""A real wandb in offline mode: what the files that it writes instead of sending hold."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.core.schema import Record

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

HEADER_BYTES, BLOCK_BYTES = 7, 32_768  # wandb's files are logs of LevelDB
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def entries(file: Path) -> Iterator[Any]:
    """Yield the protobuf messages of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record as Message

    data, place, parts = file.read_bytes(), HEADER_BYTES, b""
    while place + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER_BYTES:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + HEADER_BYTES : place + HEADER_BYTES + length]
        place += HEADER_BYTES + length
        if kind in (WHOLE, LAST):
            yield Message.FromString(parts)
            parts = b""


def stored_run(folder: Path) -> dict[str, Any]:
    """The run that a folder `offline-run-…` holds: name, group, config, summary and exit code."""
    (file,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"summary": {}, "config": {}}
    for entry in entries(file):
        if entry.HasField("run"):
            run = entry.run
            found |= {"name": run.display_name, "group": run.run_group, "project": run.project}
            found["config"] |= {each.key: json.loads(each.value_json) for each in run.config.update}
        if entry.HasField("summary"):
            for each in entry.summary.update:
                found["summary"][each.key or "/".join(each.nested_key)] = json.loads(each.value_json)
        if entry.HasField("exit"):
            found["exit_code"] = entry.exit.exit_code
    return found


def test_the_offline_files_have_a_run_for_each_record(
    send: Callable[..., list[str]], records: list[Record], tmp_path: Path
) -> None:
    warnings = send("wandb:lab/videos", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    assert warnings == ["None", "None"], "what a tracker prints would mix with --log-json"
    runs = [stored_run(folder) for folder in (tmp_path / "wandb").glob("offline-run-*")]
    good, broken = sorted(runs, key=lambda run: run["config"]["run"])
    assert (good["name"], good["group"], good["project"]) == (records[0].case.title, "kernel_depth", "videos")
    for name, value in {"model": "c3d", "batch": 8, "num_classes": 4, "cpu": "Epyc", "status": "ok"}.items():
        assert good["config"][name] == value
    measured = {name: value for name, value in good["summary"].items() if not name.startswith("_")}
    assert measured == {"throughput.clips_per_s{batch=8}": 50.5, "macs.forward": 38_547_423_232}
    assert (good["exit_code"], broken["exit_code"], broken["config"]["status"]) == (0, 1, "error")


def test_a_tracker_without_a_login_costs_one_warning(send: Callable[..., list[str]], tmp_path: Path) -> None:
    variables = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}
    first, second = send("wandb:videos", WANDB_MODE="online", WANDB_DIR=str(tmp_path), **variables)
    assert first.startswith("--sink wandb: ")
    assert second == "None"
