"""Operators without a formula: a count that leaves them out is a lower bound, and says so here by name."""

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.cases import CaseResult
from bench.reporting.page import render
from bench.reporting.results import Results
from bench.reporting.table import Cell, Heading, Line, Table
from bench.reporting.wording import value_text

TEMPLATE = """
<p class="loud"><strong>{{ networks }} counted incompletely.</strong> The operators below have no formula, so the MACs
of these networks are lower bounds. A formula for one operator is one decorated function.</p>
{{ table }}
"""


@register_section("counting", title="Uncounted operators", order=70)
def name_uncounted(results: Results) -> str | None:
    """Every operator that was met without a formula, with its calls, network by network."""
    found: dict[tuple[str, str, str], int] = {}
    for case in results.cases:
        for record in case.runs:
            for operator, calls in record.uncounted_operators.items():
                found[_network(case), str(case.case.point.clip), operator] = calls
    if not found:
        return None
    table = Table(
        name="counting-table",
        caption="Calls in one forward pass of operators that are not in the count",
        headings=(
            Heading(name="Network"),
            Heading(name="Clip"),
            Heading(name="Operator"),
            Heading(name="Calls", is_number=True),
        ),
        lines=tuple(
            Line(cells=(Cell(text=name), Cell(text=clip), Cell(text=operator), Cell(text=str(calls), sort=calls)))
            for (name, clip, operator), calls in sorted(found.items())
        ),
    )
    networks = len({name for name, _, _ in found})
    words = f"{plural(networks, 'network')} {'is' if networks == 1 else 'are'}"
    return render(TEMPLATE, table=table.html(), networks=words)


def _network(case: CaseResult) -> str:
    point = case.case.point
    return " ".join([point.model, *(f"{k}={value_text(v)}" for k, v in point.args.items())])
