"""What cases need of the jobs that run them."""

import pytest

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.core.schema import Case, Clip, Json, Point
from bench.runner.job_kind import JobKind
from bench.runner.selection import Selection


def case(**measures: dict[str, Json]) -> Case:
    return Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("4x1x16")), measures=measures)


COUNTED, TIMED, TRAINED = case(params={}), case(latency={}), case(accuracy={})
ON_ONE_NODE, ON_TWO_NODES = case(accuracy={"ranks": 8}), case(accuracy={"ranks": 8, "nodes": 2})


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (COUNTED, "untimed"),
        (TRAINED, "untimed"),
        (TIMED, "timed"),
        (ON_ONE_NODE, "untimed,ranks=8,nodes=1"),
        (ON_TWO_NODES, "untimed,ranks=8,nodes=2"),
        (case(scaling={"ranks": [1, 8]}), "timed"),
    ],
)
def test_a_kind_is_read_back_from_its_text(of: Case, text: str) -> None:
    kind = JobKind.of(of)
    assert str(kind) == text
    assert JobKind.from_text(text) == kind


def test_a_worker_selects_the_cases_of_its_kind() -> None:
    cases = [COUNTED, TIMED, TRAINED, ON_ONE_NODE, ON_TWO_NODES]
    chosen = {text: Selection(kind=JobKind.from_text(text)).of(cases) for text in ("untimed", "timed")}
    assert chosen == {"untimed": (COUNTED, TRAINED), "timed": (TIMED,)}
    kind = JobKind(layout=RankLayout(ranks=8, nodes=2))
    assert Selection(kind=kind).of(cases) == (ON_TWO_NODES,)


@pytest.mark.parametrize("text", ["", "fast", "untimed,ranks=8", "timed,nodes=2,ranks=8", "untimed,ranks=x,nodes=2"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a kind of job, such as timed or untimed,ranks=8,nodes=2"):
        JobKind.from_text(text)
