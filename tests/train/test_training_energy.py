"""Joules of a training, summed over ranks and over the parts of a training that was killed."""

import pytest

from bench.train.checkpointing import read_state
from bench.train.curves import read_curves
from bench.train.fitting import CheckpointInterval, fit
from bench.train.ranks import Ranks
from bench.train.training_energy import TrainingEnergy
from bench.train.training_state import TrainingState


def rising(*values):
    """A counter that shows each of `values` in turn."""
    shown = iter(values)
    return lambda: next(shown)


def test_only_energy_of_the_training_counts():
    energy = TrainingEnergy(rising(1000.0, 1040.0, 1040.0, 1100.0), ranks=Ranks())
    assert energy.total() == 40.0
    assert energy.estimate == 100.0


def test_ranks_are_added_and_those_without_a_meter_are_not_taken_for_zero(monkeypatch):
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, 30.0, None])
    energy = TrainingEnergy(rising(0.0, 20.0, 20.0, 25.0), ranks=Ranks())
    assert energy.total() == 50.0
    assert energy.estimate == 50.0 + 2 * 5.0


@pytest.mark.parametrize("meter", [None, lambda: None])
def test_without_a_counter_nothing_is_known(meter):
    assert TrainingEnergy(meter, ranks=Ranks()).total() is None


def test_a_resumed_training_adds_to_its_earlier_energy(train_videos, clip, recipe_of, tiny_net, tmp_path, monkeypatch):
    """Each step uses one joule; after the kill the counter begins elsewhere, as after a restart of the machine."""
    used = {"j": 500.0}
    step = TrainingState.step

    def costly(self, batch):
        if self.step_count == used.get("dies_at"):
            raise KeyboardInterrupt
        step(self, batch)
        used["j"] += 1.0

    monkeypatch.setattr(TrainingState, "step", costly)
    options = {
        "clip": clip,
        "seed": 1,
        "folder": tmp_path,
        "interval": CheckpointInterval(steps=1),
        "counter": lambda: used["j"],
    }
    used["dies_at"] = 6
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), recipe_of(), train_videos, **options)
    assert read_state(tmp_path).state["joules"] == 6.0
    used.update(j=3.0, dies_at=None)
    fitted = fit(tiny_net(), recipe_of(), train_videos, **options)
    assert [row["energy_j"] for row in read_curves(fitted.curves)] == [4.0, 8.0, 12.0]
