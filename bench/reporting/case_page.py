"""The page of one case: its metrics run by run, samples, drift, warnings, environment, log and record."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.core.privacy import anonymous_text
from bench.core.schema import Json, Metric, Record
from bench.core.units import DASH, format_exact, format_number, format_signed, format_value, plural
from bench.reporting.board import label_of
from bench.reporting.case_results import CaseResult
from bench.reporting.links import Links
from bench.reporting.metric_text import STATUSES, axis_name, metric_meaning, metric_name, value_text
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow, plain_table

MOST_RUNS = 20
LOG_LINES = 40
LONGEST_LOG_BYTES = 20_000
FACTS = """
<p><a href="{{ model_page }}">{{ model }}</a> · suite {{ suite }} · {{ runs }}{% if machine %} ·
<a href="{{ machines_page }}">machine {{ machine }}</a>{% endif %}</p>
{% for run, status, error, traceback in failures %}
<p class="loud"><strong>Run {{ run }}: {{ status }}.</strong> {{ error }}</p>
{% if traceback %}<details><summary>Traceback</summary><pre tabindex="0">{{ traceback }}</pre></details>{% endif %}
{% endfor %}
{{ table }}
"""
SAMPLES = """
<div data-module="samples" data-name="{{ name }}"></div>
<noscript><p>The raw samples are in the data file of this case; charts of them need a script.</p></noscript>
"""
WARNINGS = """
<ul class="findings">
{% for what, remedy in warnings %}
<li><strong>{{ what }}</strong> {{ remedy }}</li>
{% endfor %}
</ul>
"""
REPEAT = """
<p>This command shows the stored records of this case as JSON:</p>
<pre tabindex="0">vbench results show RESULTS --case {{ id }}</pre>
<p>This command measures only this case again. <a href="{{ method_page }}">The text of its suite</a> may be in a file of
another name.</p>
<pre tabindex="0">vbench run {{ suite }}.yaml --case {{ id }} --rerun all</pre>
"""
LOG = """
<p class="muted">{{ what }}</p>
<pre tabindex="0">{{ text }}</pre>
"""


def case_sections(results: Results, case: CaseResult, links: Links) -> list[DrawnSection]:
    """The sections of the page of `case`; those without content are left out."""
    name = results.case_names[id(case)]
    key = name.partition("/")[2]
    drawn: list[tuple[str, str, Any]] = [
        ("case", "Metrics", _metrics(results, case, links, key)),
        ("samples", "Samples", render(SAMPLES, name=name) if _has_samples(case) else ""),
        ("drift", "Drift", _drift(case, key)),
        ("warnings", "Warnings", _warnings(case)),
        ("point", "Case", _facts(f"{key}-point", "Axes and measures", _point(case))),
        ("conditions", "Conditions", _conditions(case, key)),
        ("log", "Log", _log(results, case)),
        ("repeat", "Repeat", render(REPEAT, id=case.id, suite=case.case.suite, method_page=links.page("method"))),
    ]
    return [DrawnSection(name=f"{kind}-{key}", title=title, html=html) for kind, title, html in drawn if html]


def _metrics(results: Results, case: CaseResult, links: Links, key: str) -> Any:
    runs = case.runs[:MOST_RUNS]
    heads = [
        ColumnHead(name="Metric"),
        ColumnHead(name="Value", is_number=True, meaning="over all runs: median, mean of seeds, or the worst case"),
        ColumnHead(name="n", is_number=True, meaning="number of known values"),
        *(ColumnHead(name=f"Run {run.run_index + 1}", is_number=True) for run in (runs if len(runs) > 1 else ())),
        ColumnHead(name="Note"),
    ]
    table = Table(
        name=f"{key}-metrics", caption="Every metric of this case", heads=tuple(heads), rows=_rows(case, runs)
    )
    point = case.case.point
    label = label_of(point.model, point.args)
    failures = [
        (
            record.run_index + 1,
            STATUSES[record.status],
            f"{record.error.type}: {record.error.message}" if record.error else "The record gives no reason.",
            record.error.traceback if record.error else "",
        )
        for record in case.failures
    ]
    letters = sorted({results.letter_of(record) for record in case.latest})
    return render(
        FACTS,
        model=label,
        model_page=links.page(results.model_names[label]),
        machines_page=links.page("machines"),
        suite=case.case.suite,
        runs=plural(len(case.latest), "run"),
        machine=", ".join(letters),
        failures=failures,
        table=table.html() if table.rows else "",
    )


def _rows(case: CaseResult, runs: Sequence[Record]) -> tuple[TableRow, ...]:
    rows = []
    for key, recorded in case.metrics.items():
        summary, first = case.summaries[key], recorded[0].metric
        labels = ", ".join(f"{axis_name(k)} {v}" for k, v in first.labels.items())
        ends = f"{format_value(summary.low, summary.unit)} to {format_value(summary.high, summary.unit)}"
        interval = f"{'range ' if summary.is_range else ''}{ends}" if summary.has_interval else ""
        value = TableCell(
            text=format_value(summary.value, summary.unit) if summary.value is not None else DASH,
            sort=summary.value,
            below=interval,
            title=format_exact(summary.value, summary.unit) if summary.value is not None else summary.how,
            chips=(*summary.doubts, *summary.remarks) if summary.value is not None else (),
            low=summary.low if summary.has_interval else None,
            high=summary.high if summary.has_interval else None,
        )
        by_run = {id(each.record): each.metric for each in recorded}
        singles = [_single(by_run.get(id(run))) for run in runs] if len(runs) > 1 else []
        count = TableCell(text=str(summary.count), sort=summary.count) if summary.value is not None else TableCell()
        words = "; ".join(word for word in (summary.how, summary.note) if word)
        name = TableCell(text=metric_name(first.name), below=labels, title=metric_meaning(first.name))
        rows.append(TableRow(cells=(name, value, count, *singles, TableCell(text=words or DASH))))
    return tuple(rows)


def _single(metric: Metric | None) -> TableCell:
    if metric is None or metric.value is None:
        return TableCell(title=(metric.note if metric else "") or "not measured in this run")
    return TableCell(text=format_value(metric.value, metric.unit), sort=metric.value)


def _has_samples(case: CaseResult) -> bool:
    return any(metric.samples for record in case.runs for metric in record.metrics)


def _drift(case: CaseResult, key: str) -> Any:
    """The canary before and after each run."""
    rows = []
    for record in case.runs:
        canary = record.details.get("canary")
        for name, found in canary.items() if isinstance(canary, dict) else ():
            if isinstance(found, dict):
                times = [_number(found.get(end)) for end in ("before", "after")]
                ratio = _number(found.get("ratio"))
                rows.append(
                    TableRow(
                        cells=(
                            TableCell(text=f"Run {record.run_index + 1}"),
                            TableCell(text=name.removesuffix("_ms")),
                            *(TableCell() if t is None else TableCell(text=format_number(t, 3), sort=t) for t in times),
                            TableCell() if ratio is None else _change(ratio),
                        )
                    )
                )
    heads = (
        ColumnHead(name="Run"),
        ColumnHead(name="Canary"),
        ColumnHead(name="Before", unit="ms", is_number=True),
        ColumnHead(name="After", unit="ms", is_number=True),
        ColumnHead(name="Change", is_number=True),
    )
    caption = "Canary: a fixed operation, timed before and after the case. A change shows that the machine changed."
    return Table(name=f"{key}-canary", caption=caption, heads=heads, rows=tuple(rows)).html() if rows else ""


def _warnings(case: CaseResult) -> Any:
    found = dict.fromkeys((w.what, w.remedy) for record in case.latest for w in record.warnings)
    return render(WARNINGS, warnings=list(found)) if found else ""


def _point(case: CaseResult) -> Iterator[tuple[str, Json]]:
    yield "case id", case.id
    yield from ((axis_name(name), value) for name, value in case.case.point.named().items())
    for measure, options in case.case.measures.items():
        yield f"measure {measure}", options or "default options"


def _conditions(case: CaseResult, key: str) -> Any:
    """When each run was measured, how long it took, and the state of its machine."""
    heads = ["Fact", *(f"Run {record.run_index + 1}" for record in case.latest[:MOST_RUNS])]
    facts = [
        {
            "status": record.status,
            "started": record.started_at,
            **{f"{name}, s": round(seconds, 3) for name, seconds in record.seconds.items()},
            **record.environment.state,
        }
        for record in case.latest[:MOST_RUNS]
    ]
    names = dict.fromkeys(name for each in facts for name in each)
    rows = [(name.replace("_", " "), *(value_text(each.get(name)) for each in facts)) for name in names]
    return plain_table(f"{key}-conditions", caption="State of the machine by run", heads=heads, rows=rows).html()


def _facts(name: str, caption: str, facts: Iterator[tuple[str, Json]]) -> Any:
    rows = [(key, value_text(value)) for key, value in facts]
    return plain_table(name, caption=caption, heads=("Fact", "Value"), rows=rows).html()


def _log(results: Results, case: CaseResult) -> Any:
    """The end of the log of the last run, if the results folder still has it."""
    record = case.latest[-1]
    file = results.artifact(record, "log")
    if file is None:
        return ""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - LONGEST_LOG_BYTES))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()[-LOG_LINES:]
    text = anonymous_text("\n".join(lines)) if lines else ""
    return render(LOG, what=f"The end of {record.artifacts['log']}", text=text) if text.strip() else ""


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _change(ratio: float) -> TableCell:
    return TableCell(text=f"{format_signed(100 * (ratio - 1), 1)} %", sort=ratio)
