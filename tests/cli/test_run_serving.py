"""`vbench run --serve`: the report of a suite while it runs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

SUITE = """
suite: served
models: [{name: c3d_search, kernel_depth: [1, 3], width: 0.125, num_classes: 8}]
matrix: {clip: [8x1x32]}
measure: {params: {}}
"""


@pytest.mark.slow
def test_a_served_run_shows_its_records_and_ends_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "served.yaml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "bench", "run", "served.yaml", "--serve", "--log-json"]
    shown = []
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        events = map(json.loads, process.stdout)
        first = next(events)
        assert first["event"] == "serving"
        for event in events:
            if event["event"] == "finished":
                with urlopen(f"{first['address']}data/version.js") as answer:
                    answer.read()
                with urlopen(first["address"]) as answer:
                    found = re.search(r"from (\d+) record", answer.read().decode())
                # The next case may have ended before the page was read.
                shown.append(found is not None and int(found[1]) >= event["done"])
    assert process.returncode == 0
    assert shown == [True, True]
    with pytest.raises(OSError, match="refused"):
        urlopen(first["address"])
    assert "live.js" not in (tmp_path / "results" / "served" / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_run_before_its_first_case(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    (tmp_path / "served.yaml").write_text(SUITE, encoding="utf-8")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        command = [sys.executable, "-m", "bench", "run", "served.yaml", "--serve", "--port", str(other.server_port)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"port {other.server_port} cannot be used" in done.stderr
    assert not (tmp_path / "results" / "served" / "records.jsonl").exists()
