"""What was run, what came of it, and the first thing to know about it."""

from collections import Counter

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.findings import ablation_findings, leader_findings
from bench.reporting.metric_text import STATUSES, listed
from bench.reporting.rendering import render
from bench.reporting.results import Results

TEMPLATE = """
<dl class="facts">
{% for name, value, more in facts %}
<div><dt>{{ name }}</dt><dd>{{ value }}{% if more %} <small>{{ more }}</small>{% endif %}</dd></div>
{% endfor %}
</dl>
{% if failures %}
<p class="loud"><strong>{{ "Not everything" if has_results else "Nothing" }} has a result.</strong> {{ failures }}:
<a href="#failures">what failed and why</a>.</p>
{% endif %}
{% if machines | length > 1 %}
<p class="loud"><strong>Timings come from {{ machines | length }} unlike machines.</strong>
They are ranked within each machine only: <a href="#environment">how the machines differ</a>.</p>
{% endif %}
{% if findings %}
<p class="finding">{{ findings[0] }}</p>
{% if findings | length > 1 %}
<ul class="findings">
{% for finding in findings[1:] %}
<li>{{ finding }}</li>
{% endfor %}
</ul>
{% endif %}
{% endif %}
{% if replaced %}
<p class="muted">{{ replaced }} of the same runs were replaced by later ones and are not shown.</p>
{% endif %}
"""
MOST_FINDINGS = 8
MOST_OF_ABLATIONS = 4
MOST_OF_ONE = 2


@register_section("summary", title="Summary", order=0)
def summarise(results: Results) -> str | None:
    """Counts, machines, dates, and the findings that the other sections show in full."""
    findings = [finding for ablation in results.ablations for finding in ablation_findings(ablation)[:MOST_OF_ONE]]
    findings = [*findings[:MOST_OF_ABLATIONS], *leader_findings(results.board)][:MOST_FINDINGS]
    return render(
        TEMPLATE,
        facts=[_cases(results), _models(results), _machines(results), _dates(results)],
        failures=_failures(results),
        has_results=any(case.runs for case in results.cases),
        machines=results.timed_machines,
        findings=findings,
        replaced=plural(results.replaced, "record") if results.replaced else "",
    )


def _cases(results: Results) -> tuple[str, str, str]:
    good = [case for case in results.cases if case.runs]
    runs = sum(len(case.runs) for case in good)
    doubtful = Counter(run.status for case in good for run in case.runs if run.status != "ok")
    more = [plural(runs, "run"), *(f"{number} {status}" for status, number in sorted(doubtful.items()))]
    return "Cases measured", f"{len(good)} of {len(results.cases)}", ", ".join(more)


def _models(results: Results) -> tuple[str, str, str]:
    models = {row.label for row in results.board.rows}
    clips = {str(case.case.point.clip) for case in results.cases}
    return "Models", str(len(models)), f"at {listed(sorted(clips), most=3)} (frames × stride × pixels)"


def _machines(results: Results) -> tuple[str, str, str]:
    machines = results.timed_machines or results.machines
    if len(machines) > 1:
        return "Machines", str(len(machines)), listed([machine.name for machine in machines], most=3)
    memory = machines[0].hardware.get("ram_bytes")
    threads = machines[0].hardware.get("cpu_threads")
    more = [
        f"{threads} CPU threads" if threads else "",
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else "",
    ]
    return "Machine", machines[0].name, ", ".join(word for word in more if word)


def _dates(results: Results) -> tuple[str, str, str]:
    first, last = results.records[0].started_at, results.records[-1].started_at
    versions = sorted({str(m.software["torch"]) for m in results.machines if m.software.get("torch")})
    more = f"torch {listed(versions, most=3)}" if versions else ""
    return "Measured", first[:10] if first[:10] == last[:10] else f"{first[:10]} to {last[:10]}", more


def _failures(results: Results) -> str:
    found = Counter(record.status for record in results.failures)
    words = [f"{plural(number, 'run')} {STATUSES[status]}" for status, number in sorted(found.items())]
    return listed(words)
