"""What the clocks themselves take."""

from collections.abc import Callable
from itertools import chain, repeat

import pytest

from bench.measure.context import CaseContext
from bench.measure.latency import latency
from bench.measure.timing.clocks import empty_step_us
from bench.measure.timing.forward import forward_of
from bench.measure.timing.sampling import Sample


def test_an_empty_step_is_the_median_once_it_is_warm() -> None:
    seconds = chain(repeat(1.0, 3), [2e-6, 9e-6, 3e-6])
    assert empty_step_us(lambda: Sample(wall_s=next(seconds)), times=3) == pytest.approx(3.0)


def test_an_empty_pass_has_the_clips_and_no_network(load: Callable[..., CaseContext]) -> None:
    forward = forward_of(load())(1)
    assert (forward.empty()() == forward.inputs[0]).all()
    assert forward.empty().autocast == forward.autocast


def test_latency_states_what_an_empty_step_takes_and_takes_it_off_nothing(
    load: Callable[..., CaseContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.measure.timing.clocks.empty_step_us", lambda step: 5e6)
    case = load()
    p50 = latency(case, max_s=0.1)[0]
    assert case.details["latency.empty_step_us"] == 5e6
    assert 0 < (p50.value or 0) < 5000, "five seconds would have made it negative"
