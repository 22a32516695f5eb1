"""Models as `vbench models` shows them: facts and counts from the cache, missing ones asked of a child."""

from typing import Any

from bench.catalog.facts import Facts
from bench.core.schema import ModelFacts, Point, Probe


def model_rows(pattern: str, facts: Facts) -> list[tuple[ModelFacts, Probe]]:
    """Facts of every model that matches a shell pattern, with its counts at its default clip."""
    names = facts.names(pattern) or [pattern]
    facts.look_up(names)
    found = [facts.model(name) for name in names]
    counts = facts.probe([Point(model=model.name, clip=model.clip) for model in found])
    return list(zip(found, counts, strict=True))


def model_as_dict(model: ModelFacts, probe: Probe) -> dict[str, Any]:
    """One model for machines: facts and counts, unknown as null."""
    return {
        **model.model_dump(mode="json", exclude={"clip", "source"}),
        "clip": str(model.clip),
        "params": probe.params,
        "macs": probe.macs,
        "problem": probe.problem or probe.note,
    }
