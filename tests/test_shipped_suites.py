"""The suites that come with vbench: each can be planned, in full and small, on a machine without data or weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog
from bench.core.recipe_choice import RecipeChoice
from bench.core.schema import Case, ModelCheck, Point, Pretraining
from bench.runner.running import plan
from bench.suite import plan_suite, read_suite
from bench.train.recipe import read_recipe

SUITES = Path(__file__).parents[1] / "suites"
ALL = sorted(path.stem for path in SUITES.glob("*.yaml"))
WITH_SMALL = [name for name in ALL if read_suite(SUITES / f"{name}.yaml").data.get("small")]
GRAPHS = "cudagraphs"
FORMS = [(name, False) for name in ALL] + [(name, True) for name in WITH_SMALL]


class Unprobed(Catalog):
    """Knows all models by name and arguments, and builds none."""

    def probe(self, points: Sequence[Point]) -> list[ModelCheck]:
        return [ModelCheck() for _ in points]


@pytest.fixture(scope="module")
def facts() -> Catalog:
    return Unprobed()


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def cases_of(name: str, *, small: bool, facts: Catalog) -> tuple[Case, ...]:
    return plan_suite(read_suite(SUITES / f"{name}.yaml", small=small), facts).cases


def recipes_of(case: Case) -> Iterator[str]:
    if "accuracy" in case.measures:
        pretraining = Pretraining.of(case.point.weights)
        yield from filter(None, (case.point.recipe, pretraining and pretraining.recipe))


@pytest.mark.parametrize(("name", "small"), FORMS)
@pytest.mark.usefixtures("no_data")
def test_each_suite_is_planned_without_data_and_its_recipes_are_there(name: str, small: bool, facts: Catalog) -> None:
    cases = cases_of(name, small=small, facts=facts)
    assert cases
    for recipe in {recipe for case in cases for recipe in recipes_of(case)}:
        choice = RecipeChoice.parse(recipe)
        assert read_recipe(SUITES / "recipes" / f"{choice.name}.yaml", choice=choice).recipe == choice.name


@pytest.mark.parametrize("name", WITH_SMALL)
def test_small_forms_need_nothing_that_is_not_here(name: str, facts: Catalog) -> None:
    for case in cases_of(name, small=True, facts=facts):
        point = case.point
        assert point.clip.height <= 64
        assert point.weights is None or Pretraining.of(point.weights) is not None
        if "accuracy" in case.measures:
            assert point.dataset == "motions"
            assert case.measures["accuracy"]["workers"] == 0


@pytest.mark.parametrize("name", sorted(set(ALL) - set(WITH_SMALL)))
def test_a_suite_without_a_small_form_runs_on_motions_unchanged(name: str, facts: Catalog) -> None:
    cases = cases_of(name, small=False, facts=facts)
    assert {case.point.dataset for case in cases if "accuracy" in case.measures} == {"motions"}


def test_a_model_costs_the_same_with_any_weights(facts: Catalog) -> None:
    """Three trainings and three checkpoints of Kinetics-700 are six accuracies of three networks."""
    cases = cases_of("kinetics700", small=False, facts=facts)
    by_measure = {name: [case for case in cases if name in case.measures] for name in ("macs", "latency", "accuracy")}
    assert {name: len(found) for name, found in by_measure.items()} == {"macs": 3, "latency": 3, "accuracy": 6}


def test_the_kernel_depths_are_those_of_the_paper(facts: Catalog) -> None:
    cases = cases_of("c3d_kernel_depth", small=False, facts=facts)
    depths = {str(case.point.args["kernel_depth"]) for case in cases}
    assert depths == {"1", "3", "5", "7", "increasing", "decreasing"}


def test_the_gpu_suite_has_no_cuda_graph_of_a_model_that_cannot_be_captured(facts: Catalog) -> None:
    """torchvision's MViT indexes tables on the GPU by numbers in main memory, which are copied in each pass."""
    recorded = [case.point.model for case in cases_of("gpu", small=False, facts=facts) if case.point.compile == GRAPHS]
    assert "torchvision:mvit_v2_s" not in recorded
    assert len(set(recorded)) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("name", "small"), FORMS)
@pytest.mark.usefixtures("no_data")
def test_every_model_of_a_suite_can_be_built_and_takes_its_clip(name: str, small: bool, tmp_path: Path) -> None:
    """The real plan: each network is built on the meta device and given its clip; what cannot be is a SuiteError."""
    planned = plan(SUITES / f"{name}.yaml", small=small, out=tmp_path / "out")
    assert planned.suite.cases
    assert len(planned.pending) == sum(case.runs for case in planned.suite.cases)
