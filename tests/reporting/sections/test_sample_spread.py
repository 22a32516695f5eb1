"""The spread of the samples."""

import json
from types import SimpleNamespace

from bench.reporting.results import collect
from bench.reporting.sections.sample_spread import show_spread


def test_boxes_are_labelled_by_what_differs(make: SimpleNamespace) -> None:
    records = [make.timing("c3d", ms=depth, args={"depth": depth, "width": 2}) for depth in (1, 3)]
    html = str(show_spread(collect([*records, make.accuracy("r3d")])))
    (figure,) = (json.loads(script) for script in make.page(html).scripts)
    assert figure["data"][0]["y"] == ["c3d depth=1", "c3d depth=3"]


def test_boxes_of_one_model_in_two_suites_name_the_suite(make: SimpleNamespace) -> None:
    html = str(show_spread(collect([make.timing("c3d", suite=suite) for suite in ("nightly", "weekly")])))
    (figure,) = (json.loads(script) for script in make.page(html).scripts)
    assert figure["data"][0]["y"] == ["c3d nightly", "c3d weekly"]
