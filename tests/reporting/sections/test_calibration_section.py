"""The section of calibration: its table and both of its curves, from kept predictions."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.reporting.results import collect
from bench.reporting.sections.calibration import show_calibration
from bench.train.predictions import Predictions, store_predictions


def test_each_case_has_its_errors_and_curves(make: SimpleNamespace, tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    scores = np.array([[0.8, 0.2]] * 4 + [[0.2, 0.8]] * 4, dtype=np.float32)  # one of eight is wrong
    videos = tuple(f"v{number}" for number in range(8))
    found = Predictions(videos=videos, labels=labels, scores=scores, classes=("a", "b"), protocol={})
    store_predictions(tmp_path / "p.parquet", found)
    record = make.accuracy("c3d", artifacts={"predictions": "p.parquet"})
    page = make.page(show_calibration(collect([record], folders={id(record): tmp_path})))
    (row,) = page.tables["calibration-table"][1:]
    assert row[2] == f"{(7 * 2 * 0.04 + 2 * 0.64) / 8:.3f}"
    assert row[3] == "12.5"  # all scores are equal, so every coverage has the risk of the whole
    reliability, risk = (json.loads(script) for script in page.scripts)
    assert sum(y == pytest.approx(100, abs=30) for y in reliability["data"][1]["y"]) >= 7
    assert (risk["data"][0]["x"], risk["data"][0]["y"]) == ([100.0], [12.5])
    assert row[0].endswith("|line 1")  # the number at the end of both lines
    assert [trace["text"][-1] for trace in (reliability["data"][1], risk["data"][0])] == ["1", "1"]


def test_results_without_predictions_have_no_such_section(make: SimpleNamespace) -> None:
    assert show_calibration(collect([make.accuracy("c3d")])) is None
