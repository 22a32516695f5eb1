"""Which model for my budget: limits per metric, and a chart of cost against gain that follows them."""

from collections.abc import Mapping, Sequence

from bench.core.registry import register_section
from bench.reporting.board import Column
from bench.reporting.case_results import MetricSummary
from bench.reporting.rendering import render
from bench.reporting.results import Results

TEMPLATE = """
<p>Set limits; the chart and the list keep the rows of <a href="{{ board }}">the board</a> that respect all of them.
The shaded band is the interval of the best one: rows whose interval reaches it cannot be separated from it.</p>
<div data-module="budget"></div>
<noscript><p>The limits need a script; <a href="{{ board }}">the board</a> has all values, and
<a href="{{ charts }}">the charts of cost and gain</a> name the rows on the frontier.</p></noscript>
"""


@register_section("budget", title="Which model for my budget?", order=5)
def offer_limits(results: Results) -> str | None:
    """The place of the limits and the chart; None unless two rows have a gain and a cost."""
    headlines = results.board.headlines
    gains = [c for c in headlines if c.better == "higher"]
    costs = [c for c in headlines if c.better == "lower"]
    rows = [row for row in results.board.rows if _has_any(row.summaries, gains) and _has_any(row.summaries, costs)]
    if len(rows) < 2:
        return None
    return render(TEMPLATE, board=results.links.page("board"), charts=results.links.page("trade-offs"))


def _has_any(summaries: Mapping[Column, MetricSummary], columns: Sequence[Column]) -> bool:
    return any(column in summaries and summaries[column].value is not None for column in columns)
