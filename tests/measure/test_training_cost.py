"""The cost of a training: from its curves and from codecarbon."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from bench.core.errors import InputError
from bench.measure import training_cost
from bench.measure.carbon import UsedEnergy
from bench.measure.training_cost import carbon_kept, carbon_metrics, cost_to_reach
from bench.train.checkpointing import remove_states, write_state

ROWS = [
    {"epoch": 1, "seconds": 10.0, "energy_j": 500.0, "val_top1": 40.0},
    {"epoch": 2, "seconds": 20.0, "energy_j": 1100.0, "val_top1": None},
    {"epoch": 3, "seconds": 30.0, "energy_j": 1600.0, "val_top1": 80.0},
    {"epoch": 4, "seconds": 40.0, "energy_j": 2100.0, "val_top1": 75.0},
]


def by_key(metrics):
    return {metric.key.removeprefix("accuracy."): metric for metric in metrics}


def test_the_first_epoch_that_is_good_enough_counts():
    found = by_key(cost_to_reach(ROWS, [40, 62.5, 80]))
    assert {key: metric.value for key, metric in found.items()} == {
        "time_to_top1_s{top1=40}": 10.0,
        "energy_to_top1_j{top1=40}": 500.0,
        "time_to_top1_s{top1=62.5}": 30.0,
        "energy_to_top1_j{top1=62.5}": 1600.0,
        "time_to_top1_s{top1=80}": 30.0,
        "energy_to_top1_j{top1=80}": 1600.0,
    }
    assert all(metric.note is None and metric.better == "lower" for metric in found.values())


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (ROWS, "not reached: the best of 4 epochs had 80.0 %"),
        ([{**row, "val_top1": None} for row in ROWS], "the recipe validates no epoch"),
    ],
)
def test_a_level_that_no_epoch_reached_is_null_with_the_reason(rows, why):
    for metric in cost_to_reach(rows, [90]):
        assert (metric.value, metric.note) == (None, why)


def test_without_a_counter_energy_is_null_and_time_is_not():
    rows = [{**row, "energy_j": None} for row in ROWS]
    time, energy = cost_to_reach(rows, [50])
    assert (time.value, time.note) == (30.0, None)
    assert (energy.value, energy.note) == (None, "no energy counter could be read")


def write(folder, *, seconds=60.0, gpu=0.0):
    found = {"country": "FRA", "seconds": seconds, "co2e_g": 0.5, "by": "codecarbon 3"}
    (folder / "carbon.json").write_text(json.dumps({**found, "joules": {"gpu": gpu, "cpu": 480.0, "ram": 1200.0}}))


def test_energy_of_each_part_is_reported_and_zero_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.measure.energy.counter_of", lambda device: None)
    write(tmp_path)
    found = by_key(carbon_metrics(tmp_path))
    assert {key: metric.value for key, metric in found.items()} == {
        "train_gpu_j": None,
        "train_cpu_j": 480.0,
        "train_ram_j": 1200.0,
        "train_co2e_g": 0.5,
    }
    assert found["train_gpu_j"].note == "codecarbon 3 has no value"
    assert found["train_cpu_j"].note == "codecarbon 3, estimated from the processor's name and load"
    assert found["train_co2e_g"].note == "codecarbon 3, electricity of FRA, estimated"


def test_the_energy_of_a_very_short_training_is_unknown(tmp_path):
    write(tmp_path, seconds=9.0, gpu=5.0)
    assert {metric.value for metric in carbon_metrics(tmp_path)} == {None}


def test_without_a_carbon_file_there_are_no_carbon_metrics(tmp_path):
    with carbon_kept(tmp_path, country=None):
        pass
    assert list(tmp_path.iterdir()) == []
    assert list(carbon_metrics(tmp_path)) == []


def test_a_country_that_is_no_code_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match="country 'France' is not a code of three letters"),
        carbon_kept(tmp_path, country="France"),
    ):
        pytest.fail("nothing is trained before")


@pytest.mark.slow
def test_codecarbon_measures_a_block_offline(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_cost, "SHORTEST_S", 0.0)
    with carbon_kept(tmp_path / "out", country="FRA"):
        sum(range(3_000_000))
    found = by_key(carbon_metrics(tmp_path / "out"))
    assert found["train_ram_j"].value > 0
    assert found["train_co2e_g"].value > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "codecarbon wrote a file of its own"
    assert capfd.readouterr() == ("", "")


def test_a_resumed_training_has_unknown_energy(tmp_path, monkeypatch):
    used = UsedEnergy(
        country="FRA", seconds=60.0, joules={"gpu": 1.0, "cpu": 2.0, "ram": 3.0}, co2e_g=0.5, by="codecarbon 3"
    )
    monkeypatch.setattr(training_cost, "tracked", lambda country: nullcontext(SimpleNamespace(used=used)))
    (tmp_path / "cut").mkdir()
    write_state(tmp_path / "cut", {}, step=3)
    for folder, known in (("whole", True), ("cut", False)):
        with carbon_kept(tmp_path / folder, country="FRA"):
            remove_states(tmp_path / folder)
        found = list(carbon_metrics(tmp_path / folder))
        assert {metric.value is not None for metric in found} == {known}
        assert all("resumed an interrupted one" in metric.note for metric in found) is not known
