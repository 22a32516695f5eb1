"""Charts as data: plotly draws them in the browser, in the colours of the page, when they scroll into view."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.reporting.rendering import harmless, render_file
from bench.reporting.static_chart import static_chart

if TYPE_CHECKING:
    from markupsafe import Markup

# Colours are custom properties of the style sheet; the page's script replaces them by the values of the theme.
INK, MUTED, RULE, ACCENT, PAPER = "var(--ink)", "var(--muted)", "var(--rule)", "var(--accent)", "var(--paper)"
SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
FONT = {"family": "var(--font)", "size": 12, "color": INK}
AXIS: dict[str, Any] = {
    "gridcolor": RULE,
    "linecolor": RULE,
    "tickcolor": RULE,
    "tickfont": {"color": MUTED, "size": 11},
    "zeroline": False,
    "automargin": True,
    "title": {"font": {"size": 12, "color": INK}, "standoff": 8},
}
LAYOUT: dict[str, Any] = {
    "font": FONT,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
    "showlegend": False,
    "hovermode": "closest",
    "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK, "size": 12}, "align": "left"},
    "dragmode": False,
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A plotly figure as plain data, with a `caption` below it and a text alternative `alt`."""

    name: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
    alt: str = ""
    height_px: int = 320

    def figure(self) -> dict[str, Any]:
        """`{data, layout}`, with the project's template under this chart's own layout."""
        return {"data": list(self.traces), "layout": merged(LAYOUT, {"height": self.height_px, **self.layout})}

    def html(self) -> "Markup":
        """The element of the chart, and its data as JSON that cannot end the surrounding script element."""
        static = static_chart(self.traces, self.layout, alt=self.alt or self.caption)
        return render_file("chart.html", chart=self, data=as_script(self.figure()), static=static)


def axis(title: str = "", **settings: Any) -> dict[str, Any]:
    """An axis in the project's style, with this title."""
    return merged(AXIS, {"title": {"text": escaped(title)}, **settings})


def log_axis(title: str, values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis with a full number at each tick.

    plotly writes only the first digit of what is between powers of ten, which reads as 2 where 20 is meant.
    """
    known = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = math.log10(min(known, default=1.0)), math.log10(max(known, default=10.0))
    digits = (1, 2, 5) if high - low < 3 else (1,)
    ticks = [digit * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for digit in digits]
    return axis(title, type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:.12g}" for tick in ticks])


def error_bars(middles: Sequence[float], lows: Sequence[float], highs: Sequence[float], **look: Any) -> dict[str, Any]:
    """plotly's error bars from the ends of intervals; none if an end is not known."""
    above = [h - m if math.isfinite(h) else 0.0 for m, h in zip(middles, highs, strict=True)]
    below = [m - low if math.isfinite(low) else 0.0 for m, low in zip(middles, lows, strict=True)]
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 0, "thickness": 1.5}
    return {**bars, **look}


def escaped(text: str) -> str:
    """`text` escaped for plotly, which interprets some HTML tags in every text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def tick_labels(texts: Sequence[str], *, longest: int) -> list[str]:
    """Unique category names of an axis, because equal names share a place; long ones are cut but stay unique."""
    labels: dict[str, None] = {}
    for text in short_names(texts, longest=longest):
        label = escaped(text)
        while label in labels:
            label += "\N{ZERO WIDTH SPACE}"
        labels[label] = None
    return list(labels)


def short_names(texts: Sequence[str], *, longest: int) -> list[str]:
    """`texts` with at most `longest` characters: cut at the end, in the middle or at the start, so that they differ.

    If no such cut makes a text differ, it is cut before its first difference, and its end is kept.
    """
    kinds = [[cut(text, longest) for text in texts] for cut in (_without_end, _without_middle, _without_start)]
    letters = enumerate(zip(*texts, strict=False))
    shared = next((place for place, each in letters if len(set(each)) > 1), 0)
    kinds.append(
        [_without_middle(_without_start(text, max(longest, len(text) - shared + 8)), longest) for text in texts]
    )
    return [
        next((cut for cut, all_cut in zip(cuts, kinds, strict=True) if all_cut.count(cut) == 1), cuts[0])
        for cuts in zip(*kinds, strict=True)
    ]


def _without_end(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _without_middle(text: str, longest: int) -> str:
    end = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def _without_start(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"…{text[len(text) - longest + 1 :]}"


def as_script(data: Any) -> "Markup":
    """`data` as JSON for a script element; null for what is not finite."""
    from markupsafe import Markup

    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated with `over`, recursively."""
    both = dict(base)
    for key, value in over.items():
        is_nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if is_nested else value
    return both


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, str):
        return harmless(data)
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    return data
