"""Speed ledger: published throughput of the models measured here, compared on the same kind of device only."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reference.published_speeds import PublishedSpeed, speeds_of
from bench.reporting.case_results import CaseResult
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

THROUGHPUT = "throughput.clips_per_s"
HEADS = (
    ColumnHead(name="Model"),
    ColumnHead(name="Source", meaning="where the speed was published"),
    ColumnHead(name="Conditions", meaning="as far as the source states them"),
    ColumnHead(name="Published", unit="clips/s", is_number=True, meaning="every view of a video is one clip"),
    ColumnHead(name="Measured", unit="clips/s", is_number=True, meaning="the fastest batch of one execution mode here"),
    ColumnHead(name="Ratio", is_number=True, meaning="measured over published, if nothing decisive differs"),
    ColumnHead(name="Differs in", meaning="published v measured; what keeps the two from being compared"),
)
TEMPLATE = """
<p>{{ summary }} Batches may differ even where a ratio is shown, and software has become faster since.</p>
{{ table }}
"""


@register_section("published-speeds", title="Published speeds", order=67, page="ledger")
def compare_published_speeds(results: Results) -> str | None:
    """One row per published speed and execution mode of a model whose throughput was measured here."""
    rows = [row for case in results.cases for row in _rows_of(case)]
    if not rows:
        return None
    compared = sum(not row.cells[5].is_empty for row in rows)
    table = Table(
        name="published-speeds-table", caption="Published and measured throughput", heads=HEADS, rows=tuple(rows)
    )
    summary = f"{plural(len(rows), 'published speed')}, {compared} taken on the same kind of device as here."
    return render(TEMPLATE, table=table.html(), summary=summary)


def _rows_of(case: CaseResult) -> Iterator[TableRow]:
    published = speeds_of(case.case.point.model)
    values = [
        (summary.value, key)
        for key, summary in case.summaries.items()
        if key.partition("{")[0] == THROUGHPUT and summary.value is not None
    ]
    if published and values:
        best, key = max(values)
        for speed in published:
            yield _row(case, speed, best=best, batch=key)


def _row(case: CaseResult, speed: PublishedSpeed, *, best: float, batch: str) -> TableRow:
    point = case.case.point
    gpu = case.runs[0].environment.hardware.get("gpu")
    precision = point.precision or "fp32"
    differs = speed.differences(gpu=None if gpu is None else str(gpu), precision=precision, clip=str(point.clip))
    ratio = best / speed.clips_per_s
    return TableRow(
        cells=(
            TableCell(text=point.model, below=f"{precision}, {gpu or 'CPU'}"),
            TableCell(text=speed.source, title=speed.note),
            TableCell(text=speed.conditions),
            TableCell(text=f"{speed.clips_per_s:.4g}", sort=speed.clips_per_s, title=f"printed as {speed.printed}"),
            TableCell(text=f"{best:.4g}", sort=best, title=batch),
            TableCell() if differs else TableCell(text=f"{ratio:.2f}", sort=ratio),
            TableCell(text="; ".join(differs)) if differs else TableCell(),
        )
    )
