"""The floor as two processes pass it to and fro: real sockets and threads in the place of the processes."""

import threading
import time
from collections.abc import Callable
from itertools import groupby

import pytest

from bench.ab.sides import SideName
from bench.ab.turn_relay import Relay, Turnstile
from bench.measure.timing import turn_taking as floor_module
from bench.measure.timing.turn_taking import ADDRESS, Floor

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_module, "TURN_S", 0.0)


class Pair:
    """Two sides that note, under a lock, when they had the floor; both at a time is what must never be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, first: SideName = "base") -> None:
        self.relay = Relay(first=first)
        self.seen: list[tuple[str, int]] = []
        self._alone = threading.Lock()
        self._monkeypatch = monkeypatch

    def floor(self, side: SideName) -> Floor:
        self._monkeypatch.setenv(ADDRESS, self.relay.address(side))
        return Floor.of_environment()

    def work(self, side: str, floor: Floor) -> None:
        assert self._alone.acquire(blocking=False), "both had the floor"
        self.seen.append((side, floor.turn))
        time.sleep(0.001)
        self._alone.release()

    def run(self, **jobs: Callable[[Floor], None]) -> None:
        floors = {side: self.floor("base" if side == "base" else "head") for side in jobs}
        failed: list[BaseException] = []

        def guarded(side: str, job: Callable[[Floor], None]) -> None:
            try:
                job(floors[side])
            except BaseException as error:
                failed.append(error)
            finally:
                floors[side].close()
                self.relay.turnstile.leave("base" if side == "base" else "head")

        threads = [threading.Thread(target=guarded, args=each, daemon=True) for each in jobs.items()]
        with self.relay:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT_S)
            assert not any(thread.is_alive() for thread in threads), "they wait for each other"
        if failed:
            raise failed[0]

    def order(self) -> str:
        return "".join(side[0] for side, _ in self.seen)


def stepping(pair: Pair, side: str, *, warm_up: int, steps: int) -> Callable[[Floor], None]:
    def job(floor: Floor) -> None:
        with floor.held():
            for _ in range(warm_up):
                floor.pass_on()
                pair.work(f"{side} warming up", floor)
            floor.meet()
            for _ in range(steps):
                floor.pass_on()
                pair.work(side, floor)

    return job


@pytest.mark.parametrize("first", ["base", "head"])
def test_turns_alternate_from_where_both_met(first: SideName, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch, first=first)
    pair.run(base=stepping(pair, "base", warm_up=3, steps=8), head=stepping(pair, "head", warm_up=11, steps=8))
    sampled = [(side, turn) for side, turn in pair.seen if "warming" not in side]
    assert pair.seen.index(sampled[0]) == 14
    assert all(len(list(run)) == 1 for _, run in groupby(sampled, key=lambda each: each[0]))
    turns = {side: [turn for name, turn in sampled if name == side] for side in ("base", "head")}
    assert turns["base"] == turns["head"] == list(range(2, 10))


def test_one_that_ends_first_leaves_the_floor_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    pair.run(base=stepping(pair, "base", warm_up=0, steps=2), head=stepping(pair, "head", warm_up=0, steps=9))
    assert pair.order() == "bhbh" + 7 * "h"


def test_one_that_never_asks_is_waited_for_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    ended = []

    def counting(floor: Floor) -> None:
        time.sleep(0.2)
        ended.append(True)

    def timed(floor: Floor) -> None:
        with floor.held():
            assert ended, "timed while the other worked"
            pair.work("head", floor)

    pair.run(base=counting, head=timed)
    assert pair.order() == "h"


def test_one_that_dies_with_the_floor_in_its_hands_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)

    def dying(floor: Floor) -> None:
        with floor.held():
            pair.work("base", floor)
            floor.close()
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, OSError)):
        pair.run(base=dying, head=stepping(pair, "head", warm_up=1, steps=3))
    assert pair.order() == "b" + 4 * "h"


def test_nested_blocks_are_one_and_the_clock_stands_still_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    spent_s = []

    def patient(floor: Floor) -> None:
        started = floor.clock_s()
        with floor.held(), floor.held():
            pair.work("base", floor)
        spent_s.append(floor.clock_s() - started)

    def late(floor: Floor) -> None:
        time.sleep(0.3)
        stepping(pair, "head", warm_up=0, steps=1)(floor)

    pair.run(base=patient, head=late)
    assert spent_s[0] < 0.2


def test_without_an_address_the_floor_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    floor = Floor.of_environment()
    with floor.held():
        floor.pass_on()
        floor.meet()
    assert (floor.is_shared, floor.turn) == (False, 0)


def test_a_side_that_left_is_not_kept_waiting() -> None:
    turnstile = Turnstile(first="base")
    turnstile.leave("head")
    turnstile.meet("head")
    turnstile.meet("base")
    turnstile.enter("head")
    turnstile.release("head")
    turnstile.release("base")
    turnstile.enter("base")
