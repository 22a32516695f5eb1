"""How each accuracy was taken: data set, views, videos, recipe, seeds. Only where these are equal do they compare."""

import json
from collections import defaultdict
from collections.abc import Mapping

from bench.registry import register_section
from bench.reporting.cases import CaseResult
from bench.reporting.page import render
from bench.reporting.results import Results
from bench.reporting.table import Cell, Heading, Line, Table
from bench.reporting.wording import axis_name, count_of, listed, value_text
from bench.schema import Json

LONGEST = 60
TEMPLATE = """
{% if unlike %}
<p class="loud"><strong>Accuracies under one name differ in how they were taken:</strong> {{ unlike }}.
They are not the same test.</p>
{% endif %}
{{ table }}
"""
AXES = ("dataset", "split", "views", "clip", "weights", "recipe")


@register_section("protocols", title="Protocol of the accuracies", order=60)
def describe_protocols(results: Results) -> str | None:
    """One line per network and protocol, with every fact that the records keep of it."""
    cases = [case for case in results.cases if case.runs and case.protocol]
    if not cases:
        return None
    groups: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for case in cases:
        axes = {k: v for k, v in case.case.point.named().items() if k != "seed"}
        groups[case.case.suite, json.dumps(axes, sort_keys=True)].append(case)
    told = [_facts(group) for group in groups.values()]
    names = [name for name in dict.fromkeys(n for facts in told for n in facts) if name not in ("model", "arguments")]
    table = Table(
        name="protocols-table",
        caption="What stands behind each accuracy",
        headings=(Heading(name="Network"), *(Heading(name=_spoken(name)) for name in names)),
        lines=tuple(Line(cells=(_network(facts), *(Cell(text=facts.get(n, "–")) for n in names))) for facts in told),
    )
    return render(TEMPLATE, table=table.html(), unlike=_unlike(cases))


def protocol_facts(case: CaseResult) -> dict[str, Json]:
    """The flat facts that the latest record keeps of its protocol, under `details.accuracy` or `details.protocol`."""
    details = case.runs[-1].details
    found: dict[str, Json] = {}
    for key in ("accuracy", "protocol"):
        block = details.get(key)
        block = block.get("protocol", block) if isinstance(block, dict) else {}
        found.update({k: v for k, v in block.items() if not isinstance(v, dict) and len(value_text(v)) <= LONGEST})
    return found


def _facts(group: list[CaseResult]) -> dict[str, str]:
    point = group[0].case.point
    axes = {axis: value_text(value) for axis in AXES if (value := point.named().get(axis)) is not None}
    seeds = sorted({case.case.point.seed for case in group if case.case.point.seed is not None})
    facts: dict[str, list[str]] = defaultdict(list)
    for case in group:
        for name, value in protocol_facts(case).items():
            if name not in axes and name != "seed":
                facts[name].append(value_text(value))
    return {
        "model": point.model,
        "arguments": " ".join(f"{k}={value_text(v)}" for k, v in point.args.items()),
        **axes,
        **({"seeds": ", ".join(map(str, seeds))} if seeds else {}),
        **{name: listed(dict.fromkeys(values), most=3) for name, values in facts.items()},
    }


def _network(facts: Mapping[str, str]) -> Cell:
    return Cell(text=facts["model"], below=facts["arguments"])


def _spoken(name: str) -> str:
    return axis_name(name).replace("_", " ").capitalize()


def _unlike(cases: list[CaseResult]) -> str:
    """Which facts differ between accuracies that stand in one column of the leaderboard."""
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case in cases:
        column = ", ".join(value_text(value) for _, value in case.protocol)
        for name, value in protocol_facts(case).items():
            if name in TELLING:
                seen[column, name].add(value_text(value))
    unlike = [
        f"{_spoken(name).lower()} on {column} ({count_of(len(v), 'value')})"
        for (column, name), v in seen.items()
        if len(v) > 1
    ]
    return listed(unlike)


TELLING = frozenset({"fps", "resize", "crop", "videos", "videos_hash", "set_hash", "missing", "averaging", "data_hash"})
