"""Which records may be ranked together."""

from types import SimpleNamespace

from bench.core.schema import Environment, Record
from bench.reporting.machines import Machines, differing_facts
from bench.reporting.results import collect


def letters(make: SimpleNamespace, environments: list[Environment]) -> tuple[list[str], Machines]:
    machines = Machines()
    return [machines.letter(make.record(environment=e)) for e in environments], machines


def test_environments_are_compatible_if_no_known_fact_differs(make: SimpleNamespace) -> None:
    few = Environment(hardware={"cpu": "X"}, software={"torch": None})
    more = Environment(hardware={"cpu": "X", "gpu": "H100"}, software={"torch": "2.15"})
    other = Environment(hardware={"cpu": "X", "gpu": "A100"}, software={"torch": "2.15"})
    found, machines = letters(make, [few, more, few, other])
    assert found == ["A", "A", "A", "B"]
    assert machines.all[0].hardware == {"cpu": "X", "gpu": "H100"}
    assert machines.all[0].name == "H100"


def test_another_library_version_makes_another_machine(make: SimpleNamespace) -> None:
    found, machines = letters(make, [Environment(software={"torch": v}) for v in ("2.11.0", "2.15.0", "2.11.0")])
    assert found == ["A", "B", "A"]
    assert differing_facts(machines.all) == {"torch": ("2.11.0", "2.15.0")}


def test_pieces_of_the_same_hardware_are_one_machine(make: SimpleNamespace) -> None:
    nodes = [Environment(hardware={"gpu": "H100", "gpu_uuid": f"GPU-{i}", "ram_bytes": 100 + i}) for i in range(8)]
    assert set(letters(make, nodes)[0]) == {"A"}


def test_threads_that_the_case_asked_for_are_not_another_machine(make: SimpleNamespace) -> None:
    def threaded(asked: int | None, used: int) -> Record:
        return make.record(environment=Environment(software={"torch_threads": used}), threads=asked)

    machines = Machines()
    assert [machines.letter(threaded(n, n)) for n in (1, 2)] == ["A", "A"]
    assert [machines.letter(threaded(None, n)) for n in (1, 2)] == ["A", "B"]


def test_the_27th_machine_is_called_aa(make: SimpleNamespace) -> None:
    found, _ = letters(make, [Environment(hardware={"cpu": str(i)}) for i in range(28)])
    assert found[0] == "A"
    assert found[25:] == ["Z", "AA", "AB"]


def test_the_same_timing_on_two_machines_is_two_cases_but_a_count_is_one(make: SimpleNamespace) -> None:
    results = collect(
        [
            make.timing(ms=20, environment=make.host),
            make.timing(ms=2, environment=make.gpu_host),
            make.counts(environment=make.host),
            make.counts(environment=make.gpu_host),
        ]
    )
    assert [(case.machine, len(case.runs)) for case in results.cases] == [("A", 1), ("B", 1), ("", 1)]
    assert results.replaced == 1
