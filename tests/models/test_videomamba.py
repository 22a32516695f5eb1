"""The scan of VideoMamba against the recurrence written out."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models.videomamba import linear_recurrence, selective_scan


@given(length=st.integers(1, 40), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_the_recurrence_in_pieces_is_the_one_step_by_step(length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.rand(2, length, 3, 4, generator=generator, dtype=torch.float64)
    terms = torch.randn(2, length, 3, 4, generator=generator, dtype=torch.float64)
    state, expected = torch.zeros(2, 3, 4, dtype=torch.float64), []
    for place in range(length):
        state = factors[:, place] * state + terms[:, place]
        expected.append(state)
    torch.testing.assert_close(linear_recurrence(factors, terms), torch.stack(expected, dim=1))


def test_one_state_by_hand() -> None:
    """h1 = 2 * 1 * 3 = 6; h2 = exp(-1) * 6 + 1 * 1 * 5; y = 2 h1, then 4 h2."""
    x, step = torch.tensor([[[3.0], [5.0]]]), torch.tensor([[[2.0], [1.0]]])
    into, out_of = torch.ones(1, 2, 1), torch.tensor([[[2.0], [4.0]]])
    found = selective_scan(x, step, torch.tensor([[[-1.0]]]), into, out_of).flatten()
    second = 6 * torch.tensor(-1.0).exp() + 5
    torch.testing.assert_close(found, torch.stack([torch.tensor(12.0), 4 * second]))
