"""Changed input: the effect of each change on the accuracy and on classes, and how much a model uses time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.registry import register_section
from bench.core.units import DASH, format_signed, plural
from bench.reporting.chart import SERIES, Chart, axis, error_bars, escaped
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

if TYPE_CHECKING:
    from bench.reporting.case_results import CaseResult
    from bench.train.change_effects import ChangeEffect, ChangeEffects, ClassEffect, RobustnessCurve

MOST_CLASSES = 200  # rows of the table of classes, of each case
TEMPLATE = """
<p>The same weights answer the same videos with the input changed in one way. Differences are paired: their intervals
and McNemar's exact p count only videos whose answer changes.</p>
{% for case in cases %}
<h3>{{ case.title }}</h3>
<p>{{ case.summary }}</p>
{{ case.table }}
{% if case.chart %}{{ case.chart }}{% endif %}
<details><summary>By class</summary>
{{ case.classes }}
</details>
{% endfor %}
{% if failed %}<p class="muted">{{ failed }}</p>{% endif %}
"""


@register_section("changed-input", title="Changed input", order=58, page="changed-input")
def show_changes(results: Results) -> str | None:
    """For each case with changes: a table of differences, robustness curves, and the classes that change most."""
    drawn, failed = [], []
    for number, case in enumerate(_changed_cases(results)):
        try:
            effects = _effects(results, case)
        except InputError as error:
            failed.append(f"{case.case.title}: {error}")
            continue
        if effects is not None:
            drawn.append(_case(case.case.title, effects, name=f"changes-{number}"))
    if not drawn and not failed:
        return None
    return render(TEMPLATE, cases=drawn, failed="; ".join(failed))


def _changed_cases(results: Results) -> "Iterator[CaseResult]":
    for case in results.cases:
        if case.runs and any("change" in metric.labels for metric in case.runs[-1].metrics):
            yield case


def _effects(results: Results, case: "CaseResult") -> "ChangeEffects | None":
    from bench.train.change_effects import change_effects
    from bench.train.predictions import read_changed_predictions

    file = results.artifact(case.runs[-1], "predictions")
    return None if file is None else change_effects(read_changed_predictions(file))


def _case(title: str, effects: "ChangeEffects", *, name: str) -> dict[str, Any]:
    chart = _chart(effects.curves, name=f"{name}-curves")
    return {
        "title": title,
        "summary": _summary(effects),
        "table": _table(effects, name=f"{name}-table").html(),
        "chart": chart.html() if chart.traces else "",
        "classes": _class_table(effects.effects, name=f"{name}-classes").html(),
    }


def _summary(effects: "ChangeEffects") -> str:
    parts = [f"top-1 of the unchanged input is {100 * effects.unchanged.value:.1f} %", *effects.use_of_time.sentences]
    error = effects.mean_corruption_error
    if error is not None:
        kinds = plural(len(effects.curves), "kind")
        parts.append(f"the mean corruption error over {kinds} of change is {100 * error:.1f} %")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _table(effects: "ChangeEffects", *, name: str) -> Table:
    heads = (
        ColumnHead(name="Change"),
        ColumnHead(name="Top-1", unit="%", is_number=True),
        ColumnHead(
            name="Difference", unit="points", is_number=True, meaning="to the unchanged input, with its 95 % interval"
        ),
        ColumnHead(name="p", is_number=True, meaning="McNemar's exact test on the same videos"),
        ColumnHead(name="Lost", is_number=True, meaning="videos that only the unchanged input gets right"),
        ColumnHead(name="Won", is_number=True, meaning="videos that only the changed input gets right"),
    )
    rows = tuple(_row(effect) for effect in effects.effects)
    return Table(name=name, caption="Accuracy by change of the input", heads=heads, rows=rows)


def _row(effect: "ChangeEffect") -> TableRow:
    difference = effect.difference
    value, low, high = (100 * each for each in (difference.value, difference.low, difference.high))
    return TableRow(
        cells=(
            TableCell(text=effect.name),
            TableCell(text=f"{100 * effect.top1.value:.1f}", sort=100 * effect.top1.value),
            TableCell(
                text=format_signed(value, 1),
                sort=value,
                below=f"{format_signed(low, 1)} to {format_signed(high, 1)}",
                low=low,
                high=high,
            ),
            TableCell(text=f"{effect.p:.2g}", sort=effect.p),
            TableCell(text=str(effect.agreement.only_a), sort=effect.agreement.only_a),
            TableCell(text=str(effect.agreement.only_b), sort=effect.agreement.only_b),
        )
    )


def _class_table(effects: "tuple[ChangeEffect, ...]", *, name: str) -> Table:
    """The classes that change most, over all changes: classes that need the order of frames lose most without it."""
    heads = (
        ColumnHead(name="Class"),
        ColumnHead(name="Change"),
        ColumnHead(name="Videos", is_number=True),
        ColumnHead(name="Unchanged", unit="%", is_number=True),
        ColumnHead(name="Changed", unit="%", is_number=True),
        ColumnHead(name="Difference", unit="points", is_number=True),
        ColumnHead(name="p", is_number=True, meaning="McNemar's exact test, not corrected for the number of classes"),
    )
    pairs = [(effect.name, each) for effect in effects for each in effect.classes]
    pairs.sort(key=lambda pair: -abs(pair[1].difference))
    rows = tuple(_class_row(change, each) for change, each in pairs[:MOST_CLASSES])
    return Table(name=name, caption="Classes by their difference", heads=heads, rows=rows)


def _class_row(change: str, each: "ClassEffect") -> TableRow:
    numbers = [
        (100 * value, sign) for value, sign in ((each.unchanged, ""), (each.changed, ""), (each.difference, "+"))
    ]
    return TableRow(
        cells=(
            TableCell(text=each.name),
            TableCell(text=change),
            TableCell(text=str(each.videos), sort=each.videos),
            *(TableCell(text=f"{value:{sign}.1f}", sort=value) for value, sign in numbers),
            TableCell(text=f"{each.p:.2g}" if each.p < 1 else DASH, sort=each.p),
        )
    )


def _chart(curves: "tuple[RobustnessCurve, ...]", *, name: str) -> Chart:
    """Top-1 by the place of a severity, from mild to hard; changes with a single severity are in the table only."""
    several = [curve for curve in curves if len(curve.points) > 1]
    traces = [_trace(curve, SERIES[number % len(SERIES)]) for number, curve in enumerate(several)]
    return Chart(
        name=name,
        traces=traces,
        layout={
            "xaxis": axis("Severity, from mild to hard", nticks=6),
            "yaxis": axis("Top-1, %", nticks=6),
            "showlegend": True,
        },
        caption="Robustness: top-1 with 95 % intervals as a change becomes harder.",
        alt=f"Top-1 by severity of {plural(len(several), 'kind')} of change.",
    )


def _trace(curve: "RobustnessCurve", colour: str) -> dict[str, Any]:
    top1 = [100 * top.value for _, top in curve.points]
    lows, highs = [100 * top.low for _, top in curve.points], [100 * top.high for _, top in curve.points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(1, len(top1) + 1)),
        "y": top1,
        "error_y": error_bars(top1, lows, highs, color=colour),
        "name": escaped(curve.name),
        "text": [f"{curve.name}:{value:g}" for value, _ in curve.points],
        "line": {"color": colour, "width": 1.6},
        "marker": {"color": colour},
        "hovertemplate": "%{text}: %{y:.1f} %<extra></extra>",
    }
