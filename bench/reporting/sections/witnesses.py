"""What other counters print for the same networks, and why it is not what we count."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import format_exact
from bench.reporting.page import render
from bench.reporting.results import Results
from bench.reporting.table import Cell, Heading, Line, Table

HEADINGS = (
    Heading(name="Network"),
    Heading(name="Clip"),
    Heading(name="Counter"),
    Heading(name="Prints", is_number=True, meaning="the figure as the tool gives it"),
    Heading(name="Of which products", is_number=True, meaning="the part that counts the same things as we do"),
    Heading(name="Less ours", is_number=True),
    Heading(name="Verdict"),
    Heading(name="Why"),
)
TEMPLATE = """
{% if loud %}<p class="loud"><strong>{{ loud }} unexplained.</strong> Quote neither figure before the difference is.</p>
{% endif %}
{{ table }}
"""


@register_section("witnesses", title="Other counters", order=67)
def hear_counters(results: Results) -> str | None:
    """One line for each counter and network, with the operators or modules behind a difference."""
    lines = {line.cells: line for line in _lines(results)}
    if not lines:
        return None
    table = Table(
        name="witnesses-table",
        caption="Multiply-accumulates of one clip as other counters see them",
        headings=HEADINGS,
        lines=tuple(lines.values()),
    )
    loud = sum(line.cells[6].text == "unexplained" for line in lines.values())
    return render(TEMPLATE, table=table.html(), loud=loud)


def _lines(results: Results) -> Iterator[Line]:
    for case in results.cases:
        for record in case.runs:
            found = record.details.get("counter_reports") or record.details.get("witnesses")
            for verdict in found if isinstance(found, list) else []:
                if isinstance(verdict, dict):
                    yield _line(
                        record.case.title.removesuffix(f" {case.case.point.clip}"), str(case.case.point.clip), verdict
                    )


def _line(network: str, clip: str, verdict: dict[str, Json]) -> Line:
    tool, convention = f"{verdict.get('tool')} {verdict.get('version')}", str(verdict.get("convention") or "")
    return Line(
        cells=(
            Cell(text=network),
            Cell(text=clip),
            Cell(text=tool, title=f"counts {convention}" if convention else ""),
            *(_count(verdict.get(name)) for name in ("printed", "comparable", "difference")),
            Cell(text=str(verdict.get("verdict"))),
            Cell(text=str(verdict.get("why") or "")) if verdict.get("why") else Cell(),
        )
    )


def _count(value: Json) -> Cell:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return Cell()
    return Cell(text=format_exact(value, "").strip(), sort=float(value))
