"""Plug-in modules: what they register is known when a suite is planned, run and reported."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.core.registry import DATASETS, MEASURES, MODELS, SECTIONS
from bench.core.schema import Case, Clip, Metric, Point, Record
from bench.runner.estimate import START_SECONDS
from bench.runner.running import plan
from bench.store import RecordStore, read_records

PLUGIN = '''
import torch
from torch import nn

from bench.data.datasets.folder import open_folder
from bench.core.registry import register_dataset, register_measure, register_section
from bench.core.schema import Metric


@register_measure("sparse", depends_on={"model", "args", "clip"}, version=3)
def sparse(case, *, below: float = 0.0):
    """Percent of weights that are no larger."""
    return []


@register_dataset("cellar", described_at="https://example.org", num_classes=2)
def cellar(root, *, split):
    """My videos."""
    return open_folder(root, split=split)


@register_section("own_words", title="In own words", order=1)
def own_words(results):
    """How many records there are."""
    return f"<p>there are {len(results.records)} of them</p>"
'''
SUITE = """\
suite: mine
plugins: [brings_all]
models: [{name: c3d_search, num_classes: 2}]
matrix: {clip: [16x1x32]}
measure: {sparse: {below: 0.5}, accuracy: {dataset: cellar, recipe: quick}}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a plug-in that is forgotten afterwards."""
    (tmp_path / "brings_all.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    registries = (MODELS, MEASURES, DATASETS, SECTIONS)
    before = [(registry, set(registry._all())) for registry in registries]
    yield tmp_path
    for registry, names in before:
        for name in set(registry._entries) - names:
            del registry._entries[name]
    sys.modules.pop("brings_all", None)


def test_a_plugin_that_imports_torch_registers_measures_and_data_sets(plugin: Path) -> None:
    (plugin / "mine.yaml").write_text(SUITE)
    cases = plan("mine.yaml", out=plugin / "out").suite.cases
    assert {name: options for case in cases for name, options in case.measures.items()} == {
        "sparse": {"below": 0.5},
        "accuracy": {},
    }
    assert [case.point.dataset for case in cases if "accuracy" in case.measures] == ["cellar"]


def test_a_misspelt_measure_of_a_plugin_gets_a_suggestion(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plugin / "mine.yaml").write_text(SUITE.replace("sparse:", "sparce:"))
    assert run_command(["plan", "mine.yaml", "--out", "out"]) == 2
    assert "mine.yaml:5:11: unknown measure 'sparce'; did you mean: sparse?" in capsys.readouterr().err


def test_sections_of_a_plugin_stand_in_reports(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("16x1x112")), measures={"params": {}})
    record = Record(
        case=case, case_id=case.id, run_index=0, freshness="", status="ok", started_at="2026-01-01T00:00:00Z"
    )
    RecordStore(plugin / "out").append(record)
    assert run_command(["report", "out", "--out", "site"]) == 0
    assert "there are 1 of them" not in (plugin / "site" / "index.html").read_text()
    assert run_command(["report", "out", "--out", "site", "--plugin", "brings_all"]) == 0
    assert "there are 1 of them" in (plugin / "site" / "index.html").read_text()
    capsys.readouterr()
    assert run_command(["report", "out", "--plugin", "brings_nothing"]) == 2
    assert "'brings_nothing' cannot be imported" in capsys.readouterr().err


ROUGHNESS = '''
"""Share of weights above a limit."""

from bench import COUNT_AXES, MetricSpec, register_measure

SHARE = MetricSpec(
    "roughness.share_percent", "%", "lower", title="Rough weights", meaning="weights above the <limit>", headline=True
)
LARGEST = MetricSpec("roughness.largest", "", None, title="Largest weight", meaning="largest absolute weight")


@register_measure("roughness", depends_on=COUNT_AXES, version=1, metrics=[SHARE, LARGEST], duration_s=321)
def roughness(case, *, limit: float = 0.0):
    """Percent of the weights above a limit, and the largest."""
    weights = [float(p.abs().max()) for p in case.build_model("cpu").parameters()]
    return [SHARE.metric(12.5, is_exact=True), LARGEST.metric(max(weights), is_exact=True)]
'''
ROUGHNESS_SUITE = """\
suite: rough
plugins: [brings_all]
models: [{name: c3d_search, num_classes: 2, width: 2}]
matrix: {clip: [16x1x32, 16x1x48]}
measure: {roughness: {}}
"""


def test_a_new_measure_is_planned_and_reported_from_its_one_file(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plugin / "brings_all.py").write_text(ROUGHNESS)
    (plugin / "rough.yaml").write_text(ROUGHNESS_SUITE)
    assert run_command(["plan", "rough.yaml", "--out", "out", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["estimate_s"] == 2 * (START_SECONDS + 321)
    assert [case["run_s"] for case in planned["cases"]] == 2 * [START_SECONDS + 321]
    assert run_command(["plan", "rough.yaml", "--out", "out"]) == 0
    assert capsys.readouterr().out.count("about 0:05:26") == 2

    assert run_command(["run", "rough.yaml", "--out", "out"]) == 0
    records = read_records(plugin / "out")
    assert [record.status for record in records] == ["ok", "ok"]
    assert not any(warning for record in records for warning in record.warnings)
    page = (plugin / "out" / "report" / "board.html").read_text()
    assert "Rough weights" in page
    assert "weights above the &lt;limit&gt;; lower is better" in page
    assert "12.5" in page


def test_records_of_a_measure_that_is_gone_are_reported_by_name(plugin: Path) -> None:
    case = Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("16x1x112")), measures={"vanished": {}})
    metric = Metric(name="vanished.wait_ms", value=17.25, unit="ms", better="lower", is_exact=True)
    record = Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        status="ok",
        started_at="2026-01-01T00:00:00Z",
        metrics=(metric,),
    )
    RecordStore(plugin / "out").append(record)
    assert run_command(["report", "out", "--out", "site"]) == 0
    page = (plugin / "site" / "board.html").read_text()
    assert "Vanished wait" in page
    assert "17.25" in page
