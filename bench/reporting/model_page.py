"""The page of one model: its rows of the board, where its MACs are, training, input protocol, and all its cases."""

from collections.abc import Sequence
from typing import Any

from bench.core.registry import find_metric_spec
from bench.core.schema import Json
from bench.core.units import format_exact, format_value, plural
from bench.reporting.board import Board
from bench.reporting.case_results import CaseResult
from bench.reporting.confusion import class_accuracies
from bench.reporting.links import Links
from bench.reporting.metric_table import metric_table
from bench.reporting.metric_text import STATUSES, metric_name, value_text
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.reproduction import zoo_name
from bench.reporting.results import Results
from bench.reporting.sections.training_curves import curve_charts
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow, plain_table
from bench.reporting.treemap import leaves, treemap

HIDDEN = frozenset({"unread_first", "leaks_allowed", "shared_with_training"})  # parts that are not of the input
MOST_TILES = 200
MODULES = """
<figure class="chart">
{{ treemap }}
<figcaption>Multiply-accumulates by module: {{ total }} in one forward pass. Areas are shares.</figcaption>
</figure>
"""
CHARTS = '<div class="charts">{% for chart in charts %}{{ chart }}{% endfor %}</div>'


def model_sections(results: Results, label: str, cases: Sequence[CaseResult], links: Links) -> list[DrawnSection]:
    """The sections of the page of the model with this label; those without content are left out."""
    key = results.model_names[label].partition("/")[2]
    charts = [chart.html() for chart in curve_charts(results, cases, name=key)]
    drawn: list[tuple[str, str, Any]] = [
        ("model", "Results", _rows(results, label, key)),
        ("arguments", "Arguments", _arguments(cases[0], key)),
        ("modules", "Where the MACs are", _modules(cases)),
        ("training", "Training", render(CHARTS, charts=charts) if charts else ""),
        ("classes", "Accuracy by class", _classes(results, cases, key)),
        ("input", "Input protocol", _input_protocol(cases, key)),
        ("cases", "Cases", _cases(results, cases, links, key)),
    ]
    return [DrawnSection(name=f"{kind}-{key}", title=title, html=html) for kind, title, html in drawn if html]


def _rows(results: Results, label: str, key: str) -> Any:
    """The headlines of every execution mode, training and clip of the model."""
    board = Board(rows=results.rows_of.get(label, ()))  # scales and best values of this model alone
    if not board.headlines:
        return ""
    factors = [*results.board.varying, *(["machine"] if len(results.timed_machines) > 1 else [])]
    caption = "Every row of the board of this model"
    name, columns = f"{key}-rows", board.headlines
    return metric_table(board, board.rows, name=name, caption=caption, columns=columns, factors=factors).html()


def _arguments(case: CaseResult, key: str) -> Any:
    point = case.case.point
    name = zoo_name(point)
    facts = {"model": point.model, **point.args, **({"name in the zoo": name} if name else {})}
    rows = [(fact, value_text(value)) for fact, value in facts.items()]
    return plain_table(
        f"{key}-arguments", caption="How the model is created", heads=("Fact", "Value"), rows=rows
    ).html()


def _modules(cases: Sequence[CaseResult]) -> Any:
    """A treemap of the modules, from the first record that counted them."""
    for record in (record for case in cases for record in case.runs):
        found = record.details.get("macs_by_module")
        if isinstance(found, dict):
            amounts = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
            parts = dict(sorted(leaves(amounts).items(), key=lambda item: -item[1])[:MOST_TILES])
            if any(parts.values()):
                total = format_value(amounts.get("", sum(parts.values())), "MACs")
                drawing = treemap(parts, alt=f"Treemap of {plural(len(parts), 'module')} by multiply-accumulates")
                return render(MODULES, treemap=drawing, total=total)
    return ""


def _classes(results: Results, cases: Sequence[CaseResult], key: str) -> Any:
    """Accuracies by class of the first case with stored predictions; other seeds have theirs in the results folder."""
    for case in cases:
        file = results.artifact(case.runs[-1], "predictions") if case.runs else None
        if file is not None:
            return class_accuracies(file, title=case.case.title, name=key)
    return ""


def _input_protocol(cases: Sequence[CaseResult], key: str) -> Any:
    """How the first evaluation of each data set prepared its videos."""
    protocols: dict[str, dict[str, Json]] = {}
    for case in cases:
        for record in case.runs:
            found = record.details.get("protocol")
            if isinstance(found, dict):
                protocols.setdefault(value_text(case.case.point.dataset), found)
    names = dict.fromkeys(n for found in protocols.values() for n in found if n not in HIDDEN)
    rows = [(n.replace("_", " "), *(value_text(found.get(n)) for found in protocols.values())) for n in names]
    heads = ("Fact", *protocols)
    return (
        plain_table(f"{key}-input", caption="Videos and their preparation", heads=heads, rows=rows).html()
        if rows
        else ""
    )


def _cases(results: Results, cases: Sequence[CaseResult], links: Links, key: str) -> Any:
    heads = (
        ColumnHead(name="Case"),
        ColumnHead(name="Measures"),
        ColumnHead(name="Status"),
        ColumnHead(name="Runs", is_number=True),
        ColumnHead(name="First metrics"),
    )
    rows = [
        TableRow(
            cells=(
                TableCell(text=case.case.title, href=links.page(results.case_names[id(case)])),
                TableCell(text=", ".join(case.case.measures)),
                TableCell(text=STATUSES[case.latest[-1].status]),
                TableCell(text=str(len(case.runs)), sort=len(case.runs)),
                TableCell(text=_first_metrics(case) or "none"),
            )
        )
        for case in cases
    ]
    return Table(name=f"{key}-cases", caption="Every case of this model", heads=heads, rows=tuple(rows)).html()


def _first_metrics(case: CaseResult) -> str:
    known = [recorded[0].metric for recorded in case.metrics.values() if recorded[0].value is not None]
    headlines = [m for m in known if (spec := find_metric_spec(m.name)) is not None and spec.headline] or known
    return "; ".join(f"{metric_name(m.name)} {format_exact(m.value, m.unit)}" for m in headlines[:2])
