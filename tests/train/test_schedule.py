import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.train.recipe import Constant, Cosine, Multistep, Plateau
from bench.train.schedule import PlateauState, rate_factor


def test_multistep_falls_at_its_milestones_and_not_before():
    schedule = Multistep(name="multistep", milestones=(50, 100, 150), factor=0.1)
    at = {epoch: rate_factor(schedule, epoch=epoch, epochs=200) for epoch in (0, 49.99, 50, 99, 100, 150, 199)}
    assert at == pytest.approx({0: 1, 49.99: 1, 50: 0.1, 99: 0.1, 100: 0.01, 150: 0.001, 199: 0.001})


def test_cosine_is_half_way_in_the_middle_and_ends_at_its_final_rate():
    schedule = Cosine(name="cosine", final=0.2)
    assert [rate_factor(schedule, epoch=e, epochs=10) for e in (0, 5, 10)] == pytest.approx([1, 0.6, 0.2])


def test_cosine_begins_after_the_warm_up():
    schedule = Cosine(name="cosine", warmup_epochs=2, warmup_start=0.5)
    factors = [rate_factor(schedule, epoch=e, epochs=12) for e in (0, 1, 2, 7)]
    assert factors == pytest.approx([0.5, 0.75, 1.0, 0.5])


@given(
    st.floats(0, 99),
    st.sampled_from(
        [Constant(warmup_epochs=3), Cosine(name="cosine", final=0.1), Multistep(name="multistep", milestones=(9, 20))]
    ),
)
def test_no_schedule_leaves_zero_to_one(epoch, schedule):
    assert 0 < rate_factor(schedule, epoch=epoch, epochs=100) <= 1


@given(st.lists(st.floats(0.01, 10), max_size=40), st.integers(0, 3))
def test_plateau_agrees_with_torch(losses, patience):
    schedule = Plateau(name="plateau", patience=patience, factor=0.5, threshold=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, factor=0.5, threshold=0.01, eps=0)
    ours = PlateauState()
    for loss in losses:
        theirs.step(loss)
        ours.update(schedule, loss=loss)
        assert math.isclose(ours.factor, optimizer.param_groups[0]["lr"])
