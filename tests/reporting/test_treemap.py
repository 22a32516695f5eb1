"""Treemaps: areas are shares, and rectangles fill the drawing without overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.treemap import HEIGHT, WIDTH, leaves, tiles_of, treemap

AMOUNTS = st.dictionaries(st.text("abc.", min_size=1, max_size=6), st.floats(1, 1e9), min_size=1, max_size=30)


@given(AMOUNTS)
def test_areas_are_shares_of_the_whole_and_tiles_do_not_overlap(amounts: dict[str, float]) -> None:
    tiles, total = tiles_of(amounts), sum(amounts.values())
    for tile in tiles:
        assert tile.width * tile.height == pytest.approx(amounts[tile.name] / total * WIDTH * HEIGHT, rel=1e-6)
        assert -1e-6 <= tile.x <= tile.x + tile.width <= WIDTH + 1e-3
        assert -1e-6 <= tile.y <= tile.y + tile.height <= HEIGHT + 1e-3
    for i, a in enumerate(tiles):
        for b in tiles[i + 1 :]:
            across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert min(across, down) < 1e-3


def test_modules_that_contain_others_are_not_drawn_twice() -> None:
    assert leaves({"": 6.0, "stem": 1.0, "layer": 5.0, "layer.0": 2.0, "layer.1": 3.0}) == {
        "stem": 1.0,
        "layer.0": 2.0,
        "layer.1": 3.0,
    }


def test_names_of_modules_are_text() -> None:
    drawing = str(treemap({"</svg><script>": 1.0}, alt='"'))
    assert "<script" not in drawing
    assert drawing.count("</svg>") == 1
