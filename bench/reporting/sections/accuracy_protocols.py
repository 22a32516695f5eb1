"""How each accuracy was measured: videos, frames, views, training. Accuracies are comparable only if these agree."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.core.registry import register_section
from bench.core.schema import Json, Record
from bench.core.units import DASH, plural
from bench.reporting.case_results import CaseResult
from bench.reporting.metric_text import axis_name, listed, settings_text, value_text
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

# The facts of a training that decide its result. Of a protocol everything but names of single videos is shown.
TRAINING_FACTS = (
    "recipe",
    "recipe_hash",
    "source",
    "epochs",
    "steps",
    "checkpoint",
    "processes",
    "batch_norm",
    "weights",
    "weights_hash",
)
HIDDEN = frozenset({"unread_first", "frames", "stride", "dataset", "split", "views"})
# Facts that must agree within one column of the leaderboard; clip and normalisation belong to the model's row.
MUST_AGREE = ("resize", "averaging", "videos", "videos_hash", "unread", "unread_are")
TEMPLATE = """
{% if unlike %}
<p class="loud"><strong>Accuracies of one name were measured under different protocols:</strong> {{ unlike }}.
They are not results of the same test.</p>
{% endif %}
{% if same %}
<p>The same for all: {{ same }}.</p>
{% endif %}
{% if table %}
{{ table }}
{% endif %}
"""


@register_section("protocols", title="Protocol of the accuracies", order=60, page="protocols")
def describe_protocols(results: Results) -> str | None:
    """The facts that all accuracies share in one sentence, and a table of those that differ by model."""
    cases = [case for case in results.cases if case.runs and case.protocol]
    if not cases:
        return None
    groups: dict[str, list[CaseResult]] = defaultdict(list)
    for case in cases:
        axes = {k: v for k, v in case.case.point.named().items() if k != "seed"}
        groups[json.dumps([case.case.suite, axes], sort_keys=True)].append(case)
    facts_of = [_facts(group) for group in groups.values()]
    same = {name: value for name, value in facts_of[0].items() if all(f.get(name) == value for f in facts_of)}
    differing = [name for name in dict.fromkeys(n for facts in facts_of for n in facts) if name not in same]
    table = Table(
        name="protocols-table",
        caption="Protocol of each accuracy",
        heads=(ColumnHead(name="Model"), *(ColumnHead(name=_readable(name).capitalize()) for name in differing)),
        rows=tuple(_table_row(group, facts, differing) for group, facts in zip(groups.values(), facts_of, strict=True)),
    )
    spoken = {_readable(name): value for name, value in same.items()}
    return render(
        TEMPLATE, table=table.html() if differing else None, same=settings_text(spoken), unlike=_unlike(cases)
    )


def protocol_of(record: Record) -> dict[str, Json]:
    """The protocol and the training of `record` as one flat mapping."""
    protocol, training = (record.details.get(key) for key in ("protocol", "training"))
    protocol = protocol if isinstance(protocol, dict) else {}
    training = training if isinstance(training, dict) else {}
    shown = {name: value for name, value in protocol.items() if name not in HIDDEN}
    return {**shown, **{name: training[name] for name in TRAINING_FACTS if training.get(name) is not None}}


def _table_row(group: Sequence[CaseResult], facts: Mapping[str, str], names: Sequence[str]) -> TableRow:
    point = group[0].case.point
    model = TableCell(text=point.model, below=" ".join(f"{k}={value_text(v)}" for k, v in point.args.items()))
    return TableRow(cells=(model, *(TableCell(text=facts.get(name, DASH)) for name in names)))


def _facts(group: Sequence[CaseResult]) -> dict[str, str]:
    """The facts of all seeds of one model as text; those that differ between seeds are listed."""
    point = group[0].case.point
    axes = {name: value for name, value in point.named().items() if name not in ("model", "seed", *point.args)}
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for case in group:
        for name, value in {**axes, **protocol_of(case.runs[-1])}.items():
            values[name][value_text(value)] = None
    seeds = sorted({case.case.point.seed for case in group if case.case.point.seed is not None})
    texts = {name: listed(found, most=3) for name, found in values.items()}
    return {**texts, **({"seeds": ", ".join(map(str, seeds))} if seeds else {})}


def _unlike(cases: Sequence[CaseResult]) -> str:
    """The facts that differ between accuracies of one column of the leaderboard."""
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case in cases:
        column = ", ".join(value_text(value) for _, value in case.protocol)
        facts = protocol_of(case.runs[-1])
        for name in MUST_AGREE:
            if name in facts:
                seen[column, name].add(value_text(facts[name]))
    differing = [(column, name, len(found)) for (column, name), found in seen.items() if len(found) > 1]
    return listed(f"{_readable(name)} on {column} ({plural(number, 'value')})" for column, name, number in differing)


def _readable(name: str) -> str:
    return axis_name(name).replace("_", " ")
