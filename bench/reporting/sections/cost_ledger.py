"""Cost ledger: published costs and ours, counted at the publisher's clip, with what explains a difference."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import format_signed, plural
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

HEADS = (
    ColumnHead(name="Model"),
    ColumnHead(name="Source", meaning="where the cost was published"),
    ColumnHead(name="Clip", meaning="frames x height x width of the published count"),
    ColumnHead(name="Published", unit="GMACs", is_number=True, meaning="as published; many sources call MACs FLOPs"),
    ColumnHead(
        name="Counted", unit="GMACs", is_number=True, meaning="multiply-accumulates of the same model at that clip"
    ),
    ColumnHead(name="Difference", unit="%", is_number=True),
    ColumnHead(name="Verdict"),
    ColumnHead(
        name="Why", meaning="another counting convention that gives exactly the published value, or a known difference"
    ),
)
VERDICT = [head.name for head in HEADS].index("Verdict")
TEMPLATE = """
<p>Costs of one view at the publisher's clip, which may differ from the clip of this report. {{ summary }}</p>
{{ table }}
"""


@register_section("published-costs", title="Published costs", order=66, page="ledger")
def compare_published_costs(results: Results) -> str | None:
    """One row per published cost of a model that was counted here."""
    lines = {line.cells: line for line in _table_rows(results)}  # runs and precisions of a model repeat its rows
    if not lines:
        return None
    table = Table(
        name="published-costs-table",
        caption="Published and counted costs",
        heads=HEADS,
        rows=tuple(lines.values()),
    )
    verdicts = [line.cells[VERDICT].text for line in lines.values()]
    summary = ", ".join(
        f"{verdicts.count(word)} {'agree' if word == 'agrees' else word}"
        for word in ("agrees", "explained", "not explained")
        if word in verdicts
    )
    return render(TEMPLATE, table=table.html(), summary=f"{plural(len(verdicts), 'published cost')}: {summary}.")


def _table_rows(results: Results) -> Iterator[TableRow]:
    for case in results.cases:
        for record in case.runs:
            found = record.details.get("published_costs")
            for row in found if isinstance(found, list) else []:
                if isinstance(row, dict):
                    yield _table_row(case.case.point.model, row)


def _table_row(model: str, row: dict[str, Json]) -> TableRow:
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
            TableCell() if difference is None else TableCell(text=format_signed(difference, 1), sort=difference),
            TableCell(text=verdict),
            TableCell(text=why) if why else TableCell(),
        )
    )


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
