"""How to read the values of a report: conventions, intervals, marks."""

from bench.core.registry import register_section
from bench.reporting.board import Column
from bench.reporting.metric_text import metric_meaning, metric_name
from bench.reporting.rendering import render
from bench.reporting.results import Results

TEMPLATE = """
<ul>
<li>1 MAC (multiply-accumulate) = 2 FLOPs. MACs are those of products (convolution, linear, attention, gates of
recurrent layers) in one forward pass over <em>one view</em>: one clip, one crop. A video scored over N views costs N
times as much.</li>
<li>k, M, G and T are powers of 1000; KiB, MiB and GiB are powers of 1024.</li>
<li>Of several seeds the mean is shown, of several runs the median, of a worst case (parity) the worst. The two small
numbers below a value are its 95 % interval. After the word “range” they are the smallest and the largest run, because
fewer than six runs give no 95 % interval.</li>
<li>A dash (–) means unknown, never zero. ≥ precedes a count that leaves operators out.</li>
<li>Values with a mark such as “drifting” or “lent” are not ranked, and charts draw them hollow.</li>
<li>Ranks are bands: rows whose intervals overlap cannot be separated, so a row of rank 2–4 may be second, third or
fourth.</li>
<li>A row is one model in one execution mode on one machine. Values of different machines are never ranked with each
other.</li>
</ul>
{% if metrics %}
<h3>Metrics of this report</h3>
<dl class="legend">
{% for name, meaning in metrics %}
<dt>{{ name }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl>
{% endif %}
"""


@register_section("method", title="How to read the values", order=0, page="method")
def explain(results: Results) -> str | None:
    """The conventions of every report, and what its metrics mean."""
    columns = {column.metric: column for column in results.board.columns}
    return render(TEMPLATE, metrics=[(metric_name(name), _meaning(column)) for name, column in columns.items()])


def _meaning(column: Column) -> str:
    """`median time of one forward pass; in ms; lower is better`."""
    unit = f"in {column.unit}" if column.unit else ""
    direction = f"{column.better} is better" if column.better else ""
    return "; ".join(part for part in (metric_meaning(column.metric), unit, direction) if part)
