"""Counts of other FLOP counters for the same models, and why they differ from ours."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import format_exact
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

HEADS = (
    ColumnHead(name="Model"),
    ColumnHead(name="Clip"),
    ColumnHead(name="Counter"),
    ColumnHead(name="Printed", is_number=True, meaning="the count as the tool prints it"),
    ColumnHead(name="Comparable", is_number=True, meaning="the part that counts the same operations as vbench"),
    ColumnHead(name="Difference", is_number=True, meaning="comparable count minus the count of vbench"),
    ColumnHead(name="Verdict"),
    ColumnHead(name="Why"),
)
TEMPLATE = """
{% if loud %}<p class="loud"><strong>{{ loud }} unexplained.</strong> Quote neither count before the
difference is explained.</p>
{% endif %}
{{ table }}
"""


@register_section("counters", title="Other counters", order=67, page="ledger")
def show_counter_reports(results: Results) -> str | None:
    """One row per counter and model, with the operators or modules that explain a difference."""
    lines = {line.cells: line for line in _table_rows(results)}
    if not lines:
        return None
    table = Table(
        name="counters-table",
        caption="Multiply-accumulates of one clip by other counters",
        heads=HEADS,
        rows=tuple(lines.values()),
    )
    loud = sum(line.cells[6].text == "unexplained" for line in lines.values())
    return render(TEMPLATE, table=table.html(), loud=loud)


def _table_rows(results: Results) -> Iterator[TableRow]:
    for case in results.cases:
        for record in case.runs:
            found = record.details.get("counter_reports") or record.details.get("witnesses")
            for verdict in found if isinstance(found, list) else []:
                if isinstance(verdict, dict):
                    yield _table_row(
                        record.case.title.removesuffix(f" {case.case.point.clip}"), str(case.case.point.clip), verdict
                    )


def _table_row(model: str, clip: str, verdict: dict[str, Json]) -> TableRow:
    tool, convention = f"{verdict.get('tool')} {verdict.get('version')}", str(verdict.get("convention") or "")
    return TableRow(
        cells=(
            TableCell(text=model),
            TableCell(text=clip),
            TableCell(text=tool, title=f"counts {convention}" if convention else ""),
            *(_count(verdict.get(name)) for name in ("printed", "comparable", "difference")),
            TableCell(text=str(verdict.get("verdict"))),
            TableCell(text=str(verdict.get("why") or "")) if verdict.get("why") else TableCell(),
        )
    )


def _count(value: Json) -> TableCell:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return TableCell()
    return TableCell(text=format_exact(value, "").strip(), sort=float(value))
