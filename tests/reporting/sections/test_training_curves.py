"""Training curves: each training once, and no two models under one name."""

import json
from pathlib import Path
from types import SimpleNamespace

from bench.reporting.results import collect
from bench.reporting.sections.training_curves import draw_curves


def test_trainings_without_weights_and_from_weights_have_names_and_colours_of_their_own(
    make: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("afresh", "begun"):
        (tmp_path / f"{name}.csv").write_text("epoch,loss,val_top1\n1,2.0,50\n2,1.0,60\n")
    afresh, begun = {"artifacts": {"curves": "afresh.csv"}}, {"artifacts": {"curves": "begun.csv"}}
    records = [
        make.accuracy("r3d", **afresh),
        make.accuracy("r3d", views="3x1", **afresh),
        make.accuracy("r3d", weights="k700.pt", **begun),
    ]
    html = draw_curves(collect(records, folders={id(record): tmp_path for record in records}))
    assert html is not None
    loss, _ = (json.loads(script) for script in make.page(html).scripts)
    assert [trace["name"] for trace in loss["data"]] == ["r3d, no weights, seed 0", "r3d, k700.pt, seed 0"]
    assert len({trace["line"]["color"] for trace in loss["data"]}) == 2
