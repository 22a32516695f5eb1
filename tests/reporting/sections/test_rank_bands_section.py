"""The section of rank bands, for cases of the same videos."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.reporting.results import collect
from bench.reporting.sections.rank_bands import show_ranks
from bench.train.predictions import Predictions, store_predictions


def test_cases_of_the_same_videos_are_ranked_together(make: SimpleNamespace, tmp_path: Path) -> None:
    records = []
    for name, right in (("worse", 40), ("good", 190), ("same", 191)):
        labels = np.zeros(200, dtype=np.int64)
        scores = np.eye(2, dtype=np.float32)[(np.arange(200) >= right).astype(int)]
        videos = tuple(f"v{number}" for number in range(200))
        found = Predictions(videos=videos, labels=labels, scores=scores, classes=("a", "b"), protocol={})
        store_predictions(tmp_path / f"{name}.parquet", found)
        records.append(make.accuracy(name, artifacts={"predictions": f"{name}.parquet"}))
    page = make.page(show_ranks(collect(records, folders={id(record): tmp_path for record in records})))
    rows = page.tables["rank-bands-0"][1:]
    assert [row[0].split()[0] for row in rows] == ["same", "good", "worse"]
    assert [row[1] for row in rows] == ["1–2", "1–2", "3"]


def test_a_single_case_has_no_rank(make: SimpleNamespace) -> None:
    assert show_ranks(collect([make.accuracy("c3d")])) is None
