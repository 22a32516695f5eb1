"""Warnings of the records, each with its remedy and the cases it concerns."""

from collections import defaultdict

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.metric_text import listed
from bench.reporting.rendering import render
from bench.reporting.results import Results

MOST = 200
TEMPLATE = """
<ul class="findings">
{% for what, remedy, cases, number in warnings %}
<li><strong>{{ what }}</strong>{% if remedy %} {{ remedy }}{% endif %}
<br><small>{{ number }}: {{ cases }}</small></li>
{% endfor %}
</ul>
{% if left_out %}<p>{{ left_out }} more kinds of warning are in the records.</p>{% endif %}
"""


@register_section("warnings", title="Warnings", order=75, page="failures")
def list_warnings(results: Results) -> str | None:
    """Each warning once, the most frequent first."""
    found: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for case in results.cases:
        for record in case.latest:
            for warning in record.warnings:
                found[warning.what, warning.remedy][case.case.title] = None
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    shown = [
        (_ended(what), _ended(remedy), listed(cases, most=4), plural(len(cases), "case"))
        for (what, remedy), cases in ordered[:MOST]
    ]
    return render(TEMPLATE, warnings=shown, left_out=len(ordered) - len(shown))


def _ended(text: str) -> str:
    """`text` with a full stop, unless it ends with one or is empty."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
