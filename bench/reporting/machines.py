"""Groups records by machine. Environments are compatible if no fact that both know differs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.schema import Environment, Json, Record

# Facts that differ between two pieces of the same hardware, follow from the case, or do not affect timings.
IGNORED_FACTS = frozenset({"gpu_uuid", "ram_bytes", "cudnn_benchmark", "vbench", "codecarbon", "nvidia-ml-py"})


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and software whose values may be compared, named by a letter."""

    letter: str
    hardware: Mapping[str, Json]
    software: Mapping[str, Json]

    @property
    def name(self) -> str:
        """The name of the GPU if there is one, else of the CPU."""
        return str(self.hardware.get("gpu") or self.hardware.get("cpu") or "unknown hardware")

    def is_compatible(self, environment: Environment) -> bool:
        """Whether no fact that both know differs."""
        return not _conflicts(self.hardware, environment.hardware) and not _conflicts(
            self.software, environment.software
        )

    def merged_with(self, environment: Environment) -> "Machine":
        """This machine with the additional facts of `environment`."""
        return Machine(
            letter=self.letter,
            hardware={**_known(environment.hardware), **self.hardware},
            software={**_known(environment.software), **self.software},
        )


class Machines:
    """Gives a letter to each group of compatible environments, in order of appearance."""

    def __init__(self) -> None:
        self.all: list[Machine] = []
        self._seen: dict[str, int] = {}

    def letter(self, record: Record) -> str:
        """The letter of the machine that is compatible with this record's environment; a new letter if there is none.

        If the case sets the number of threads, that number is not a fact of the machine.
        """
        environment = record.environment
        if record.case.point.threads is not None:
            software = {name: value for name, value in environment.software.items() if name != "torch_threads"}
            environment = environment.model_copy(update={"software": software})
        key = json.dumps([environment.hardware, environment.software], sort_keys=True)
        if key not in self._seen:
            self._seen[key] = self._place(environment)
        return self.all[self._seen[key]].letter

    def _place(self, environment: Environment) -> int:
        for index, machine in enumerate(self.all):
            if machine.is_compatible(environment):
                self.all[index] = machine.merged_with(environment)
                return index
        empty = Machine(letter=_letter(len(self.all)), hardware={}, software={})
        self.all.append(empty.merged_with(environment))
        return len(self.all) - 1


def differing_facts(machines: list[Machine] | tuple[Machine, ...]) -> dict[str, tuple[Json, ...]]:
    """Facts that differ between `machines`, each with its value on every machine (None if unknown)."""
    everything = [{**m.software, **m.hardware} for m in machines]
    names = dict.fromkeys(name for m in machines for name in (*m.hardware, *m.software))
    found = {name: tuple(facts.get(name) for facts in everything) for name in names if name not in IGNORED_FACTS}
    return {n: values for n, values in found.items() if len({json.dumps(v) for v in values if v is not None}) > 1}


def _known(facts: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in facts.items() if value is not None}


def _conflicts(ours: Mapping[str, Json], theirs: Mapping[str, Json]) -> list[str]:
    return [
        name
        for name, value in _known(theirs).items()
        if name not in IGNORED_FACTS and ours.get(name) is not None and ours[name] != value
    ]


def _letter(index: int) -> str:
    """A, B, … Z, AA, AB, …"""
    rest, last = divmod(index, 26)
    return (_letter(rest - 1) if rest else "") + chr(ord("A") + last)
