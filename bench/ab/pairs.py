"""A pair of runs, one of each side: one after the other, or both at a time with their timed steps in turns."""

import select
from collections.abc import Mapping

from bench.ab.sides import Ran, Side, SideName
from bench.ab.turn_relay import Relay

Pair = Mapping[SideName, tuple[Side, int]]  # each side with its case's place in that side's plan


def run_apart(pair: Pair, first: SideName, index: int) -> dict[SideName, Ran]:
    """Run `first` and then the other. Where head has no result base is spared; head is always run: it is on trial."""
    ran: dict[SideName, Ran] = {}
    for name in _ordered(pair, first):
        side, place = pair[name]
        ran[name] = side.run(place, index)
        if name == "head" and not ran[name].is_good:
            break
    return ran


def run_together(pair: Pair, first: SideName, index: int) -> dict[SideName, Ran]:
    """Run both at a time: they are loaded side by side and timed in turns, `first` before the other in both."""
    ran: dict[SideName, Ran] = {}
    with Relay(first=first) as relay:
        running = {pair[name][0]: name for name in _ordered(pair, first)}
        for side, name in running.items():
            side.begin(pair[name][1], index, turn_address=relay.address(name))
        while running:
            for side in select.select(list(running), [], [])[0]:
                name = running.pop(side)
                ran[name] = side.result()
                relay.turnstile.leave(name)
    return ran


def _ordered(pair: Pair, first: SideName) -> list[SideName]:
    return sorted(pair, key=lambda name: name != first)
