"""Accuracy by class on the page of a model, from stored predictions."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from bench.reporting.site import report
from bench.store import RecordStore
from bench.train.predictions import Predictions, store_predictions

FILE = "artifacts/a/predictions.parquet"
HOSTILE = "<b>fall</b>"


@pytest.fixture
def results(make: SimpleNamespace, tmp_path: Path) -> Path:
    """Five videos of three classes: one of `jump` is taken for a class with a hostile name."""
    predicted, labels = [0, 0, 1, 1, 2], [0, 0, 0, 1, 2]
    found = Predictions(
        videos=tuple("abcde"),
        labels=np.array(labels),
        scores=np.eye(3, dtype=np.float32)[predicted],
        classes=("jump", HOSTILE, "run"),
        protocol={},
    )
    file = tmp_path / "results" / FILE
    file.parent.mkdir(parents=True)
    store_predictions(file, found)
    RecordStore(tmp_path / "results").append(make.accuracy("c3d", artifacts={"predictions": FILE}))
    return tmp_path / "results"


def test_a_model_has_the_accuracy_and_the_confusions_of_each_class(
    make: SimpleNamespace, results: Path, tmp_path: Path
) -> None:
    html = report(results, out=tmp_path / "site").with_name("models").joinpath("c3d.html").read_text(encoding="utf-8")
    rows = make.page(html).tables["c3d-classes"][1:]
    assert [row[:2] for row in rows] == [["jump", "3"], [HOSTILE, "1"], ["run", "1"]]
    assert [row[2].split("|")[0] for row in rows] == ["66.7", "100.0", "100.0"]
    assert [row[3] for row in rows] == [f"{HOSTILE} (1)", "– (all videos are right)", "– (all videos are right)"]
    assert rows[0][2].split("|")[1] == "20.8–93.9"  # Wilson's interval of 2 in 3
    assert "jump as &lt;b&gt;fall&lt;/b&gt;: 1 of 3" in html
    assert HOSTILE not in html


def test_predictions_that_cannot_be_read_are_left_out(results: Path, tmp_path: Path) -> None:
    (results / FILE).write_bytes(b"not parquet")
    html = report(results, out=tmp_path / "site").with_name("models").joinpath("c3d.html").read_text(encoding="utf-8")
    assert "Accuracy by class" not in html
    assert "could not be drawn" not in html


def test_predictions_are_read_without_torch(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from bench.reporting.site import report; report(sys.argv[1], out=sys.argv[2]); "
        "bad = {'torch', 'plotly'} & set(sys.modules); assert not bad, bad"  # pyarrow imports pandas
    )
    subprocess.run([sys.executable, "-c", code, results, tmp_path / "site"], check=True)


def test_matrix_and_classes_can_be_saved_however_few_they_are(results: Path, tmp_path: Path) -> None:
    html = report(results, out=tmp_path / "site").with_name("models").joinpath("c3d.html").read_text(encoding="utf-8")
    found = re.search(r'href="data:text/csv;charset=utf-8,([^"]*)" download="c3d-confusion.csv"', html)
    assert found is not None
    assert unquote(found[1]) == f"true class,jump,{HOSTILE},run\njump,2,1,0\n{HOSTILE},0,1,0\nrun,0,0,1\n"
    table = html[html.index('data-table="c3d-classes"') :]
    assert 'data-do="save"' in table[: table.index("</table>")]
