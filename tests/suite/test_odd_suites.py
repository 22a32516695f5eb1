"""Whatever stands in a suite file: it is planned, or refused as the user's mistake; nothing else may come out."""

import io
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bench.catalog.catalog import Catalog
from bench.core.errors import BenchError, InputError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import ModelCheck, ModelInfo, Point
from bench.core.yaml_tree import read_yaml
from bench.suite import Suite, plan_suite, read_suite

SUITES = Path(__file__).parents[2] / "suites"
ALL = sorted(SUITES.glob("*.yaml"))
QUICKLY = settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a whole suite takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Unprobed(Catalog):
    """Knows the models that come with vbench, and builds none."""

    def model(self, name: str) -> ModelInfo:
        if ":" in name:
            raise InputError(f"{name} is not looked for here")
        return super().model(name)

    def look_up(self, names: Sequence[str]) -> None:
        return None

    def weights_protocol(self, weights: str, entry: str | None) -> InputProtocol:
        return InputProtocol.of({"clip": "8x2"} if weights == "stored.pt" else {}, mark="stored")

    def check_models(self, points: Sequence[Point]) -> list[ModelCheck]:
        return [ModelCheck() for _ in points]


@pytest.fixture(scope="module")
def facts() -> Catalog:
    return Unprobed()


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree, its root first."""
    yield place
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*place, key))


def at(tree: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        tree = tree[part]
    return tree


ODD_SCALARS = [None, True, False, 0, -1, 3, 1.5, float("nan"), float("inf"), 1 << 70, "", " ", "x", "off", "16x1x112"]
ODD_TEXTS = ["²x1x1", "trained:", "trained:motions/quick", "${env:NOWHERE}", "a:b", ":", "10xfull", "3%", "2s", "../x"]
ODD_LISTS = [[], {}, [[]], [{}], [None], {"": None}, ["motions"], [["motions"]], [1, [2]]]
ODD_CLIPS = [
    {"seconds": "2s", "fps": 15, "size": 112},
    {"seconds": 2, "fps": None, "size": 112},
    {"seconds": 1e300, "fps": 1e300, "size": [1, 2, 3]},
    {"size": {}},
]
ODD = st.one_of(
    st.sampled_from([*ODD_SCALARS, *ODD_TEXTS, *ODD_LISTS, *ODD_CLIPS]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


NAMES = st.text(max_size=4) | st.sampled_from(["seeds", "seed", "clip", "model", "include", "exclude"])
MARKS = [*"{}[]<&*!|>%@`'\":,?-~\t\n\0é", "<<: ", "&a ", "*a", "!!int ", "? ", "2020-13-45", "- - "]


@st.composite
def odd_suites(draw: st.DrawFn) -> tuple[Path, dict[str, Any]]:
    """The values of a suite that comes with vbench, with one to three of them changed, renamed or taken away."""
    path = draw(st.sampled_from(ALL))
    tree = deepcopy(read_yaml(path).data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(tree))[1:] or [()]))
        if not place:
            break
        parent, key = at(tree, place[:-1]), place[-1]
        what = draw(st.sampled_from(["change", "change", "rename", "drop"]))
        if what == "change":
            parent[key] = deepcopy(draw(ODD))
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(NAMES)] = parent.pop(key)
        else:
            del parent[key]
    return path, tree


def planned(folder: Path, text: str, facts: Catalog, *, small: bool = False) -> Suite | None:
    """The suite, or None where it was refused in words."""
    (folder / "suite.yaml").write_text(text, encoding="utf-8")
    try:
        return plan_suite(read_suite(folder / "suite.yaml", small=small), facts)
    except BenchError as error:
        assert str(error).strip()
        return None


@given(odd=odd_suites(), small=st.booleans())
@QUICKLY
def test_an_odd_value_anywhere_is_planned_or_refused(
    odd: tuple[Path, dict[str, Any]], small: bool, tmp_path: Path, facts: Catalog
) -> None:
    stream = io.StringIO()
    YAML(typ="safe").dump(odd[1], stream)
    planned(tmp_path, stream.getvalue(), facts, small=small)


@given(path=st.sampled_from(ALL), where=st.floats(0, 1), text=st.sampled_from(MARKS))
@QUICKLY
def test_odd_text_anywhere_is_planned_or_refused(
    path: Path, where: float, text: str, tmp_path: Path, facts: Catalog
) -> None:
    whole = path.read_text(encoding="utf-8")
    cut = int(where * len(whole))
    planned(tmp_path, whole[:cut] + text + whole[cut:], facts)
