"""Costs in print beside ours, counted at the clip that the publisher used, with what explains a difference."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import plural
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

HEADINGS = (
    ColumnHead(name="Model"),
    ColumnHead(name="In print", meaning="where the figure stands"),
    ColumnHead(name="Clip", meaning="frames x height x width that the publisher counted at"),
    ColumnHead(name="Printed", unit="GMACs", is_number=True, meaning="as printed, whatever its source calls it"),
    ColumnHead(name="Counted", unit="GMACs", is_number=True, meaning="multiply-accumulates of the same model there"),
    ColumnHead(name="Difference", unit="%", is_number=True),
    ColumnHead(name="Verdict"),
    ColumnHead(
        name="Why", meaning="another way of counting that gives the printed digits, or what is known beforehand"
    ),
)
TEMPLATE = """
<p>One view each, at the publisher's own clip, which may not be the clip of this report. {{ summary }}</p>
{{ table }}
"""


@register_section("printed-costs", title="Published costs", order=66)
def compare_with_print(results: Results) -> str | None:
    """One line for each printed cost of a model that was counted here."""
    lines = {line.cells: line for line in _lines(results)}
    if not lines:
        return None
    table = Table(
        name="printed-costs-table",
        caption="Published costs beside ours",
        heads=HEADINGS,
        rows=tuple(lines.values()),
    )
    verdicts = [line.cells[6].text for line in lines.values()]
    summary = ", ".join(
        f"{verdicts.count(word)} {'agree' if word == 'agrees' else word}"
        for word in ("agrees", "explained", "not explained")
        if word in verdicts
    )
    return render(TEMPLATE, table=table.html(), summary=f"{plural(len(verdicts), 'figure')}: {summary}.")


def _lines(results: Results) -> Iterator[TableRow]:
    for case in results.cases:
        for record in case.runs:
            found = record.details.get("published_costs")
            for row in found if isinstance(found, list) else []:
                if isinstance(row, dict):
                    yield _line(case.case.point.model, row)


def _line(model: str, row: dict[str, Json]) -> TableRow:
    printed, counted = _number(row.get("printed")), _number(row.get("counted"))
    difference = 100 * (printed / counted - 1) if printed is not None and counted else None
    why, status = str(row.get("explanation") or ""), str(row.get("status") or "")
    verdict = "agrees" if row.get("agrees") else "explained" if why else "not explained"
    claim = "" if status == "published" else status
    return TableRow(
        cells=(
            TableCell(text=model),
            TableCell(text=str(row.get("source")), below=claim, title=str(row.get("title") or "")),
            TableCell(text=str(row.get("clip"))),
            TableCell() if printed is None else TableCell(text=f"{printed:g}", sort=printed),
            TableCell() if counted is None else TableCell(text=f"{counted:.3f}", sort=counted),
            TableCell() if difference is None else TableCell(text=f"{difference:+.1f}", sort=difference),
            TableCell(text=verdict),
            TableCell(text=why) if why else TableCell(),
        )
    )


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
