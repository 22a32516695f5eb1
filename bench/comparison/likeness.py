"""Whether two sets of records may be compared: the facts that decide it, and those that are only worth a note."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bench.comparison.wording import one_line
from bench.core.schema import Json, Record

ACCELERATOR_FACTS = ("gpu", "gpu_driver", "gpu_mig", "gpu_power_limit_w", "architecture")
PROCESSOR_FACTS = ("cpu", "cpu_threads_usable")
OF_PROCESSORS = frozenset(f"hardware.{name}" for name in PROCESSOR_FACTS)
# Library → how many leading parts of its version are its major: Python's minor releases are what others call major.
MAJORS = {"torch": 1, "torchvision": 1, "timm": 1, "transformers": 1, "numpy": 1, "cuda": 1, "python": 2}
SETTINGS = ("cudnn_benchmark", "torch_threads", "cpu_capability")
# How fast a measure works, where its data lie and who else counts do not change what a figure means.
FREE_OPTIONS = frozenset({"root", "workers", "batch", "counters"})
FREE_PROTOCOL = frozenset({"unread_first"})
RUN_AXES = ("precision", "memory_format", "compile", "device", "threads")

Facts = dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """One fact that differs between the sides, or within one, with the values found."""

    field: str
    base: tuple[str, ...]
    head: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field}: {' and '.join(self.base)} in base, {' and '.join(self.head)} in head"


def unlike_fields(
    base: Sequence[Record], head: Sequence[Record], *, of_machine: bool, measure: str | None = None
) -> list[Unlike]:
    """Facts that decide whether these runs of one case may be compared, and are not the same in all of them.

    Those of hardware and software decide only where a figure `of_machine` is to be compared. Where figures of one
    `measure` alone are, the options and versions of others do not matter.
    """
    measures = set.intersection(*({*record.case.measures} for record in (*base, *head)))
    asked = measures if measure is None else measures & {measure}
    sides = [[dict(_deciding(r, asked, of_machine=of_machine)) for r in side] for side in (base, head)]
    return [*_differing(*sides), *_versions_apart(base, head, measure=measure)]


def _versions_apart(base: Sequence[Record], head: Sequence[Record], *, measure: str | None) -> list[Unlike]:
    """Measures that count or time in another way on either side; records from before versions were kept say nothing."""
    versions = [[_versions(record) for record in side] for side in (base, head)]
    shared = set.intersection(*({*each} for side in versions for each in side))
    asked = shared if measure is None else shared & {measure}
    old, new = (
        [{f"measure.{name} (version)": each[name] for name in sorted(asked)} for each in side] for side in versions
    )
    return _differing(old, new)


def _versions(record: Record) -> Facts:
    versions = record.details.get("measure_versions")
    return versions if isinstance(versions, dict) else {}


def noteworthy_fields(base: Sequence[Record], head: Sequence[Record]) -> list[Unlike]:
    """Facts that differ and may explain a change, but do not forbid the comparison."""
    if not any(depends_on_machine(record) for record in (*base, *head)):
        return []
    return _differing([dict(_telling(r)) for r in base], [dict(_telling(r)) for r in head])


def depends_on_machine(record: Record) -> bool:
    """Whether any figure of a record is of its machine."""
    return any(metric.is_of_machine and metric.value is not None for metric in record.metrics)


def _deciding(record: Record, measures: Collection[str], *, of_machine: bool) -> Iterator[tuple[str, Json]]:
    yield from _protocol(record, measures)
    for axis in RUN_AXES:
        yield axis, getattr(record.case.point, axis)
    if of_machine:
        yield "measured in turns", record.in_turns or "no"
        yield from machine_facts(record)


def machine_facts(record: Record) -> Iterator[tuple[str, Json]]:
    """Facts of hardware and software that must be the same for figures of a machine to be compared."""
    hardware, software = record.environment.hardware, record.environment.software
    for name in ACCELERATOR_FACTS if hardware.get("gpu") else (*ACCELERATOR_FACTS, *PROCESSOR_FACTS):
        yield f"hardware.{name}", hardware.get(name)
    for name, parts in MAJORS.items():
        yield f"software.{name} (major)", _major(software.get(name), parts)
    yield "software.cudnn (major)", _cudnn_major(software.get("cudnn"))
    for name in SETTINGS:
        yield f"software.{name}", software.get(name)


def _protocol(record: Record, measures: Collection[str]) -> Iterator[tuple[str, Json]]:
    """How accuracies were taken, and the options of those `measures` that all runs have."""
    protocol = record.details.get("protocol")
    if isinstance(protocol, dict):
        for name, value in protocol.items():
            if name not in FREE_PROTOCOL:
                yield f"protocol.{name}", value
    for measure in sorted(measures):
        for name, value in record.case.measures[measure].items():
            if name not in FREE_OPTIONS:
                yield f"measure.{measure}.{name}", value


def _telling(record: Record) -> Iterator[tuple[str, Json]]:
    environment = record.environment
    for name in (*MAJORS, "cudnn"):
        yield f"software.{name}", environment.software.get(name)
    for name in (*PROCESSOR_FACTS, "gpu_uuid"):
        yield f"hardware.{name}", environment.hardware.get(name)
    for name, value in environment.state.items():
        if name.startswith("env.") or name in ("cpu_governor", "container"):
            yield f"state.{name}", value


def _differing(base: Sequence[Facts], head: Sequence[Facts]) -> list[Unlike]:
    names = dict.fromkeys(name for facts in (*base, *head) for name in facts)
    found = []
    for name in names:
        if name in OF_PROCESSORS and not all(name in facts for facts in (*base, *head)):
            continue  # a side with a GPU is not asked for it, and differs in the GPU
        old, new = (tuple(dict.fromkeys(_text(facts.get(name)) for facts in side)) for side in (base, head))
        if len({*old, *new}) > 1:
            found.append(Unlike(field=name, base=old, head=new))
    return found


def _text(value: Json) -> str:
    return (
        "unknown" if value is None else one_line(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
    )


def _major(version: Json, parts: int) -> Json:
    """The part of a version whose change may break what it promised: two numbers where the first is 0."""
    if not isinstance(version, str):
        return version
    numbers = version.partition("+")[0].split(".")
    return ".".join(numbers[: max(parts, 2 if numbers[0] == "0" else 1)])


def _cudnn_major(version: Json) -> Json:
    """cuDNN counts 8907 for 8.9.7 and 91002 for 9.10.2."""
    if not isinstance(version, int):
        return version
    return version // 10000 if version >= 90000 else version // 1000
