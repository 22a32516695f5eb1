"""Charts as SVG for readers without a script, from the same data as plotly's: points and lines on two axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.reporting.rendering import render

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 640.0, 320.0
LEFT, BOTTOM, TOP, RIGHT = 64.0, 40.0, 10.0, 12.0
MOST_POINTS = 1000
TEMPLATE = """
<svg class="static-chart" viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ alt }}">
{% for x, text in across %}
<line x1="{{ x }}" x2="{{ x }}" y1="{{ top }}" y2="{{ height - bottom }}"></line>
<text x="{{ x }}" y="{{ height - bottom + 15 }}" text-anchor="middle">{{ text }}</text>
{% endfor %}
{% for y, text in up %}
<line x1="{{ left }}" x2="{{ width - right }}" y1="{{ y }}" y2="{{ y }}"></line>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{% endfor %}
{% for line in lines %}
<polyline points="{{ line }}"></polyline>
{% endfor %}
{% for point in points %}
{% if point.kind %}
<circle class="{{ point.kind }}" cx="{{ point.x }}" cy="{{ point.y }}" r="4"></circle>
{% endif %}
{% if point.text %}
<text x="{{ point.x + 6 }}" y="{{ point.y - 5 }}">{{ point.text }}</text>
{% endif %}
{% endfor %}
<text x="{{ (left + width - right) / 2 }}" y="{{ height - 5 }}" text-anchor="middle">{{ x_title }}</text>
<text x="{{ left }}" y="{{ top + 8 }}" class="title">{{ y_title }}</text>
</svg>
"""


BOX_LEFT, BOX_HEIGHT = 250.0, 22.0  # room for names, and the height of one row
BOXES = """
<svg class="static-chart" viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ alt }}">
{% for x, text in across %}
<line x1="{{ x }}" x2="{{ x }}" y1="{{ top }}" y2="{{ height - bottom }}"></line>
<text x="{{ x }}" y="{{ height - bottom + 15 }}" text-anchor="middle">{{ text }}</text>
{% endfor %}
{% for box in boxes %}
<text x="{{ left - 6 }}" y="{{ box.y + 4 }}" text-anchor="end">{{ box.name }}</text>
<line class="whisker" x1="{{ box.lowerfence }}" x2="{{ box.upperfence }}" y1="{{ box.y }}" y2="{{ box.y }}"></line>
<rect class="box" x="{{ box.q1 }}" y="{{ box.y - 6 }}" width="{{ box.width }}" height="12"></rect>
<line class="median" x1="{{ box.median }}" x2="{{ box.median }}" y1="{{ box.y - 6 }}" y2="{{ box.y + 6 }}"></line>
{% endfor %}
<text x="{{ (left + width - right) / 2 }}" y="{{ height - 5 }}" text-anchor="middle">{{ x_title }}</text>
</svg>
"""
ENDS = ("lowerfence", "q1", "median", "q3", "upperfence")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Places values on `start` to `end` in the drawing; logarithmic if `is_log`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, is_log: bool) -> "Axis":
        """An axis over all `values` with a margin of 5 %."""
        scaled = [math.log10(value) for value in values] if is_log else list(values)
        margin = 0.05 * (max(scaled) - min(scaled)) or 0.5
        return cls(low=min(scaled) - margin, high=max(scaled) + margin, start=start, end=end, is_log=is_log)

    def place(self, value: float) -> float:
        scaled = math.log10(value) if self.is_log else value
        return round(self.start + (scaled - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of round values: 1, 2 and 5 times powers of ten."""
        if self.is_log:
            exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
            values = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
            inside = [value for value in values if self.low <= math.log10(value) <= self.high]
        else:
            step = _round_step((self.high - self.low) / 5)
            inside = [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(self.place(value), f"{value:.6g}") for value in inside]


def static_chart(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], *, alt: str) -> "Markup | str":
    """An SVG of the scatter traces or of one trace of boxes; empty for others, or if an axis has no numbers."""
    if len(traces) == 1 and traces[0].get("type") == "box":
        return _static_boxes(traces[0], layout.get("xaxis") or {}, alt=alt)
    points = [list(_numbers(trace)) for trace in traces]
    drawn = [pair for pairs in points for pair in pairs]
    axes = [layout.get(name) or {} for name in ("xaxis", "yaxis")]
    if not drawn or any(trace.get("type") != "scatter" for trace in traces):
        return ""
    is_log = [axis.get("type") == "log" for axis in axes]
    if any(log and min(pair[place] for pair in drawn) <= 0 for place, log in enumerate(is_log)):
        return ""
    x_axis = Axis.over([x for x, _, _ in drawn], LEFT, WIDTH - RIGHT, is_log=is_log[0])
    y_axis = Axis.over([y for _, y, _ in drawn], HEIGHT - BOTTOM, TOP, is_log=is_log[1])
    lines = [
        " ".join(f"{x_axis.place(x)},{y_axis.place(y)}" for x, y, _ in pairs)
        for trace, pairs in zip(traces, points, strict=True)
        if "lines" in trace.get("mode", "")
    ]
    markers = [
        {"x": x_axis.place(x), "y": y_axis.place(y), "text": text, "kind": _kind(trace) if has_circles else ""}
        for trace, pairs in zip(traces, points, strict=True)
        if (has_circles := "markers" in trace.get("mode", "")) or "text" in trace.get("mode", "")
        for x, y, text in pairs[:MOST_POINTS]
        if has_circles or text
    ]
    titles = [str((axis.get("title") or {}).get("text", "")) for axis in axes]
    return render(
        TEMPLATE,
        alt=alt,
        across=x_axis.ticks,
        up=y_axis.ticks,
        lines=lines,
        points=markers,
        x_title=_plain(titles[0]),
        y_title=_plain(titles[1]),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
        top=TOP,
        right=RIGHT,
    )


def _static_boxes(trace: Mapping[str, Any], axis: Mapping[str, Any], *, alt: str) -> "Markup | str":
    """Horizontal boxes from the middle half of each row, with whiskers and the median."""
    ends = {end: trace.get(end) or [] for end in ENDS}
    known = [value for values in ends.values() for value in values]
    is_log = axis.get("type") == "log"
    if not known or not all(map(math.isfinite, known)) or (is_log and min(known) <= 0):
        return ""
    x_axis = Axis.over(known, BOX_LEFT, WIDTH - RIGHT, is_log=is_log)
    boxes = []
    for row, (name, *values) in enumerate(zip(trace.get("y") or [], *ends.values(), strict=False)):
        placed = dict(zip(ENDS, map(x_axis.place, values), strict=True))
        width = round(placed["q3"] - placed["q1"], 1)
        boxes.append({"name": _plain(str(name)), "y": TOP + BOX_HEIGHT * (row + 0.5), "width": width, **placed})
    return render(
        BOXES,
        alt=alt,
        across=x_axis.ticks,
        boxes=boxes,
        x_title=_plain(str((axis.get("title") or {}).get("text", ""))),
        width=WIDTH,
        height=TOP + BOX_HEIGHT * len(boxes) + BOTTOM,
        left=BOX_LEFT,
        bottom=BOTTOM,
        top=TOP,
        right=RIGHT,
    )


def _numbers(trace: Mapping[str, Any]) -> Any:
    texts = trace.get("text") or []
    for place, (x, y) in enumerate(zip(trace.get("x") or [], trace.get("y") or [], strict=False)):
        if all(isinstance(v, int | float) and math.isfinite(v) for v in (x, y)):
            yield float(x), float(y), _plain(texts[place]) if place < len(texts) else ""


def _kind(trace: Mapping[str, Any]) -> str:
    colour = str((trace.get("marker") or {}).get("color", ""))
    return "hollow" if "paper" in colour else "accent" if "accent" in colour else "even"


def _plain(text: str) -> str:
    """The text of which plotly's escapes were made."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(digit for digit in (1, 2, 5, 10) if digit * power >= step)
