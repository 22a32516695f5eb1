"""Squarified treemaps as SVG, which needs no script.

Bruls, Huizing and van Wijk, 2000, Squarified Treemaps, doi 10.1007/978-3-7091-6783-0_4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.reporting.rendering import safe

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 720.0, 260.0
LETTER_WIDTH, LINE_HEIGHT = 6.6, 15.0
SERIES = 6


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One rectangle; its area is proportional to its share. Tiles of one first part of the name share a colour."""

    name: str
    text: str
    series: int
    x: float
    y: float
    width: float
    height: float

    @property
    def is_labelled(self) -> bool:
        """Whether the name fits into the rectangle."""
        return self.width > LETTER_WIDTH * len(self.name) + 8 and self.height > LINE_HEIGHT + 4


def treemap(amounts: Mapping[str, float], *, alt: str) -> "Markup":
    """An SVG treemap of amounts by dotted name; zeros are left out.

    Written without a template, which takes most of the time of a page with hundreds of rectangles.
    """
    from markupsafe import Markup

    tiles = "\n".join(map(_tile_svg, tiles_of(amounts)))
    return Markup(
        f'<svg class="treemap" data-explained viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{safe(alt)}">'
        f"\n{tiles}\n</svg>"
    )


def _tile_svg(tile: Tile) -> str:
    name = safe(tile.name)
    label = f'<text x="{tile.x + 5:.1f}" y="{tile.y + 15:.1f}">{name}</text>' if tile.is_labelled else ""
    return (
        f'<g><title>{name}: {safe(tile.text)}</title><rect class="series-{tile.series}" x="{tile.x:.1f}" '
        f'y="{tile.y:.1f}" width="{tile.width:.1f}" height="{tile.height:.1f}"></rect>{label}</g>'
    )


def leaves(amounts: Mapping[str, float]) -> dict[str, float]:
    """The modules that contain no other module of `amounts`; the whole model is the empty name."""
    inner = {name.rpartition(".")[0] for name in amounts if name}
    inner |= {prefix for name in list(inner) for prefix in _prefixes(name)}
    return {name: amount for name, amount in amounts.items() if name and name not in inner}


def tiles_of(amounts: Mapping[str, float]) -> list[Tile]:
    """Rectangles that fill the whole area, the largest first."""
    items = sorted(((name, amount) for name, amount in amounts.items() if amount > 0), key=lambda item: -item[1])
    total = sum(amount for _, amount in items)
    groups = {
        group: 1 + i % SERIES for i, group in enumerate(dict.fromkeys(name.partition(".")[0] for name, _ in items))
    }
    areas = [amount / total * WIDTH * HEIGHT for _, amount in items]
    return [
        Tile(
            name=name,
            text=f"{amount:,.0f} ({100 * amount / total:.1f} %)",
            series=groups[name.partition(".")[0]],
            x=x,
            y=y,
            width=width,
            height=height,
        )
        for (name, amount), (x, y, width, height) in zip(items, _squarified(areas), strict=True)
    ]


def _squarified(areas: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """x, y, width and height for each area: rows along the shorter side, as near to squares as they get."""
    x, y, width, height = 0.0, 0.0, WIDTH, HEIGHT
    rectangles: list[tuple[float, float, float, float]] = []
    start = 0
    while start < len(areas):
        side = min(width, height)
        end = start + 1
        while end < len(areas) and _worst_ratio(areas[start : end + 1], side) <= _worst_ratio(areas[start:end], side):
            end += 1
        depth = sum(areas[start:end]) / side
        offset = 0.0
        for area in areas[start:end]:
            length = area / depth
            is_column = width >= height
            rectangles.append((x, y + offset, depth, length) if is_column else (x + offset, y, length, depth))
            offset += length
        if width >= height:
            x, width = x + depth, max(width - depth, 1e-9)
        else:
            y, height = y + depth, max(height - depth, 1e-9)
        start = end
    return rectangles


def _worst_ratio(areas: Sequence[float], side: float) -> float:
    """The largest ratio of sides among rectangles of these areas that share one row along `side`."""
    total = sum(areas)
    return max(side**2 * max(areas) / total**2, total**2 / (side**2 * min(areas)))


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
