import torch
from torch import nn

from bench.train.training_state import WeightAverage


def test_average_follows_the_formula_and_copies_counters():
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.5)
    expected = 1.0
    for updates in range(1, 12):
        with torch.no_grad():
            model.weight += 1
        model.num_batches_tracked += 1
        average.update(model)
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * model.weight.item()
    assert abs(average.module.weight.item() - expected) < 1e-5
    assert average.module.num_batches_tracked.item() == 11


def test_average_is_apart_from_the_model_and_needs_no_gradient():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.zero_()
    assert average.module.weight.abs().sum() > 0
    assert not any(p.requires_grad for p in average.module.parameters())
    assert all(p.requires_grad for p in model.parameters())
