"""Charts of an ablation: the levels, and their differences from the baseline."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from bench.core.stats import Estimate
from bench.core.units import choose_scale
from bench.reporting.ablation import POINTS, Ablation, Effect, level_text
from bench.reporting.board import Column
from bench.reporting.chart import ACCENT, INK, MUTED, Chart, axis, error_bars, tick_labels
from bench.reporting.findings import ablation_findings
from bench.reporting.metric_text import axis_name, listed, metric_name

HEIGHT_PX = 84
HEIGHT_OF_LEVEL_PX = 42
LONGEST_TICK = 22


def level_charts(ablation: Ablation, name: str) -> Iterator[Chart]:
    """A chart of the levels in the goal metric, unless they mix settings, and a chart of the differences."""
    goal = ablation.goal
    if goal is None:
        return
    effects = [ablation.effects[level, goal] for level in ablation.levels if (level, goal) in ablation.effects]
    if not ablation.contexts:
        yield _levels(ablation, goal, effects, f"{name}-levels")
    compared = [(effect, effect.difference) for effect in effects if effect.difference is not None]
    if compared:
        yield _differences(ablation, goal, compared, f"{name}-differences")


def _levels(ablation: Ablation, goal: Column, effects: list[Effect], name: str) -> Chart:
    """Every seed or run as a ring, and their summary as a dot with its interval."""
    scale = choose_scale([value for effect in effects for value in effect.values], goal.unit)
    ticks = _ticks(ablation, effects)
    middles = [(effect.summary.value or 0.0) / scale.divisor for effect in effects]
    lows, highs = ([getattr(effect.summary, end) / scale.divisor for effect in effects] for end in ("low", "high"))
    singles = [(v / scale.divisor, tick) for e, tick in zip(effects, ticks, strict=True) for v in e.values]
    label, unit = metric_name(goal.metric), scale.unit_after(metric_name(goal.metric))
    return _chart(
        name,
        ticks,
        title=f"{label}, {unit}" if unit else label,
        traces=[
            _markers(
                *zip(*singles, strict=True), style={"color": "rgba(0,0,0,0)", "line": {"color": MUTED, "width": 1}}
            ),
            {
                **_markers(middles, ticks, style=_style(INK, effects)),
                "error_x": error_bars(middles, lows, highs, color=INK),
            },
        ],
        caption=f"{label} by {axis_name(ablation.factor)}. Rings are single seeds or runs; dots: "
        f"{listed(dict.fromkeys(effect.summary.how for effect in effects))}.",
    )


def _differences(ablation: Ablation, goal: Column, compared: list[tuple[Effect, Estimate]], name: str) -> Chart:
    """The mean difference of every level with its interval, and a line at no difference."""
    is_ratio = any(effect.is_ratio for effect, _ in compared)
    factor = 100.0 if goal.unit == "fraction" and not is_ratio else 1.0
    middles, lows, highs = ([getattr(d, end) * factor for _, d in compared] for end in ("value", "low", "high"))
    ticks = _ticks(ablation, [effect for effect, _ in compared])
    baseline, none = ablation.baseline_text, 1.0 if is_ratio else 0.0
    label = metric_name(goal.metric)
    unit = "points" if goal.unit in POINTS else goal.unit
    title = f"{label}, ratio to {baseline}" if is_ratio else f"{label}, {unit} from {baseline}"
    return _chart(
        name,
        ticks,
        title=title,
        traces=[
            {
                **_markers(middles, ticks, style=_style(ACCENT, [effect for effect, _ in compared])),
                "error_x": error_bars(middles, lows, highs, color=ACCENT),
            }
        ],
        caption="Mean of the paired differences with its 95 % interval. The dotted line is no difference.",
        alt=" ".join(ablation_findings(ablation)),
        shapes=[_vertical_line(none)],
        reach=[*middles, *lows, *highs, none],
    )


def _chart(
    name: str,
    ticks: list[str],
    *,
    title: str,
    traces: list[dict[str, Any]],
    caption: str,
    alt: str = "",
    shapes: list[dict[str, Any]] | None = None,
    reach: list[float] | None = None,
) -> Chart:
    """A chart with one row of markers per level; the x axis covers `reach`, or the markers if it is None."""
    rows = list(dict.fromkeys(ticks))[::-1]
    values = axis(title, nticks=6)
    if reach:
        values["range"] = _range(reach)
    levels = axis(type="category", categoryorder="array", categoryarray=rows, showgrid=False)
    return Chart(
        name=name,
        height_px=HEIGHT_PX + HEIGHT_OF_LEVEL_PX * len(rows),
        traces=traces,
        layout={"xaxis": values, "yaxis": {**levels, "range": [-0.6, len(rows) - 0.4]}, "shapes": shapes or []},
        caption=caption,
        alt=alt,
    )


def _style(color: str, effects: Sequence[Effect]) -> dict[str, Any]:
    """Filled markers, hollow for levels whose timings are doubtful."""
    symbols = [
        "circle-open" if effect.verdict == "doubtful" or effect.summary.doubts else "circle" for effect in effects
    ]
    return {"color": color, "symbol": symbols}


def _markers(xs: Any, ys: Any, *, style: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(xs),
        "y": list(ys),
        "marker": {"size": 9, **style},
        "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
    }


def _vertical_line(x: float) -> dict[str, Any]:
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _range(values: list[float]) -> list[float]:
    known = [value for value in values if math.isfinite(value)]
    pad = 0.08 * (max(known) - min(known) or 1.0)
    return [min(known) - pad, max(known) + pad]


def _ticks(ablation: Ablation, effects: list[Effect]) -> list[str]:
    return tick_labels([level_text(ablation.levels[effect.level]) for effect in effects], longest=LONGEST_TICK)
