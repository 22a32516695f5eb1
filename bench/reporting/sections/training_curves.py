"""Training curves: loss and accuracy by epoch, for every model and seed whose curves were kept."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import plural
from bench.reporting.board import Board
from bench.reporting.case_results import CaseResult
from bench.reporting.chart import MUTED, SERIES, Chart, axis, escaped
from bench.reporting.metric_text import axis_name, value_text
from bench.reporting.rendering import render
from bench.reporting.results import Results

MOST_POINTS = 300
MOST_TRAININGS = 60
NAMED_SETTINGS = ("suite", "clip", "dataset", "split", "weights", "recipe")
PANELS = {"loss": "Training loss", "val_top1": "Top-1 after the epoch, %"}
TEMPLATE = """
{% if colours | length <= most %}
<ul class="key">
{% for model, colour in colours.items() %}
<li style="--colour: {{ colour }}">{{ model }}</li>
{% endfor %}
</ul>
{% endif %}
<div class="charts">
{% for chart in charts %}
{{ chart }}
{% endfor %}
</div>
{% if left_out %}<p class="muted">The curves of {{ left_out }} more trainings are not drawn; their CSV files are in the
results folders.</p>{% endif %}
"""


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """The curves of one training; `rows` has one mapping from column to value per epoch, without unknown values."""

    model: str
    seed: int | None
    rows: list[dict[str, float]]

    def points(self, column: str) -> list[tuple[float, float]]:
        """(epoch, value) if both are known; thinned evenly above `MOST_POINTS`, the last one kept."""
        found = [(row["epoch"], row[column]) for row in self.rows if "epoch" in row and column in row]
        return [*found[: -1 : math.ceil(len(found) / MOST_POINTS) or 1], *found[-1:]]


@register_section("curves", title="Training curves", order=55, page="training")
def draw_curves(results: Results) -> str | None:
    """One chart of the loss and one of the accuracy, with a colour per model if there are few."""
    known = [curve for curve in _curves(results, results.cases) if curve.rows]
    curves = known[:MOST_TRAININGS]
    models = list(dict.fromkeys(curve.model for curve in curves))
    colours = {n: SERIES[i] if len(models) <= len(SERIES) else MUTED for i, n in enumerate(models)}
    charts = [_chart(curves, column, title, colours) for column, title in PANELS.items()]
    shown = [chart.html() for chart in charts if chart.traces]
    left_out = len(known) - len(curves)
    return render(TEMPLATE, charts=shown, colours=colours, most=len(SERIES), left_out=left_out) if shown else None


def curve_charts(results: Results, cases: Sequence[CaseResult], *, name: str) -> list[Chart]:
    """Charts of the trainings of `cases`, which are of one model; their names begin with `name`."""
    curves = [curve for curve in _curves(results, cases) if curve.rows][:MOST_TRAININGS]
    colours = {curve.model: SERIES[0] for curve in curves}
    charts = [_chart(curves, column, title, colours) for column, title in PANELS.items()]
    return [replace(chart, name=f"{name}-{chart.name}") for chart in charts if chart.traces]


def _curves(results: Results, cases: Sequence[CaseResult]) -> Iterator[TrainingCurve]:
    trainings = _trainings(results, cases)
    names = _names(list(trainings.values()), results.board)
    for (file, case), model in zip(trainings.items(), names, strict=True):
        yield TrainingCurve(model=model, seed=case.case.point.seed, rows=_read(file))


def _trainings(results: Results, cases: Sequence[CaseResult]) -> dict[Path, CaseResult]:
    """Files of curves, each with the first case that evaluated the training."""
    found: dict[Path, CaseResult] = {}
    for case in cases:
        file = results.artifact(case.runs[-1], "curves") if case.runs else None
        if file is not None:
            found.setdefault(file, case)
    return found


def _names(cases: Sequence[CaseResult], board: Board) -> list[str]:
    """The model of each case, and the settings other than the seed that differ between the trainings."""
    axes = [{"suite": case.case.suite, **case.case.point.named()} for case in cases]
    shown = [axis for axis in NAMED_SETTINGS if len({str(each.get(axis)) for each in axes}) > 1]
    having = {(each["model"], axis) for each in axes for axis in shown if axis in each}
    return [
        ", ".join(
            [_model_cell(case, board), *_words(each, [axis for axis in shown if (each["model"], axis) in having])]
        )
        for case, each in zip(cases, axes, strict=True)
    ]


def _model_cell(case: CaseResult, board: Board) -> str:
    point = case.case.point
    return f"{point.model} {board.args_text(point.model, point.args)}".strip()


def _words(axes: Mapping[str, Json], names: Sequence[str]) -> list[str]:
    return [value_text(axes[axis]) if axis in axes else f"no {axis_name(axis)}" for axis in names]


def _read(file: Path) -> list[dict[str, float]]:
    """The rows of a CSV file, up to the first error."""
    rows: list[dict[str, float]] = []
    with suppress(OSError, UnicodeDecodeError, csv.Error), file.open(newline="", encoding="utf-8") as lines:
        rows.extend(map(_numbers, csv.DictReader(lines)))
    return rows


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: number for name, text in row.items() if (number := _number(text)) is not None}


def _number(text: object) -> float | None:
    with suppress(ValueError, TypeError):
        number = float(str(text))
        return number if math.isfinite(number) else None
    return None


def _chart(curves: list[TrainingCurve], column: str, title: str, colours: dict[str, str]) -> Chart:
    drawn = [(curve, points) for curve in curves if (points := curve.points(column))]
    return Chart(
        name=f"curves-{column}",
        traces=[_trace(curve, points, colours[curve.model]) for curve, points in drawn],
        layout={"xaxis": axis("Epoch", nticks=6), "yaxis": axis(title, nticks=6)},
        alt=f"{title}, by epoch, of {plural(len(drawn), 'training')}.",
    )


def _trace(curve: TrainingCurve, points: list[tuple[float, float]], colour: str) -> dict[str, Any]:
    seed = "" if curve.seed is None else f", seed {curve.seed}"
    return {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "name": escaped(f"{curve.model}{seed}"),
        "line": {"color": colour, "width": 1.6},
        "marker": {"color": colour},
        "hovertemplate": "%{fullData.name}<br>epoch %{x}: %{y:.4g}<extra></extra>",
    }
