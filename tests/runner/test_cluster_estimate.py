"""Hours, GPU hours and energy of a suite on a cluster, computed by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import InputError
from bench.core.registry import MEASURES
from bench.core.schema import Case, Clip, Environment, Json, Metric, Point, Record
from bench.runner.cluster_estimate import estimate_on_cluster, watts_of
from bench.runner.estimate import START_SECONDS
from bench.runner.executors.ray import Ray
from bench.runner.executors.slurm import Slurm, gpus_of_gres
from bench.runner.running import Plan
from bench.runner.submitting import open_executor
from bench.store import RecordStore
from bench.suite import Suite
from bench.suite.requirement import Requirement

CLIP = Clip.model_validate("16x1x112")
H200 = Environment(hardware={"gpu": "NVIDIA H200", "cpu": "Xeon"})
L4 = Environment(hardware={"gpu": "NVIDIA L4", "cpu": "Xeon"})


def case_of(measure: str, *, batch: int | None = None, runs: int = 1, **axes: Any) -> Case:
    return Case(suite="s", point=Point(model="c3d", clip=CLIP, batch=batch, **axes), measures={measure: {}}, runs=runs)


def record_of(
    case: Case,
    seconds: float,
    *,
    environment: Environment = H200,
    index: int = 0,
    metrics: Sequence[Metric] = (),
    energy: Json = None,
) -> Record:
    return Record(
        case=case,
        case_id=case.id,
        run_index=index,
        freshness="",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        seconds={"whole": seconds},
        metrics=tuple(metrics),
        environment=environment,
        details={} if energy is None else {"energy": energy},
    )


def plan_of(
    folder: Path, cases: Sequence[Case], *, records: Sequence[Record] = (), require: Requirement | None = None
) -> Plan:
    """A plan whose runs are all pending, though the folder has records of some."""
    store = RecordStore(folder)
    for record in records:
        store.append(record)
    suite = Suite(
        name="s",
        title="",
        description="",
        path=folder,
        text="",
        cases=tuple(cases),
        ablate=None,
        gate={},
        require=require,
    )
    return Plan(suite=suite, store=store, freshness={}, done=frozenset(), history=tuple(store.runs()))


def test_timed_runs_are_spread_over_jobs_that_hold_gpus(tmp_path: Path) -> None:
    """Runs of 100, 200, 300 s, then again: one job makes 100 + 300 + 300 = 700, the other 200 + 100 + 200 = 500."""
    cases = [case_of("latency", batch=batch, runs=2) for batch in (1, 2, 3)]
    records = [record_of(case, 100.0 * place) for place, case in enumerate(cases, 1)]
    plan = plan_of(tmp_path, cases, records=records, require=Requirement(gpu="H200", gpus=4))
    (timed,) = estimate_on_cluster(plan, Slurm(), most_jobs=2).groups
    assert (timed.jobs, timed.gpus, timed.wall_s, timed.busy_s) == (2, 4, 700.0, 1200.0)
    assert timed.gpu_s == 4 * 1200.0
    assert timed.sources == {"earlier runs of the case": 6}


def test_the_longest_job_decides_and_submissions_run_at_once(tmp_path: Path) -> None:
    """Timed: 50, 50 and 500 s on two jobs, so 50 + 500 = 550. Counts: 20, 20 and 20 s, so 40."""
    timed = [case_of("latency", batch=batch) for batch in (1, 2, 3)]
    counted = [case_of("params", batch=batch) for batch in (1, 2, 3)]
    records = [record_of(case, seconds) for case, seconds in zip(timed, (50.0, 50.0, 500.0), strict=True)]
    records += [record_of(case, 20.0) for case in counted]
    estimate = estimate_on_cluster(
        plan_of(tmp_path, [*timed, *counted], records=records), Slurm(gres="gpu:2"), most_jobs=2
    )
    assert [(each.group.kind.is_timed, each.wall_s, each.gpus) for each in estimate.groups] == [
        (False, 40.0, 2),
        (True, 550.0, 2),
    ]
    assert estimate.wall_s == 550.0
    assert estimate.machines == ("NVIDIA H200",)


def test_a_job_over_several_nodes_holds_the_gpus_of_all_of_them(tmp_path: Path) -> None:
    """Two nodes of four ranks each, all on GPUs, for 100 s: 800 s."""
    point = Point(model="c3d", clip=CLIP, dataset="motions", recipe="quick", seed=0, views="1x1", device="cuda")
    case = Case(suite="s", point=point, measures={"accuracy": {"ranks": 8, "nodes": 2}})
    plan = plan_of(tmp_path, [case], records=[record_of(case, 100.0)])
    (group,) = estimate_on_cluster(plan, Slurm(), most_jobs=16).groups
    assert (group.gpus, group.gpu_s) == (8, 800.0)


def test_only_records_of_the_required_gpu_count(tmp_path: Path) -> None:
    case = case_of("latency")
    records = [record_of(case, 10.0, environment=L4), record_of(case, 30.0, environment=H200, index=1)]
    plan = plan_of(tmp_path, [case], records=records, require=Requirement(gpu="h200"))
    estimate = estimate_on_cluster(plan, Ray(), most_jobs=4)
    assert (estimate.wall_s, estimate.groups[0].jobs, estimate.machines) == (30.0, 1, ("NVIDIA H200",))
    elsewhere = estimate_on_cluster(plan_of(tmp_path, [case], require=Requirement(gpu="A100")), Ray(), most_jobs=4)
    assert elsewhere.wall_s == START_SECONDS + MEASURES.get("latency").duration_s
    assert elsewhere.groups[0].sources == {"declared durations": 1}


def test_energy_is_the_measured_power_for_the_time_of_each_run(tmp_path: Path) -> None:
    """A case drew 400 W on the GPU and 100 W on the CPU; an alike one, of 60 s, takes the same power."""
    measured, alike = case_of("energy", batch=1), case_of("energy", batch=2)
    energy = {
        "joules": 4000.0,
        "seconds": 10.0,
        "source": "NVML total energy",
        "codecarbon": {"seconds": 20.0, "joules": {"gpu": 9e9, "cpu": 2000.0, "ram": None}},
    }
    records = [record_of(measured, 20.0, energy=energy), record_of(alike, 60.0)]
    (timed,) = estimate_on_cluster(
        plan_of(tmp_path, [measured, alike], records=records), Ray(gpus=1), most_jobs=1
    ).groups
    assert timed.joules == {"cpu": 100.0 * 80, "gpu": 400.0 * 80}
    assert (timed.without_energy, timed.runs_by_part) == (0, {"cpu": 2, "gpu": 2})


def test_the_energy_of_a_training_is_that_of_earlier_trainings(tmp_path: Path) -> None:
    """One seed took 50 s and 10 kJ on the GPU, and another 150 s and 60 kJ: 200 and 400 W, so 300 W for a third."""
    first, second, third = (
        case_of("accuracy", dataset="motions", recipe="quick", seed=seed, views="1x1") for seed in (0, 1, 2)
    )
    joules = [Metric(name="accuracy.train_gpu_j", value=value, unit="J") for value in (10_000, 60_000)]
    cpu = Metric(name="accuracy.train_cpu_j", value=None, unit="J", note="codecarbon has no value")
    records = [record_of(first, 50.0, metrics=[joules[0], cpu]), record_of(second, 150.0, metrics=[joules[1]])]
    plan = plan_of(tmp_path, [third], records=[*records, record_of(third, 10.0)])
    (group,) = estimate_on_cluster(plan, Ray(gpus=2), most_jobs=8).groups
    assert group.joules == {"gpu": 300.0 * 10}
    assert group.gpu_s == 20.0


def test_what_is_unknown_is_counted_and_not_zero(tmp_path: Path) -> None:
    training = case_of("accuracy", dataset="motions", recipe="quick", seed=0, views="1x1")
    (group,) = estimate_on_cluster(plan_of(tmp_path, [training]), Slurm(), most_jobs=8).groups
    assert (group.without_time, group.without_energy, group.joules, group.gpu_s) == (1, 1, {}, None)
    assert group.unknown == ("data set motions is generated when it is first used",)


def test_counts_and_cases_on_the_processor_hold_no_gpu(tmp_path: Path) -> None:
    cases = [case_of("params"), case_of("latency", device="cpu")]
    estimate = estimate_on_cluster(plan_of(tmp_path, cases), Slurm(), most_jobs=8)
    assert [each.gpu_s for each in estimate.groups] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("energy", "watts"),
    [
        ({"joules": 0.0, "seconds": 10.0, "source": "NVML total energy"}, {}),
        ({"joules": 50.0, "seconds": 10.0, "source": "RAPL package"}, {"cpu": 5.0}),
        ({"joules": None, "seconds": 10.0, "source": None, "codecarbon": None}, {}),
        ({"joules": 5.0, "seconds": 0.0, "source": "RAPL package"}, {}),
        ("text", {}),
    ],
)
def test_power_is_known_only_if_joules_and_seconds_are(energy: Json, watts: dict[str, float]) -> None:
    assert watts_of(record_of(case_of("energy"), 10.0, energy=energy)) == watts


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu", 1), ("gpu:2", 2), ("gpu:h100", 1), ("gpu:h100:4", 4), ("nvme:1,gpu:a100:2(S:0-1)", 2), ("nvme:3", 0)],
)
def test_gpus_are_read_from_a_list_of_resources(gres: str, gpus: int) -> None:
    assert gpus_of_gres(gres) == gpus


def test_an_option_of_another_executor_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"--executor slurm does not take --gpus; its options here: --gres, --time"):
        open_executor("slurm", {"gres": None, "gpus": 1, "time": None})
    assert open_executor("ray", {"gres": None, "gpus": 0}).gpus_of_a_node(8) == 0
