"""Runs without a result: status, error and log file."""

from bench.core.registry import register_section
from bench.core.schema import Record
from bench.core.units import DASH
from bench.reporting.metric_text import STATUSES
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

LONGEST, LONGEST_TITLE = 160, 1000
MOST_TRACEBACKS = 50
TEMPLATE = """
{{ table }}
{% for record in records %}
<details><summary>{{ record.case.title }}: how it failed</summary>
<pre tabindex="0">{{ record.error.traceback }}</pre>
</details>
{% endfor %}
{% if left_out %}<p class="muted">{{ left_out }} more tracebacks are in the logs that the table names.</p>{% endif %}
"""


@register_section("failures", title="Failures", order=80, page="failures")
def list_failures(results: Results) -> str | None:
    """One row per run whose latest record has no result, and the ends of the tracebacks."""
    failures = results.failures
    if not failures:
        return None
    good = {record.case_id for case in results.cases for record in case.runs}
    table = Table(
        name="failures-table",
        caption="Runs whose latest record has no result",
        heads=tuple(ColumnHead(name=name) for name in ("Case", "Status", "Error", "Log", "Other results")),
        rows=tuple(
            _table_row(record, page=results.case_page_of(record), has_results=record.case_id in good)
            for record in failures
        ),
    )
    traced = [record for record in failures if record.error and record.error.traceback]
    left_out = max(0, len(traced) - MOST_TRACEBACKS)
    return render(TEMPLATE, table=table.html(), records=traced[:MOST_TRACEBACKS], left_out=left_out)


def _table_row(record: Record, *, page: str, has_results: bool) -> TableRow:
    error = f"{record.error.type}: {record.error.message}" if record.error else ""
    shown = error if len(error) <= LONGEST else f"{error[: LONGEST - 2]}…"
    return TableRow(
        cells=(
            TableCell(
                text=record.case.title, href=page, below=f"suite {record.case.suite}, run {record.run_index + 1}"
            ),
            TableCell(text=STATUSES[record.status], below=record.status),
            TableCell(text=shown or "–", title=error[:LONGEST_TITLE] or "the record gives no reason"),
            TableCell(text=record.artifacts.get("log", DASH), title="below the results folder of its suite"),
            TableCell(text="other runs or earlier ones are shown" if has_results else "none"),
        )
    )
