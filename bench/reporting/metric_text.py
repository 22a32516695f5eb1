"""Texts of metrics, axes, statuses and values. Measures declare titles and meanings; others are made from the name."""

from collections.abc import Iterable, Mapping

from bench.core.registry import find_metric_spec
from bench.core.schema import Json
from bench.core.units import DASH

UNIT_ENDINGS = ("_ms", "_us", "_s", "_bytes", "_j", "_w", "_wh", "_pt", "_percent")
AXES = {
    "args": "arguments",
    "batch": "batch",
    "clip": "clip",
    "compile": "compile",
    "dataset": "data set",
    "device": "device",
    "machine": "machine",
    "memory_format": "memory format",
    "model": "model",
    "precision": "precision",
    "recipe": "recipe",
    "seed": "seed",
    "split": "split",
    "suite": "suite",
    "threads": "threads",
    "variant": "variant",
    "views": "views",
    "weights": "weights",
}
STATUSES = {
    "ok": "measured",
    "unsteady": "measured, but its samples vary too much",
    "throttled": "measured, but the device slowed itself down",
    "oom": "out of memory",
    "timeout": "ran out of time",
    "interrupted": "stopped before it had a result",
    "drifting": "measured, but its level moved meanwhile",
    "error": "failed",
    "skipped": "skipped",
}


def metric_name(name: str) -> str:
    """The title that the measure declares; of a metric that no measure declares its name in words: `Mine zeros`."""
    spec = find_metric_spec(name)
    if spec is not None:
        return spec.title
    measure, _, quantity = name.partition(".")
    is_rate = "_per_" in quantity  # the ending of a rate is part of its name: clips_per_s
    ending = "" if is_rate else next((e for e in UNIT_ENDINGS if quantity.endswith(e)), "")
    return f"{measure} {quantity.removesuffix(ending)}".replace("_per_s", "/s").replace("_", " ").capitalize()


def metric_meaning(name: str) -> str:
    """What a metric is, as its measure declares it; the name itself if no measure does."""
    spec = find_metric_spec(name)
    return spec.meaning if spec is not None else name


def axis_name(axis: str) -> str:
    """The title of an axis of a suite; an argument of a model has its own name."""
    return AXES.get(axis, axis)


def value_text(value: Json) -> str:
    """The text of one value of an axis or one fact: lists are joined, None is a dash."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {value_text(v)}" for k, v in value.items()) or "none"
    return str(value)


def settings_text(settings: Mapping[str, Json]) -> str:
    """`kernel_depth 3, width 16`."""
    return ", ".join(f"{axis_name(name)} {value_text(value)}" for name, value in settings.items())


def listed(items: Iterable[str], *, most: int = 8) -> str:
    """`a, b and c`; of more than `most` items the rest is counted: `a, b and 3 more`. Empty for no items."""
    words = list(items)
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])
