"""What was run, how much of it is done, and the main findings."""

from collections import Counter
from collections.abc import Iterator

from bench.core.doubts import record_doubts
from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.board import Board
from bench.reporting.findings import ablation_findings, chance_findings, leader_findings, ranking_gaps
from bench.reporting.metric_text import STATUSES, listed, value_text
from bench.reporting.rendering import render
from bench.reporting.results import Progress, Results

TEMPLATE = """
<dl class="facts">
{% for name, value, more in facts %}
<div><dt>{{ name }}</dt><dd>{{ value }}{% if more %} <small>{{ more }}</small>{% endif %}</dd></div>
{% endfor %}
</dl>
{% for line in partial %}
<p class="loud"><strong>This run is not complete.</strong> {{ line }}</p>
{% endfor %}
{% if failures %}
<p class="loud"><strong>{{ "Not everything" if has_results else "Nothing" }} has a result.</strong> {{ failures }}:
<a href="{{ pages.failures }}">what failed and why</a>.</p>
{% endif %}
{% if machines | length > 1 %}
<p class="loud"><strong>Timings come from {{ machines | length }} unlike machines.</strong>
They are ranked within each machine only: <a href="{{ pages.machines }}">how the machines differ</a>.</p>
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
{% if not_listed %}
<p class="muted">{{ not_listed }} not listed here: <a href="{{ pages.ablations }}">the ablations</a> and
<a href="{{ pages.board }}">the leaderboard</a> show all of them.</p>
{% endif %}
{% if unranked %}
<p class="muted">Not ranked: {{ unranked }}.</p>
{% endif %}
{% if replaced %}
<p class="muted">{{ replaced }} not shown, because a later one of the same run replaces it.</p>
{% endif %}
"""
MOST_FINDINGS = 8
MOST_OF_ABLATIONS = 4
MOST_OF_ONE = 2


@register_section("summary", title="Summary", order=0)
def summarise(results: Results) -> str | None:
    """Counts, machines, dates, and the findings that the other sections show in full."""
    ablations, leaders = [ablation_findings(a) for a in results.ablations], leader_findings(results.board)
    leaders += ranking_gaps(results.board)
    first = [finding for findings in ablations for finding in findings[:MOST_OF_ONE]][:MOST_OF_ABLATIONS]
    by_chance = chance_findings(results.board)
    findings = [*by_chance, *first, *leaders][:MOST_FINDINGS]
    not_listed = len(by_chance) + sum(map(len, ablations)) + len(leaders) - len(findings)
    return render(
        TEMPLATE,
        facts=[_cases(results), _models(results), *_data_sets(results), _machines(results), _dates(results)],
        failures=_failures(results),
        has_results=any(case.runs for case in results.cases),
        machines=results.timed_machines,
        findings=findings,
        not_listed=plural(not_listed, "finding is", "findings are") if not_listed else "",
        partial=[_partial(progress) for progress in results.progress if not progress.is_complete],
        unranked=_unranked(results.board),
        pages={name: results.links.page(name) for name in ("failures", "machines", "ablations", "board")},
        replaced=plural(results.replaced, "record is", "records are") if results.replaced else "",
    )


def _cases(results: Results) -> tuple[str, str, str]:
    """Done of planned cases over all suites; of suites without a stored plan the recorded cases count."""
    done = sum(progress.done for progress in results.progress)
    planned = sum(p.recorded if p.cases is None else p.cases for p in results.progress)
    runs = [run for case in results.cases for run in case.runs]
    doubtful = Counter(doubt for run in runs for doubt in record_doubts(run))
    failed = sum(progress.failed for progress in results.progress)
    more = [f"{failed} failed"] if failed else []
    more += [plural(len(runs), "run"), *(f"{number} {status}" for status, number in sorted(doubtful.items()))]
    unknown = [progress.suite for progress in results.progress if progress.cases is None]
    if unknown:
        more.append(f"the number of planned cases of {listed(unknown, most=2)} was not stored")
    unplanned = sum(progress.unplanned for progress in results.progress)
    if unplanned:
        more.append(f"{plural(unplanned, 'recorded case')} no longer in the suite")
    return "Cases done", f"{done} of {planned}", ", ".join(more)


def _partial(progress: Progress) -> str:
    """`quickstart: 1 of 2 cases done, 1 of 6 runs; run the suite again to finish it.`"""
    runs = f", {progress.runs_done} of {progress.runs} runs" if progress.runs != progress.cases else ""
    return f"{progress.suite}: {progress.text}{runs}; run the suite again to finish it."


def _unranked(board: Board) -> str:
    """`3 values of latency (drifting, unsteady)`; empty if all values are ranked."""
    words = []
    for column in board.headlines:
        doubts = [
            s.doubts for row in board.rows if (s := row.summaries.get(column)) and s.value is not None and s.doubts
        ]
        if doubts:
            kinds = listed(dict.fromkeys(doubt for each in doubts for doubt in each))
            words.append(f"{plural(len(doubts), 'value')} of {column.full_name} ({kinds})")
    return listed(words)


def _models(results: Results) -> tuple[str, str, str]:
    models = {row.label for row in results.board.rows}
    clips = {str(case.case.point.clip) for case in results.cases}
    return "Models", str(len(models)), f"at {listed(sorted(clips), most=3)} (frames × stride × pixels)"


def _data_sets(results: Results) -> Iterator[tuple[str, str, str]]:
    """One fact about the data sets of all evaluations: `motions`, with the split and the number of its videos."""
    found: dict[str, dict[str, None]] = {}
    for record in (record for case in results.cases for record in case.runs):
        protocol = record.details.get("protocol")
        if isinstance(protocol, dict) and record.case.point.dataset is not None:
            parts = [value_text(protocol[key]) for key in ("split",) if protocol.get(key) is not None]
            videos = protocol.get("videos")
            parts += [plural(videos, "video")] if isinstance(videos, int) else []
            found.setdefault(record.case.point.dataset, {})[", ".join(parts)] = None
    if found:
        texts = [text for variants in found.values() for text in variants if text]
        yield plural(len(found), "Data set").partition(" ")[2], listed(found, most=3), listed(texts, most=3)


def _machines(results: Results) -> tuple[str, str, str]:
    machines = results.timed_machines or results.machines
    if len(machines) > 1:
        return "Machines", str(len(machines)), listed([f"{each.letter}: {each.name}" for each in machines], most=3)
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
