"""Compatibility of two sets of records: facts that must be equal for a comparison, and facts that only get a note."""

import json
from collections.abc import Collection, Iterator, Sequence

from bench.comparison.verdicts import Difference, one_line
from bench.core.schema import Json, Record

ACCELERATOR_FACTS = ("gpu", "gpu_driver", "gpu_mig", "gpu_power_limit_w", "architecture")
PROCESSOR_FACTS = ("cpu", "cpu_threads_usable")
PROCESSOR_FIELDS = frozenset(f"hardware.{name}" for name in PROCESSOR_FACTS)
# Library → how many leading parts of its version are its major: Python's minor releases are what others call major.
MAJORS = {"torch": 1, "torchvision": 1, "timm": 1, "transformers": 1, "numpy": 1, "cuda": 1, "python": 2}
SETTINGS = ("cudnn_benchmark", "torch_threads", "cpu_capability")
# These options change how fast a measure works or where its data lie, but not what its value means.
FREE_OPTIONS = frozenset({"root", "workers", "batch", "counters"})
FREE_PROTOCOL = frozenset({"unread_first"})
RUN_AXES = ("precision", "memory_format", "compile", "device", "threads")

Facts = dict[str, Json]


def incompatibilities(
    base: Sequence[Record], head: Sequence[Record], *, of_machine: bool, measure: str | None = None
) -> list[Difference]:
    """Return the facts that forbid comparing these runs of one case, because they are not equal in all of them.

    Facts of hardware and software count only if a metric `of_machine` is compared. If only metrics of one `measure`
    are compared, the options and versions of other measures do not count.
    """
    common = set.intersection(*({*record.case.measures} for record in (*base, *head)))
    measures = common if measure is None else common & {measure}
    sides = [[dict(_deciding_facts(r, measures, of_machine=of_machine)) for r in side] for side in (base, head)]
    return [*_differences(*sides), *_version_differences(base, head, measure=measure)]


def notable_differences(base: Sequence[Record], head: Sequence[Record]) -> list[Difference]:
    """Return facts that differ and may explain a change, but do not forbid the comparison."""
    if not any(depends_on_machine(record) for record in (*base, *head)):
        return []
    return _differences([dict(notable_facts(r)) for r in base], [dict(notable_facts(r)) for r in head])


def depends_on_machine(record: Record) -> bool:
    """Whether any value of a record depends on its machine."""
    return any(metric.is_of_machine and metric.value is not None for metric in record.metrics)


def machine_facts(record: Record) -> Iterator[tuple[str, Json]]:
    """Yield the facts of hardware and software that must be equal if machine-dependent metrics are compared."""
    hardware, software = record.environment.hardware, record.environment.software
    for name in ACCELERATOR_FACTS if hardware.get("gpu") else (*ACCELERATOR_FACTS, *PROCESSOR_FACTS):
        yield f"hardware.{name}", hardware.get(name)
    if not hardware.get("gpu") and hardware.get("cpu_quota") is not None:
        # Only if there is one: machines without a quota keep the hash that their baselines are stored under.
        yield "hardware.cpu_quota", hardware["cpu_quota"]
    for name, parts in MAJORS.items():
        yield f"software.{name} (major)", _major(software.get(name), parts)
    yield "software.cudnn (major)", _cudnn_major(software.get("cudnn"))
    for name in SETTINGS:
        yield f"software.{name}", software.get(name)


def _deciding_facts(record: Record, measures: Collection[str], *, of_machine: bool) -> Iterator[tuple[str, Json]]:
    yield from _protocol(record, measures)
    for axis in RUN_AXES:
        yield axis, getattr(record.case.point, axis)
    if of_machine:
        yield "measured in turns", record.in_turns or "no"
        yield from machine_facts(record)


def _protocol(record: Record, measures: Collection[str]) -> Iterator[tuple[str, Json]]:
    """Yield the protocol of the accuracies and the options of `measures`, which all runs share."""
    protocol = record.details.get("protocol")
    if isinstance(protocol, dict):
        for name, value in protocol.items():
            if name not in FREE_PROTOCOL:
                yield f"protocol.{name}", value
    for measure in sorted(measures):
        for name, value in record.case.measures[measure].items():
            if name not in FREE_OPTIONS:
                yield f"measure.{measure}.{name}", value


def _version_differences(base: Sequence[Record], head: Sequence[Record], *, measure: str | None) -> list[Difference]:
    """Return measures whose version differs; records from before versions were stored are compatible with all."""
    versions = [[_versions(record) for record in side] for side in (base, head)]
    common = set.intersection(*({*each} for side in versions for each in side))
    measures = common if measure is None else common & {measure}
    old, new = (
        [{f"measure.{name} (version)": each[name] for name in sorted(measures)} for each in side] for side in versions
    )
    return _differences(old, new)


def _versions(record: Record) -> Facts:
    versions = record.details.get("measure_versions")
    return versions if isinstance(versions, dict) else {}


def notable_facts(record: Record) -> Iterator[tuple[str, Json]]:
    """Yield the facts of the environment that may explain a change of the values."""
    environment = record.environment
    for name in (*MAJORS, "cudnn"):
        yield f"software.{name}", environment.software.get(name)
    for name in (*PROCESSOR_FACTS, "gpu_uuid"):
        yield f"hardware.{name}", environment.hardware.get(name)
    for name, value in environment.state.items():
        if name.startswith("env.") or name in ("cpu_governor", "container"):
            yield f"state.{name}", value


def _differences(base: Sequence[Facts], head: Sequence[Facts]) -> list[Difference]:
    names = dict.fromkeys(name for facts in (*base, *head) for name in facts)
    found = []
    for name in names:
        if name in PROCESSOR_FIELDS and not all(name in facts for facts in (*base, *head)):
            continue  # a side with a GPU does not list its CPU; the sides differ in `gpu` then
        old, new = (tuple(dict.fromkeys(_text(facts.get(name)) for facts in side)) for side in (base, head))
        if len({*old, *new}) > 1:
            found.append(Difference(field=name, base=old, head=new))
    return found


def _text(value: Json) -> str:
    if value is None:
        return "unknown"
    return one_line(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _major(version: Json, parts: int) -> Json:
    """Return the leading part of a version that changes with breaking releases: two numbers if the first is 0."""
    if not isinstance(version, str):
        return version
    numbers = version.partition("+")[0].split(".")
    return ".".join(numbers[: max(parts, 2 if numbers[0] == "0" else 1)])


def _cudnn_major(version: Json) -> Json:
    """Return 8 for 8907 (cuDNN 8.9.7) and 9 for 91002 (cuDNN 9.10.2)."""
    if not isinstance(version, int):
        return version
    return version // 10000 if version >= 90000 else version // 1000
