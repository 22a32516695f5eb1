"""Turn-taking of two sides over real sockets; threads stand for the processes."""

import threading
import time
from collections.abc import Callable
from itertools import groupby

import pytest

from bench.ab.sides import SideName
from bench.ab.turn_relay import Relay, Turnstile
from bench.measure.timing import turn_taking as turn_taking_module
from bench.measure.timing.turn_taking import ADDRESS, OLD_ADDRESS, TurnTaking

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_taking_module, "TURN_S", 0.0)


class Pair:
    """Two sides that note, under a lock, when they have a turn; the lock fails if both have one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, first: SideName = "base") -> None:
        self.relay = Relay(first=first)
        self.seen: list[tuple[str, int]] = []
        self._alone = threading.Lock()
        self._monkeypatch = monkeypatch

    def turn_taking(self, side: SideName) -> TurnTaking:
        self._monkeypatch.setenv(ADDRESS, self.relay.address(side))
        return TurnTaking.of_environment()

    def work(self, side: str, turns: TurnTaking) -> None:
        assert self._alone.acquire(blocking=False), "both had a turn"
        self.seen.append((side, turns.turn))
        time.sleep(0.001)
        self._alone.release()

    def run(self, **jobs: Callable[[TurnTaking], None]) -> None:
        parts = {side: self.turn_taking("base" if side == "base" else "head") for side in jobs}
        failed: list[BaseException] = []

        def guarded(side: str, job: Callable[[TurnTaking], None]) -> None:
            try:
                job(parts[side])
            except BaseException as error:
                failed.append(error)
            finally:
                parts[side].close()
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


def stepping(pair: Pair, side: str, *, warm_up: int, steps: int) -> Callable[[TurnTaking], None]:
    def job(turns: TurnTaking) -> None:
        with turns.held():
            for _ in range(warm_up):
                turns.pass_on()
                pair.work(f"{side} warming up", turns)
            turns.meet()
            for _ in range(steps):
                turns.pass_on()
                pair.work(side, turns)

    return job


@pytest.mark.parametrize("first", ["base", "head"])
def test_turns_alternate_after_both_sides_are_warm(first: SideName, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch, first=first)
    pair.run(base=stepping(pair, "base", warm_up=3, steps=8), head=stepping(pair, "head", warm_up=11, steps=8))
    sampled = [(side, turn) for side, turn in pair.seen if "warming" not in side]
    assert pair.seen.index(sampled[0]) == 14
    assert all(len(list(run)) == 1 for _, run in groupby(sampled, key=lambda each: each[0]))
    turns = {side: [turn for name, turn in sampled if name == side] for side in ("base", "head")}
    assert turns["base"] == turns["head"] == list(range(2, 10))


def test_when_one_side_ends_the_other_continues_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    pair.run(base=stepping(pair, "base", warm_up=0, steps=2), head=stepping(pair, "head", warm_up=0, steps=9))
    assert pair.order() == "bhbh" + 7 * "h"


def test_a_timing_waits_for_a_side_without_timings_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    ended = []

    def counting(turns: TurnTaking) -> None:
        time.sleep(0.2)
        ended.append(True)

    def timed(turns: TurnTaking) -> None:
        with turns.held():
            assert ended, "timed while the other worked"
            pair.work("head", turns)

    pair.run(base=counting, head=timed)
    assert pair.order() == "h"


def test_a_side_that_dies_in_its_turn_returns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)

    def dying(turns: TurnTaking) -> None:
        with turns.held():
            pair.work("base", turns)
            turns.close()
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, OSError)):
        pair.run(base=dying, head=stepping(pair, "head", warm_up=1, steps=3))
    assert pair.order() == "b" + 4 * "h"


def test_blocks_may_be_nested_and_the_clock_stands_still_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch)
    spent_s = []

    def patient(turns: TurnTaking) -> None:
        started = turns.clock_s()
        with turns.held(), turns.held():
            pair.work("base", turns)
        spent_s.append(turns.clock_s() - started)

    def late(turns: TurnTaking) -> None:
        time.sleep(0.3)
        stepping(pair, "head", warm_up=0, steps=1)(turns)

    pair.run(base=patient, head=late)
    assert spent_s[0] < 0.2


def test_without_an_address_a_process_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    turns = TurnTaking.of_environment()
    with turns.held():
        turns.pass_on()
        turns.meet()
    assert (turns.is_shared, turns.turn) == (False, 0)


def test_a_side_that_has_left_does_not_wait() -> None:
    turnstile = Turnstile(first="base")
    turnstile.leave("head")
    turnstile.meet("head")
    turnstile.meet("base")
    turnstile.enter("head")
    turnstile.release("head")
    turnstile.release("base")
    turnstile.enter("base")


def test_the_old_name_of_the_address_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vbench from before the rename, as a side, sets and reads the old name."""
    monkeypatch.delenv(ADDRESS, raising=False)
    with Relay(first="base") as relay:
        monkeypatch.setenv(OLD_ADDRESS, relay.address("base"))
        turns = TurnTaking.of_environment()
        assert turns.is_shared
        turns.close()
