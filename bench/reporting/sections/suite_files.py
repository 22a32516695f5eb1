"""The suite files of the records, for repeating the runs."""

from bench.core.registry import register_section
from bench.reporting.rendering import render
from bench.reporting.results import Results

TEMPLATE = """
<p>Save the text as a file and run it with <code>vbench run FILE</code>.</p>
{% for suite in suites %}
<details><summary>{{ suite.title or suite.name }}</summary>
{% if suite.description %}<p>{{ suite.description }}</p>{% endif %}
{% if suite.whole %}
<p>The suite as it was measured, with the files that it extends and the changes of the command line:</p>
{% elif "\nextends:" in "\n" ~ suite.text %}
<p>This file extends others, which the records do not have; they are needed too.</p>
{% endif %}
<pre tabindex="0">{{ suite.whole or suite.text }}</pre>
</details>
{% endfor %}
"""


@register_section("suites", title="Run it again", order=100, page="method")
def show_suites(results: Results) -> str | None:
    """The text of every suite whose text was kept."""
    suites = [suite for suite in results.suites if suite.text]
    return render(TEMPLATE, suites=suites) if suites else None
