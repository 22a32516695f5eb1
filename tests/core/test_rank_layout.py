"""How ranks are divided among nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout

COUNT = st.integers(1, 64)


@pytest.mark.parametrize(
    ("options", "ranks", "nodes", "per_node"),
    [
        ({}, 1, 1, 1),
        ({"ranks": None, "nodes": None}, 1, 1, 1),
        ({"ranks": 8}, 8, 1, 8),
        ({"nodes": 2}, 2, 2, 1),
        ({"ranks": 8, "nodes": 2}, 8, 2, 4),
    ],
)
def test_ranks_are_those_of_all_nodes(options: dict[str, int | None], ranks: int, nodes: int, per_node: int) -> None:
    layout = RankLayout.of(options)
    assert (layout.ranks, layout.nodes, layout.ranks_per_node) == (ranks, nodes, per_node)


@given(COUNT, COUNT)
def test_every_node_has_as_many_ranks_or_the_layout_is_refused(ranks: int, nodes: int) -> None:
    if ranks % nodes:
        with pytest.raises(
            InputError, match=f"{ranks} ranks, those of all nodes, cannot be divided evenly among {nodes}"
        ):
            RankLayout.of({"ranks": ranks, "nodes": nodes})
    else:
        layout = RankLayout.of({"ranks": ranks, "nodes": nodes})
        assert layout.ranks_per_node * layout.nodes == ranks
