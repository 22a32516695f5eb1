"""The page of one model: its rows of the board, where its MACs are, training, input protocol, and all its cases."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.registry import find_metric_spec
from bench.core.schema import Json
from bench.core.units import DASH, format_exact, format_number, format_value, plural
from bench.reporting.board import Board
from bench.reporting.case_results import CaseResult
from bench.reporting.confusion import class_accuracies, single_label_predictions
from bench.reporting.contact_sheet import VideoSource, error_sections
from bench.reporting.links import Links, paper_page
from bench.reporting.metric_table import metric_table
from bench.reporting.metric_text import STATUSES, listed, metric_name, value_text
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.reproduction import zoo_name
from bench.reporting.results import Results
from bench.reporting.sections.roofline import rooflines
from bench.reporting.sections.training_curves import curve_charts
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow, plain_table
from bench.reporting.treemap import leaves, treemap

HIDDEN = frozenset({"unread_first", "leaks_allowed", "shared_with_training"})  # parts that are not of the input
MOST_TILES = 120
# Amounts by module that a record may have: its detail, the name of the amount and its unit.
AMOUNTS = {
    "macs_by_module": ("MACs", "MACs"),
    "params_by_module": ("Parameters", "elements"),
    "bytes_by_module": ("Bytes read and written", "B"),
}
MODULES = """
<div class="switch">
{% for amount in amounts %}
<input type="radio" name="{{ key }}-amount" id="{{ key }}-amount-{{ loop.index }}" \
{{ "checked" if loop.first }}>
<label for="{{ key }}-amount-{{ loop.index }}">{{ amount.name }}</label>
{% endfor %}
{% for amount in amounts %}
<figure class="chart">
{{ amount.drawing }}
<figcaption>{{ amount.name }} by module: {{ amount.total }}. Areas are shares.</figcaption>
</figure>
{% endfor %}
</div>
<details><summary>The same as a table</summary>
{{ table }}
</details>
"""
CHARTS = '<div class="charts">{% for chart in charts %}{{ chart }}{% endfor %}</div>'


def model_sections(
    results: Results, label: str, cases: Sequence[CaseResult], links: Links, *, most_clips: int = 0
) -> list[DrawnSection]:
    """The sections of the page of the model with this label; those without content are left out.

    With `most_clips` the confusion matrix leads to the contact sheets of `error_sections`.
    """
    key = results.model_names[label].partition("/")[2]
    charts = [chart.html() for chart in curve_charts(results, cases, name=key)]
    drawn: list[tuple[str, str, Any]] = [
        ("model", "Results", _rows(results, label, key)),
        ("arguments", "Arguments", _arguments(cases, key)),
        ("modules", "Where the cost is", _modules(cases, key)),
        ("roofline", "Roofline", rooflines(results, cases, links, f"{key}-roofline")),
        ("training", "Training", render(CHARTS, charts=charts) if charts else ""),
        ("classes", "Accuracy by class", _classes(results, cases, key, links, most_clips=most_clips)),
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


def _arguments(cases: Sequence[CaseResult], key: str) -> Any:
    """How the model is created, where it is written, and the paper that describes it."""
    point = cases[0].case.point
    name = zoo_name(point)
    facts: dict[str, Json] = {"model": point.model, **point.args, **({"name in the zoo": name} if name else {})}
    for fact, detail in (("paper", "model_paper"), ("source", "model_source")):
        known = [found for case in cases for run in case.runs if (found := run.details.get(detail))]
        facts |= {fact: known[0]} if known else {}
    weights = dict.fromkeys(str(case.case.point.weights) for case in cases if case.case.point.weights)
    facts |= {"weights": listed(weights)} if weights else {}
    rows = tuple(
        TableRow(
            cells=(
                TableCell(text=fact),
                TableCell(text=text or DASH, href=paper_page(text) if fact == "paper" else ""),
            )
        )
        for fact, text in ((fact, value_text(value)) for fact, value in facts.items())
    )
    heads = (ColumnHead(name="Fact"), ColumnHead(name="Value"))
    return Table(name=f"{key}-arguments", caption="How the model is created", heads=heads, rows=rows).html()


def _modules(cases: Sequence[CaseResult], key: str) -> Any:
    """A treemap of each known amount by module and a table of all, from the first records that have them."""
    found: dict[str, dict[str, float]] = {}
    for record in (record for case in cases for record in case.runs):
        for detail in AMOUNTS:
            amounts = record.details.get(detail)
            if detail not in found and isinstance(amounts, dict) and any(amounts.values()):
                found[detail] = {n: float(v) for n, v in amounts.items() if isinstance(v, int | float)}
    if not found:
        return ""
    drawn = []
    for detail in (detail for detail in AMOUNTS if detail in found):
        name, unit = AMOUNTS[detail]
        parts = _with_rest(leaves(found[detail]))
        alt = f"Treemap of {plural(len(parts), 'module')} by {name}"
        total = format_value(found[detail].get("", sum(parts.values())), unit)
        drawn.append({"name": name, "total": total or "0", "drawing": treemap(parts, alt=alt)})
    return render(MODULES, key=key, amounts=drawn, table=_module_table(found, key).html())


def _with_rest(parts: Mapping[str, float]) -> dict[str, float]:
    """The largest parts, and the sum of the others as one part."""
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    rest = [amount for _, amount in ordered[MOST_TILES:] if amount]
    return {**dict(ordered[:MOST_TILES]), **({plural(len(rest), "smaller module"): sum(rest)} if rest else {})}


def _module_table(found: Mapping[str, Mapping[str, float]], key: str) -> Table:
    """Every module with its submodules included; the model itself is the empty name."""
    details = [detail for detail in AMOUNTS if detail in found]
    names = dict.fromkeys(name for detail in details for name in found[detail])
    heads = [ColumnHead(name=AMOUNTS[detail][0], is_number=True, is_best_first=True) for detail in details]
    rows = [
        TableRow(
            cells=(
                TableCell(text=name or "the model"),
                *(
                    TableCell(text=format_value(v, AMOUNTS[d][1]), sort=v, below=_share(v, found[d]))
                    if (v := found[d].get(name)) is not None
                    else TableCell()
                    for d in details
                ),
            )
        )
        for name in names
    ]
    caption = "Amounts of each module with all below it, and their shares of the model"
    return Table(name=f"{key}-modules", caption=caption, heads=(ColumnHead(name="Module"), *heads), rows=tuple(rows))


def _share(amount: float, amounts: Mapping[str, float]) -> str:
    whole = amounts.get("")
    return f"{format_number(100 * amount / whole, 1)} %" if whole else ""


def _classes(results: Results, cases: Sequence[CaseResult], key: str, links: Links, *, most_clips: int) -> Any:
    """Accuracies by class of the first case with stored predictions; other seeds have theirs in the results folder."""
    case, file = first_predictions(results, cases)
    if case is None or file is None:
        return ""
    errors_page = partial(links.page, f"errors/{key}")
    return class_accuracies(file, title=case.case.title, name=key, most_clips=most_clips, errors_page=errors_page)


def first_predictions(results: Results, cases: Sequence[CaseResult]) -> tuple[CaseResult | None, Path | None]:
    """The first case with stored predictions, and their file; None for both if there is none."""
    for case in cases:
        file = results.artifact(case.runs[-1], "predictions") if case.runs else None
        if file is not None:
            return case, file
    return None, None


def error_sheets(
    results: Results, label: str, cases: Sequence[CaseResult], links: Links, *, root: Path | None, most_clips: int
) -> list[DrawnSection]:
    """The contact sheets of the model's errors; none without stored predictions of one label a video.

    The videos are in `root`, or else where the case says that its data set is.
    """
    case, file = first_predictions(results, cases)
    found = None if file is None else single_label_predictions(file)
    if case is None or found is None:
        return []
    options = next((each for each in case.case.measures.values() if "root" in each or "options" in each), {})
    recorded, own = options.get("root"), options.get("options")
    source = VideoSource(
        root=root or (Path(recorded) if isinstance(recorded, str) else None),
        options=own if isinstance(own, dict) else {},
    )
    page = results.model_names[label]
    return error_sections(
        found, source, name=page.partition("/")[2], links=links, model_page=links.page(page), most=most_clips
    )


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
