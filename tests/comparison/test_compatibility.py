"""Facts that must be equal in two sets of records before their machine-dependent metrics are compared."""

from collections.abc import Callable

import pytest

from bench.comparison.compatibility import incompatibilities, machine_facts
from bench.core.schema import Environment, Metric, Record

MakeRecord = Callable[..., Record]
LATENCY = Metric(name="latency.p50_ms", value=5.0, unit="ms", better="lower")


def on(record: MakeRecord, **hardware: object) -> Record:
    return record(LATENCY, environment=Environment(hardware={"cpu": "x", **hardware}))


@pytest.mark.parametrize(("base", "head"), [(None, 1.5), (2.0, 1.5), (1.5, None)])
def test_another_cpu_quota_is_another_machine(record: MakeRecord, base: float | None, head: float | None) -> None:
    found = incompatibilities([on(record, cpu_quota=base)], [on(record, cpu_quota=head)], of_machine=True)
    assert [difference.field for difference in found] == ["hardware.cpu_quota"]


def test_the_same_quota_and_records_from_before_quotas_are_compatible(record: MakeRecord) -> None:
    assert not incompatibilities([on(record, cpu_quota=1.5)], [on(record, cpu_quota=1.5)], of_machine=True)
    assert not incompatibilities([on(record)], [on(record, cpu_quota=None)], of_machine=True)
    assert dict(machine_facts(on(record))) == dict(machine_facts(on(record, cpu_quota=None)))
