"""Hardware and software of every machine; their differences come first."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import format_value, plural
from bench.reporting.machines import Machine, differing_facts
from bench.reporting.metric_text import listed, value_text
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import Table, plain_table

MOST_MACHINES = 12
NAMES = {
    "is_dirty": "uncommitted changes",
    "vbench_is_dirty": "uncommitted changes of vbench",
    "model_is_dirty": "uncommitted changes of the model",
    "load_1min": "load, mean of 1 min",
}
TEMPLATE = """
{% if differences %}
<p class="loud"><strong>The records come from {{ number }} different machines.</strong>
This report never ranks timings, memory or energy of one machine with those of another.</p>
{{ differences }}
{% endif %}
{% for machine in machines %}
{% if machines | length > 1 %}
<h3>Machine {{ machine.letter }}: {{ machine.name }} <small>{{ machine.records }}</small></h3>
{% endif %}
<div class="columns">
{% for table in machine.tables %}
{{ table }}
{% endfor %}
</div>
{% endfor %}
{% if left_out %}<p>{{ left_out }} more machines are in the records.</p>{% endif %}
"""


@register_section("environment", title="Environment", order=90, page="machines")
def describe_machines(results: Results) -> str | None:
    """The facts that differ between the machines, then all known facts of each."""
    machines = results.machines[:MOST_MACHINES]
    states = _states(results)
    return render(
        TEMPLATE,
        number=len(results.machines),
        differences=_differences(machines).html() if len(machines) > 1 else None,
        machines=[_shown(machine, states[machine.letter]) for machine in machines],
        left_out=len(results.machines) - len(machines),
    )


def _shown(machine: Machine, states: list[Mapping[str, Json]]) -> dict[str, Any]:
    tables = [
        _facts(machine, "hardware", machine.hardware),
        _facts(machine, "software", machine.software),
        _facts(machine, "state", _ranges(states)),
    ]
    return {
        "letter": machine.letter,
        "name": machine.name,
        "records": plural(len(states), "record"),
        "tables": [table.html() for table in tables if table.rows],
    }


def _states(results: Results) -> dict[str, list[Mapping[str, Json]]]:
    """The state of every record, by machine."""
    found: dict[str, list[Mapping[str, Json]]] = defaultdict(list)
    for record in results.records:
        found[results.letter_of(record)].append(record.environment.state)
    return found


def _ranges(states: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    """One value per fact that changes from run to run: the range of numbers, a list of other values."""
    values: dict[str, dict[str, Json]] = defaultdict(dict)
    for state in states:
        for name, value in state.items():
            values[name][json.dumps(value)] = value
    return {name: _range([value for value in found.values() if value is not None]) for name, found in values.items()}


def _range(values: list[Json]) -> Json:
    if not values:
        return None
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(values) > 1:
        return f"{min(numbers):g} to {max(numbers):g}"
    return listed((value_text(value) for value in values), most=4)


def _facts(machine: Machine, kind: str, facts: Mapping[str, Json]) -> Table:
    heads = {"hardware": "Hardware", "software": "Software", "state": "State while measuring"}
    return plain_table(
        f"environment-{machine.letter}-{kind}",
        caption=heads[kind],
        heads=("Fact", "Value"),
        rows=[(_readable(name), _value(name, value)) for name, value in facts.items()],
    )


def _differences(machines: Iterable[Machine]) -> Table:
    listed_machines = list(machines)
    return plain_table(
        "environment-differences",
        caption="Facts that differ",
        heads=("Fact", *(f"{machine.letter}: {machine.name}" for machine in listed_machines)),
        rows=[
            (_readable(name), *(_value(name, value) for value in values))
            for name, values in differing_facts(listed_machines).items()
        ],
    )


def _readable(name: str) -> str:
    if name.startswith("env."):
        return name.removeprefix("env.")
    return NAMES.get(name, name.removesuffix("_bytes").replace("_", " "))


def _value(name: str, value: Json) -> str:
    if name.endswith("_bytes") and isinstance(value, int | float):
        return format_value(value, "B")
    return value_text(value)
