"""Which devices `--devices` names, and which run each of them starts next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Point
from bench.runner.devices import Lane, PendingRun, Schedule, lanes_from_text

CPU, CPU2 = Lane(device="cpu"), Lane(device="cpu", number=1)
GPU0, GPU1 = Lane(device="cuda:0"), Lane(device="cuda:1")


def case_of(model: str, *, device: str | None = None, measure: str = "params", runs: int = 1) -> Case:
    point = Point(model=model, clip=Clip.model_validate("16x1x112"), device=device)
    return Case(suite="s", point=point, measures={measure: {}}, runs=runs)


def runs_of(*cases: Case) -> list[PendingRun]:
    """Interleaved as in a plan: every case once before any a second time."""
    return [(case, index) for index in range(max(case.runs for case in cases)) for case in cases if index < case.runs]


def test_devices_are_read_in_their_order() -> None:
    assert lanes_from_text("cuda:1, cuda:0", gpus=2) == (GPU1, GPU0)
    assert lanes_from_text("all", gpus=2) == (GPU0, GPU1)
    assert lanes_from_text("cpu,cpu", gpus=0) == (CPU, CPU2)
    assert [str(lane) for lane in (CPU, CPU2, GPU1)] == ["cpu", "cpu (2)", "cuda:1"]


@pytest.mark.parametrize(
    ("text", "gpus", "message"),
    [
        ("all", 0, "no GPU here"),
        ("cuda:2", 2, "no cuda:2 here; GPUs: cuda:0, cuda:1"),
        ("cuda:0,cuda:0", 1, "names cuda:0 twice"),
        ("cuda:0,cuda:00", 1, "names cuda:0 twice"),
        ("gpu:0", 1, "'gpu:0' is not cpu or a GPU"),
        ("cuda", 1, "'cuda' is not cpu or a GPU"),
        ("cpu,", 1, "'' is not cpu or a GPU"),
        ("cpu,all", 1, "'all' is not cpu or a GPU"),
        ("", 1, "'' is not cpu or a GPU"),
        ("cuda:-1", 1, "is not cpu or a GPU"),
    ],
)
def test_devices_that_are_not_there_or_not_spelled_so_are_one_line(text: str, gpus: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lanes_from_text(text, gpus=gpus)


def test_a_worker_sees_the_gpu_of_its_lane_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert GPU1.variables(case_of("a")) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert CPU.variables(case_of("a")) == {"CUDA_VISIBLE_DEVICES": ""}
    assert GPU1.variables(case_of("a", device="cuda:1")) == {}, "it finds its number itself"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert GPU1.variables(case_of("a", device="cuda")) == {"CUDA_VISIBLE_DEVICES": "GPU-5a"}


def test_cases_that_are_not_timed_run_on_every_lane_in_order() -> None:
    schedule = Schedule(runs=runs_of(case_of("a"), case_of("b"), case_of("c")), lanes=[CPU, CPU2])
    first, second = schedule.next(CPU), schedule.next(CPU2)
    assert [run and run[0].point.model for run in (first, second)] == ["a", "b"]
    schedule.finish(CPU2)
    third = schedule.next(CPU2)
    assert third is not None
    assert third[0].point.model == "c"
    assert schedule.has_ended


def test_a_case_that_is_timed_on_the_cpu_runs_alone() -> None:
    timed, count = case_of("timed", measure="latency"), case_of("count")
    schedule = Schedule(runs=runs_of(timed, count), lanes=[CPU, CPU2])
    assert schedule.next(CPU) == (count, 0)
    assert schedule.next(CPU2) is None, "the count would disturb it"
    schedule.finish(CPU)
    assert schedule.next(CPU2) == (timed, 0)
    assert schedule.next(CPU) is None


def test_repeats_of_a_timed_case_stay_on_its_gpu_and_interleaved() -> None:
    cases = [case_of(name, measure="latency", runs=2) for name in "abcd"]
    schedule = Schedule(runs=runs_of(*cases), lanes=[GPU0, GPU1])
    order: dict[Lane, list[tuple[str, int]]] = {GPU0: [], GPU1: []}
    while not schedule.has_ended:
        for lane in (GPU0, GPU1):
            run = schedule.next(lane)
            if run is not None:
                order[lane].append((run[0].point.model, run[1]))
                schedule.finish(lane)
    assert order == {
        GPU0: [("a", 0), ("c", 0), ("a", 1), ("c", 1)],
        GPU1: [("b", 0), ("d", 0), ("b", 1), ("d", 1)],
    }


def test_a_case_runs_on_the_device_that_it_names_or_on_a_gpu_if_there_is_one() -> None:
    on_cpu, on_gpu, anywhere = case_of("a", device="cpu"), case_of("b", device="cuda:1"), case_of("c")
    schedule = Schedule(runs=runs_of(on_cpu, on_gpu, anywhere), lanes=[CPU, GPU0, GPU1])
    assert schedule.next(GPU0) == (anywhere, 0)
    assert schedule.next(GPU1) == (on_gpu, 0)
    assert schedule.next(CPU) == (on_cpu, 0)


def test_a_case_of_a_device_that_no_lane_has_is_one_line() -> None:
    with pytest.raises(InputError, match="a device=cpu 16x1x112 needs cpu, which --devices cuda:0 does not name"):
        Schedule(runs=runs_of(case_of("a", device="cpu")), lanes=[GPU0])


CASES = st.lists(
    st.builds(
        lambda number, device, measure, runs: case_of(f"m{number}", device=device, measure=measure, runs=runs),
        st.integers(0, 40),
        st.sampled_from([None, "cpu", "cuda", "cuda:0", "cuda:1"]),
        st.sampled_from(["params", "latency"]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda case: case.id,
)


@given(cases=CASES, data=st.data())
def test_whatever_order_runs_end_in_each_runs_once_and_the_rules_hold(cases: list[Case], data: st.DataObject) -> None:
    lanes = [CPU, CPU2, GPU0, GPU1]
    schedule = Schedule(runs=runs_of(*cases), lanes=lanes)
    seen: list[PendingRun] = []
    device_of: dict[str, Lane] = {}
    while not schedule.has_ended or schedule.running:
        idle = [lane for lane in lanes if lane not in schedule.running]
        for lane in data.draw(st.permutations(idle)):
            run = schedule.next(lane)
            if run is None:
                continue
            seen.append(run)
            if "latency" in run[0].measures and not lane.is_cpu:
                assert device_of.setdefault(run[0].id, lane) == lane
        assert schedule.running, "some lane can always go on"
        timed_on_cpu = [
            lane for lane, (case, _) in schedule.running.items() if lane.is_cpu and "latency" in case.measures
        ]
        assert not timed_on_cpu or len(schedule.running) == 1
        schedule.finish(data.draw(st.sampled_from(sorted(schedule.running, key=str))))
    assert sorted((case.id, index) for case, index in seen) == sorted((c.id, i) for c, i in runs_of(*cases))
