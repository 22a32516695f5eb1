"""Runs a pair, one run of each side: one after the other, both at once, or both with their timed steps in turns."""

from collections.abc import Mapping

from bench.ab.sides import RunOutcome, Side, SideName, wait_for_results
from bench.ab.turn_relay import Relay

Pair = Mapping[SideName, tuple[Side, int]]  # each side, and the number of the case in that side's plan


def run_apart(pair: Pair, first: SideName, index: int) -> dict[SideName, RunOutcome]:
    """Run `first`, then the other side. If head fails first, base is not run; head always runs: it is under test."""
    outcomes: dict[SideName, RunOutcome] = {}
    for name in _ordered(pair, first):
        side, case = pair[name]
        side.begin(case, index)
        outcomes[name] = side.result()
        if name == "head" and not outcomes[name].is_good:
            break
    return outcomes


def run_together(pair: Pair, first: SideName, index: int) -> dict[SideName, RunOutcome]:
    """Run both sides at once: they load at the same time and are timed in turns, `first` before the other."""
    outcomes: dict[SideName, RunOutcome] = {}
    with Relay(first=first) as relay:
        running = {pair[name][0]: name for name in _ordered(pair, first)}
        for side, name in running.items():
            side.begin(pair[name][1], index, turn_address=relay.address(name))
        while running:
            for side in wait_for_results(list(running)):
                name = running.pop(side)
                outcomes[name] = side.result()
                relay.turnstile.leave(name)
    return outcomes


def run_at_once(pair: Pair, first: SideName, index: int) -> dict[SideName, RunOutcome]:
    """Run both sides at the same time, because nothing is timed."""
    for name in _ordered(pair, first):
        side, case = pair[name]
        side.begin(case, index)
    return {name: pair[name][0].result() for name in _ordered(pair, first)}


def _ordered(pair: Pair, first: SideName) -> list[SideName]:
    return sorted(pair, key=lambda name: name != first)
