"""The section of changed input, from kept predictions to its sentence, tables and curves."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.reporting.board import build_board
from bench.reporting.results import Results, collect
from bench.reporting.sections.changed_input import show_changes
from bench.train.predictions import Predictions, store_predictions

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
FILE = "artifacts/a/predictions.parquet"


def predicting(classes: list[int]) -> Predictions:
    videos = tuple(f"v{number}" for number in range(8))
    scores = np.eye(3, dtype=np.float32)[classes]
    return Predictions(videos=videos, labels=LABELS, scores=scores, classes=("<b>jump</b>", "run", "sit"), protocol={})


@pytest.fixture
def results(make: SimpleNamespace, tmp_path: Path) -> Results:
    changed = {
        "shuffled": predicting([0, 0, 0, 0, 0, 0, 0, 0]),
        "jpeg:80": predicting([0, 0, 0, 0, 1, 1, 1, 2]),
        "jpeg:30": predicting([0, 0, 0, 2, 1, 1, 1, 2]),
    }
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    store_predictions(file, predicting([0, 0, 0, 0, 1, 1, 1, 1]), changed=changed)
    metrics = [make.metric("accuracy.top1", 100.0, "%")]
    metrics += [make.metric("accuracy.top1", 50.0, "%", labels={"change": name}) for name in changed]
    record = make.record("c3d", *metrics, dataset="motions", artifacts={"predictions": FILE})
    return collect([record], folders={id(record): tmp_path})


def test_each_change_has_its_difference_its_p_and_its_classes(make: SimpleNamespace, results: Results) -> None:
    page = make.page(show_changes(results))
    rows = page.tables["changes-0-table"][1:]
    assert [row[0] for row in rows] == ["shuffled", "jpeg:80", "jpeg:30"]
    assert [row[1] for row in rows] == ["50.0", "87.5", "75.0"]
    assert [row[2].split("|")[0] for row in rows] == ["−50.0", "−12.5", "−25.0"]
    assert [row[3] for row in rows] == ["0.12", "1", "0.5"]
    assert [row[4:] for row in rows] == [["4", "0"], ["1", "0"], ["2", "0"]]
    classes = page.tables["changes-0-classes"][1:]
    assert classes[0][:5] == ["run", "shuffled", "4", "100.0", "0.0"]
    assert {row[0] for row in classes} == {"<b>jump</b>", "run"}


def test_the_sentence_says_what_order_is_worth_and_the_mean_error(results: Results) -> None:
    html = str(show_changes(results))
    assert "Top-1 of the unchanged input is 100.0 %; 50 % (" in html
    assert "of the top-1 is lost when the frames are shuffled" in html
    assert "the mean corruption error over 1 kind of change is 18.8 %" in html


def test_a_curve_runs_from_mild_to_hard(make: SimpleNamespace, results: Results) -> None:
    (chart,) = (json.loads(script) for script in make.page(show_changes(results)).scripts)
    (trace,) = chart["data"]
    assert (trace["text"], trace["y"]) == (["jpeg:80", "jpeg:30"], [87.5, 75.0])


def test_the_leaderboard_has_the_unchanged_input_only(results: Results) -> None:
    assert [column.labels for column in build_board(results.cases).headlines] == [()]


def test_results_without_changes_have_no_such_section(make: SimpleNamespace) -> None:
    assert show_changes(collect([make.accuracy("c3d")])) is None
