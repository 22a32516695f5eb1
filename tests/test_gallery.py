"""The gallery of the documentation: every example runs, and its figures become SVG files."""

import importlib.util
import runpy
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))


@pytest.fixture(scope="module")
def charts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery_charts", DOCS / "gallery_charts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_an_example_for_each_question() -> None:
    assert {file.stem for file in EXAMPLES} == {
        "plot_cost_of_the_zoo",
        "plot_kernel_depth",
        "plot_pareto",
        "plot_roofline",
        "plot_use_of_time",
    }


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs_and_draws(file: Path, charts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    picture = charts.svg(runpy.run_path(str(file))["figure"])
    drawn = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(picture).iter()}
    assert drawn & {"circle", "rect"}


def test_points_and_labels_of_a_figure_are_in_its_picture(charts: ModuleType) -> None:
    figure = go.Figure(
        [
            go.Scatter(x=[1, 2], y=[3, 4], mode="lines"),
            go.Scatter(x=[1], y=[3], text=["<a>"], mode="markers+text"),
        ]
    )
    figure.update_xaxes(title="cost").update_yaxes(title="gain")
    root = ElementTree.fromstring(charts.svg(figure))
    assert root.get("aria-label") == "gain against cost"
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<a>", "cost", "gain"} <= set(texts)
    (circle,) = root.iter("{http://www.w3.org/2000/svg}circle")
    assert circle.get("class") == "accent"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 1


def test_a_figure_that_cannot_be_drawn_is_an_error(charts: ModuleType) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        charts.svg(go.Figure(go.Bar(x=[1], y=[2])))
