"""Waiting for an idle machine before a timed case, with a fake clock."""

import pytest

from bench.cli.arguments import seconds_of, with_optional_values
from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Point, Record
from bench.runner.idle import IdleWait, MachineUse, is_timed_case, read_use, wait_until_idle

BUSY, IDLE = MachineUse(other_cores=1.8, cores=2), MachineUse(other_cores=0.04, cores=2)


class Machine:
    """A machine that is busy for so many seconds; each look at it takes one."""

    def __init__(self, busy_s: float) -> None:
        self.busy_s, self.now_s, self.lines = busy_s, 0.0, list[str]()

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def read(self, device: str | None) -> MachineUse:
        self.sleep(1.0)
        return BUSY if self.now_s <= self.busy_s else IDLE

    def wait(self, limit_s: float) -> IdleWait:
        return wait_until_idle(
            limit_s, on_wait=self.lines.append, read=self.read, clock_s=lambda: self.now_s, sleep=self.sleep
        )


def test_an_idle_machine_is_not_waited_for() -> None:
    machine = Machine(busy_s=0)
    assert machine.wait(60) == IdleWait(waited_s=1.0, use=IDLE)
    assert machine.lines == []


def test_a_busy_machine_is_waited_for_and_one_line_says_so() -> None:
    machine = Machine(busy_s=20)
    found = machine.wait(60)
    assert (found.use, found.waited_s) == (IDLE, pytest.approx(21, abs=1))
    assert machine.lines == ["waiting at most 60 s for an idle machine: other processes use 1.8 of 2 cores"]


def test_waiting_ends_at_its_limit() -> None:
    machine = Machine(busy_s=1000)
    found = machine.wait(60)
    assert found.use == BUSY
    assert 60 <= found.waited_s <= 62


@pytest.mark.parametrize(
    ("use", "is_idle"),
    [
        (MachineUse(other_cores=0.1, cores=2), True),
        (MachineUse(other_cores=0.11, cores=2), False),
        (MachineUse(other_cores=3.0, cores=64), True),
        (MachineUse(other_cores=0.0, cores=2, gpu_busy_share=0.3), False),
        (MachineUse(other_cores=0.0, cores=2, gpu_busy_share=0.0), True),
    ],
)
def test_idle_is_5_percent_of_the_processors_and_of_the_gpu(use: MachineUse, *, is_idle: bool) -> None:
    assert use.is_idle == is_idle


def record() -> Record:
    case = Case(suite="s", point=Point(model="m", clip=Clip.model_validate("16x1x112")), measures={"latency": {}})
    rest = {"case_id": case.id, "run_index": 0, "freshness": "", "status": "ok", "started_at": "2026-01-01T00:00:00"}
    return Record(case=case, **rest)


def test_the_record_holds_the_wait_and_warns_if_it_was_in_vain() -> None:
    found = IdleWait(waited_s=21.04, use=IDLE).noted_in(record())
    assert found.details["idle_wait"] == {
        "waited_s": 21.0,
        "is_idle": True,
        "other_cores": 0.04,
        "cores": 2,
        "gpu_busy_share": None,
    }
    assert found.warnings == ()
    (warning,) = IdleWait(waited_s=60.0, use=BUSY).noted_in(record()).warnings
    assert warning.what == "the machine was not idle after 60 s of waiting: other processes use 1.8 of 2 cores"
    assert "--wait-idle" in warning.remedy


def test_the_use_of_this_machine_can_be_read() -> None:
    use = read_use("cpu", sleep=lambda seconds: None)
    assert use.cores >= 1
    assert use.other_cores >= 0
    assert use.gpu_busy_share is None


def test_only_timed_cases_wait() -> None:
    timed = record().case
    assert is_timed_case(timed)
    assert not is_timed_case(timed.model_copy(update={"measures": {"params": {}, "macs": {}}}))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["run", "s.yaml", "--wait-idle"], ["run", "s.yaml", "--wait-idle=10m"]),
        (["run", "--wait-idle", "s.yaml"], ["run", "--wait-idle=10m", "s.yaml"]),
        (["run", "--wait-idle", "--small", "s.yaml"], ["run", "--wait-idle=10m", "--small", "s.yaml"]),
        (["run", "--wait-idle", "90", "s.yaml"], ["run", "--wait-idle", "90", "s.yaml"]),
        (["run", "--wait-idle", "1.5h"], ["run", "--wait-idle", "1.5h"]),
        (["run", "s.yaml", "--wait-idle", "2d"], ["run", "s.yaml", "--wait-idle", "2d"]),  # refused as a time
        (["run", "--wait-idle", "3d.yaml"], ["run", "--wait-idle=10m", "3d.yaml"]),
        (["run", "--wait-idle=2m", "s.yaml"], ["run", "--wait-idle=2m", "s.yaml"]),
    ],
)
def test_a_bare_wait_idle_has_a_default_time(given: list[str], found: list[str]) -> None:
    assert with_optional_values(given) == found


def test_times_are_seconds_minutes_or_hours() -> None:
    assert [seconds_of(text, flag="--budget") for text in ("90s", "1.5m", "2h")] == [90, 90, 7200]
    assert seconds_of("90", flag="--wait-idle", needs_unit=False) == 90
    with pytest.raises(InputError, match="--budget '10' is not a time"):
        seconds_of("10", flag="--budget")
    with pytest.raises(InputError, match="--wait-idle 'soon' is not a time; allowed: seconds, minutes or hours"):
        seconds_of("soon", flag="--wait-idle")
