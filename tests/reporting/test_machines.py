"""Which records may stand beside each other."""

from types import SimpleNamespace

from bench.reporting.machines import Machines, differing_facts
from bench.reporting.results import collect
from bench.schema import Environment


def test_machines_are_alike_where_no_known_fact_differs() -> None:
    machines = Machines()
    few = Environment(hardware={"cpu": "X"}, software={"torch": None})
    more = Environment(hardware={"cpu": "X", "gpu": "H100"}, software={"torch": "2.15"})
    other = Environment(hardware={"cpu": "X", "gpu": "A100"}, software={"torch": "2.15"})
    assert [machines.letter(e) for e in (few, more, few, other)] == ["A", "A", "A", "B"]
    assert machines.all[0].hardware == {"cpu": "X", "gpu": "H100"}
    assert machines.all[0].name == "H100"


def test_another_library_version_makes_another_machine() -> None:
    machines = Machines()
    versions = [Environment(software={"torch": v}) for v in ("2.11.0", "2.15.0", "2.11.0")]
    assert [machines.letter(e) for e in versions] == ["A", "B", "A"]
    assert differing_facts(machines.all) == {"torch": ("2.11.0", "2.15.0")}


def test_pieces_of_the_same_hardware_are_one_machine() -> None:
    machines = Machines()
    nodes = [Environment(hardware={"gpu": "H100", "gpu_uuid": f"GPU-{i}", "ram_bytes": 100 + i}) for i in range(8)]
    assert {machines.letter(node) for node in nodes} == {"A"}


def test_the_27th_machine_is_called_aa() -> None:
    machines = Machines()
    letters = [machines.letter(Environment(hardware={"cpu": str(i)})) for i in range(28)]
    assert letters[0] == "A"
    assert letters[25:] == ["Z", "AA", "AB"]


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
