"""Titles and meanings of metrics, axes and statuses. A name that is not listed is spelled out."""

from collections.abc import Iterable, Mapping

from bench.core.schema import Json
from bench.core.units import DASH

# Metrics of a leaderboard, in its order; of other measures the first metric that says which direction is better.
HEADLINES = (
    "params.total",
    "macs.forward",
    "latency.p50_ms",
    "latency.speedup",
    "throughput.clips_per_s",
    "throughput.speedup",
    "memory.peak_allocated_bytes",
    "energy.j_per_clip",
    "accuracy.top1",
    "accuracy.top5",
    "parity.max_difference",
)
# What stands in for a headline where no row knows it.
STAND_INS = {"memory.peak_allocated_bytes": "memory.peak_rss_bytes"}
METRICS: dict[str, tuple[str, str]] = {
    "params.total": ("Parameters", "every parameter once, shared ones not twice"),
    "macs.forward": ("MACs", "multiply-accumulates of one forward pass over one view; 1 MAC = 2 FLOPs"),
    "macs.train_step": ("MACs, training step", "multiply-accumulates of forward and backward over one view"),
    "latency.p50_ms": ("Latency", "median time of one forward pass, waited for before the next begins"),
    "throughput.clips_per_s": ("Throughput", "clips a second with several batches in flight"),
    "memory.peak_allocated_bytes": ("Peak memory", "most bytes held by tensors in one forward pass, weights included"),
    "memory.peak_rss_bytes": ("Process memory", "most main memory the whole process held"),
    "energy.j_per_clip": ("Energy", "joules for one clip"),
    "throughput.speedup": ("Speedup", "throughput of the fastest way whose outputs match, over eager fp32"),
    "latency.speedup": ("Speedup of a pass", "latency of eager fp32 over that of the fastest way whose outputs match"),
    "limits.of_device": ("Of the device", "share of the most that this device can do at the work's FLOPs per byte"),
    "limits.mfu": ("MFU", "FLOP/s as a share of the dense data-sheet peak"),
    "parity.max_difference": ("Parity", "largest difference from eager fp32, as a share of the largest logit"),
    "parity.top1_agreement": ("Top-1 agreement", "share of the clips whose best class is that of eager fp32"),
    "train_step.step_ms": ("Train step", "median time of forward, backward and optimizer step"),
    "cold.total_s": ("Cold start", "time of a fresh process until its first logits"),
    "decode.clips_per_s": ("Decoding", "clips a second that one worker makes of video files"),
    "end_to_end.clips_per_s": ("End to end", "clips a second from video files to logits"),
    "accuracy.top1": ("Top-1", "share of the test videos whose highest score is the right class"),
    "accuracy.top5": ("Top-5", "share of the test videos with the right class among the five highest scores"),
}
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
    "unsteady": "measured, but it never became steady",
    "throttled": "measured, but the device slowed itself down",
    "oom": "out of memory",
    "timeout": "ran out of time",
    "interrupted": "stopped before it had a result",
    "drifting": "measured, but the machine changed meanwhile",
    "error": "failed",
    "skipped": "skipped",
}


def metric_name(name: str) -> str:
    """`latency.p99_ms` as `Latency p99`; known metrics by their own word."""
    if name in METRICS:
        return METRICS[name][0]
    measure, _, quantity = name.partition(".")
    is_rate = "_per_" in quantity  # the ending of a rate is part of its name: clips_per_s
    ending = "" if is_rate else next((e for e in UNIT_ENDINGS if quantity.endswith(e)), "")
    return f"{measure} {quantity.removesuffix(ending)}".replace("_per_s", "/s").replace("_", " ").capitalize()


def metric_meaning(name: str) -> str:
    """What a metric is, in a few words; its own name if it is not known."""
    return METRICS[name][1] if name in METRICS else name


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
