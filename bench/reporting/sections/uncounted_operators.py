"""Operators without a formula; counts that leave them out are lower bounds."""

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.case_results import CaseResult
from bench.reporting.metric_text import value_text
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

TEMPLATE = """
<p class="loud"><strong>{{ models }} counted incompletely.</strong> The operators below have no formula, so the MACs
of these models are lower bounds. A formula for one operator is one decorated function.</p>
{{ table }}
"""


@register_section("counting", title="Uncounted operators", order=70, page="failures")
def name_uncounted(results: Results) -> str | None:
    """Every operator without a formula, with its number of calls, by model."""
    found: dict[tuple[str, str, str], int] = {}
    for case in results.cases:
        for record in case.runs:
            for operator, calls in record.uncounted_operators.items():
                found[_model_cell(case), str(case.case.point.clip), operator] = calls
    if not found:
        return None
    table = Table(
        name="counting-table",
        caption="Calls in one forward pass of operators that are not in the count",
        heads=(
            ColumnHead(name="Model"),
            ColumnHead(name="Clip"),
            ColumnHead(name="Operator"),
            ColumnHead(name="Calls", is_number=True),
        ),
        rows=tuple(
            TableRow(
                cells=(
                    TableCell(text=name),
                    TableCell(text=clip),
                    TableCell(text=operator),
                    TableCell(text=str(calls), sort=calls),
                )
            )
            for (name, clip, operator), calls in sorted(found.items())
        ),
    )
    models = len({name for name, _, _ in found})
    words = f"{plural(models, 'model')} {'is' if models == 1 else 'are'}"
    return render(TEMPLATE, table=table.html(), models=words)


def _model_cell(case: CaseResult) -> str:
    point = case.case.point
    return " ".join([point.model, *(f"{k}={value_text(v)}" for k, v in point.args.items())])
