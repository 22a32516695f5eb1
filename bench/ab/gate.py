"""The gate on a noisy machine: measures base and head alternately in one job until every gated case is decided."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from bench.ab.pairs import run_apart, run_at_once, run_together
from bench.ab.rounds import Rounds, measure_rounds
from bench.ab.side_suites import (
    ListedModels,
    gate_of,
    listed_models,
    only_counts,
    own_models,
    suite_for_side,
    suite_of_side,
)
from bench.ab.sides import PlannedCase, RunOutcome, Side, SideName, SideSpec, read_side, side_setup
from bench.ab.time_budget import budget_lines, longer_budget
from bench.comparison.allowed_changes import GateValue, read_rules, refuse_noise
from bench.comparison.interim import InterimAnalyses, open_cases
from bench.comparison.sequential import MAX_PAIRS
from bench.comparison.verdicts import Comparison, UncomparedCase, percent
from bench.core.cpus import usable_cpus
from bench.core.errors import InputError, SetUpError, nearest_part
from bench.core.units import plural
from bench.core.yaml_tree import Tree
from bench.runner.idle import wait_until_idle
from bench.store import RECORD_FILES
from bench.suite import check_suite

OnNote = Callable[[str], None]
PAIR_START_S = 3.0  # to import torch, build the models and store the records; docs/decisions/0025
MOST_AHEAD = 4  # interpreters of a side that wait: each holds some 250 MB


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Cases that both sides plan, by id in head, with their numbers in base's and head's plan; and the other cases."""

    shared: Mapping[str, tuple[int, int]]
    missing: tuple[PlannedCase, ...]
    added: tuple[PlannedCase, ...]


def ab(
    base: str,
    head: str,
    suite: Tree,
    *,
    budget_s: float = 600.0,
    out: str | Path | None = None,
    identify: bool = False,
    gate: Mapping[str, GateValue] | None = None,
    across: bool = False,
    apart: bool = False,
    counts: bool = False,
    shard: tuple[int, int] | None = None,
    only: str | None = None,
    small: bool = False,
    wait_idle_s: float | None = None,
    on_note: OnNote = lambda text: None,
) -> Comparison:
    """Verdicts of `head` against `base`, both measured now on the cases of `suite`, as read by `read_suite`.

    A side is a commit, branch or tag; `.`, the working folder as it is; `model:NAME` or `package.module:factory`, which
    replaces the suite's one model; or `python:PATH`, the interpreter of another environment. Models that the suite at
    a commit does not list are not measured there: a new one is added, a removed one missing. `small` says that `suite`
    was read in its small form. Counts are compared first; with `counts`, nothing else is. `shard` (i, n) takes every
    n-th case from the i-th on, `only` the one case with this id or part of its title. With `wait_idle_s`, timing waits
    for an idle machine, at most so long, which does not count for the budget. On a CPU two processes, one of each
    side, take turns by steps; with `apart`, or on a GPU, they run one after the other. Records of both stay in
    `<out>/base` and `<out>/head` (`results/<suite>-ab/<time>`); `identify` keeps home folders and host names in them.
    Raises InputError for a wrong side or suite, SetUpError if a side cannot be measured at all.
    """
    started = time.monotonic()
    specs = read_side(base), read_side(head)
    if _has_model(specs):
        check_suite(suite)
    try:
        refuse_noise(read_rules({**gate_of(suite.data), **(gate or {})}))
    except InputError:
        check_suite(suite)  # raises with the line
        raise
    if counts:
        suite = only_counts(suite)
    for spec in specs:
        suite_for_side(spec, suite.data)  # raises before anything is written
    folder, path = _new_folder(out, str(suite.data.get("suite"))), Path(suite.position(()).file).absolute()
    with ExitStack() as stack:
        try:
            setups = [stack.enter_context(side_setup(spec)) for spec in specs]
            own = [own_models(suite, spec, setup, small=small) for spec, setup in zip(specs, setups, strict=True)]
            models = ListedModels() if _has_model(specs) else listed_models(suite.data, own)
            sides = [
                stack.enter_context(
                    Side(
                        name,
                        setup,
                        suite_of_side(name, spec, suite, models),
                        path=path,
                        out=folder / name,
                        identify=identify,
                    )
                )
                for name, spec, setup in zip(_NAMES, specs, setups, strict=True)
            ]
            for side in sides:
                side.wait_for_plan()  # both plan at the same time
        except SetUpError:
            check_suite(suite)  # if the file itself is wrong, that is the error, with its line
            raise
        is_by_place = _has_model(specs) or bool(suite.data.get("renamed"))
        pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=is_by_place, models=models)
        if only is not None:
            pairing = the_one_case(pairing, sides[1].cases, only)
        if shard is not None:
            pairing = part_of(pairing, shard)
        partners = {case: sides[0].cases[place].id for case, (place, _) in pairing.shared.items()}
        analyses = InterimAnalyses(
            folder / "base",
            folder / "head",
            gate=gate,
            across=across,
            differing=_differing(specs),
            partners=partners,
        )
        measurement = Measurement(sides, pairing, analyses, is_apart=apart, wait_idle_s=wait_idle_s, on_note=on_note)
        comparison = measurement.run(started_s=started, budget_s=budget_s)
        titles = [side.setup.title for side in sides]
    notes = (*comparison.notes, f"records of both sides: {folder}")
    return replace(comparison, base=titles[0], head=titles[1], notes=notes)


_NAMES: tuple[SideName, SideName] = ("base", "head")


def pair_plans(
    base: Sequence[PlannedCase], head: Sequence[PlannedCase], *, by_place: bool, models: ListedModels | None = None
) -> Pairing:
    """Pair the cases of both plans: by id, or by place in the plan if the models are meant to differ.

    Cases of `models` that only one side lists have no partner.
    """
    models = models or ListedModels()
    if by_place:
        old = [n for n, case in enumerate(base) if case.model not in models.only_base]
        new = [n for n, case in enumerate(head) if case.model not in models.only_head]
        if len(old) != len(new):
            raise SetUpError(
                f"base plans {plural(len(old), 'case')} and head {len(new)}; the models have different axes"
            )
        return Pairing(
            shared={head[n].id: (m, n) for m, n in zip(old, new, strict=True)},
            missing=tuple(case for case in base if case.model in models.only_base),
            added=tuple(case for case in head if case.model in models.only_head),
        )
    places = {case.id: n for n, case in enumerate(base)}
    ids = {case.id for case in head}
    return Pairing(
        shared={case.id: (places[case.id], n) for n, case in enumerate(head) if case.id in places},
        missing=tuple(case for case in base if case.id not in ids),
        added=tuple(case for case in head if case.id not in places),
    )


def part_of(pairing: Pairing, shard: tuple[int, int]) -> Pairing:
    """Return every n-th shared case from the i-th on; the first shard reports the cases that only one side has.

    Raises InputError if there are fewer cases than shards.
    """
    place, shards = shard
    if shards > len(pairing.shared):
        raise InputError(f"--shard {place}/{shards}: there are only {len(pairing.shared)} cases to share")
    chosen = dict(list(pairing.shared.items())[place - 1 :: shards])
    is_first = place == 1
    return Pairing(
        shared=chosen,
        missing=pairing.missing if is_first else (),
        added=pairing.added if is_first else (),
    )


def the_one_case(pairing: Pairing, cases: Sequence[PlannedCase], wanted: str) -> Pairing:
    """Return the one shared case of head with this id or title, or else part or pattern of its title.

    Raises InputError if there is none or several.
    """
    titles = {case.id: case.title for case in cases if case.id in pairing.shared}
    exact = [key for key, title in titles.items() if wanted in (key, title)]
    found = exact or [key for key, title in titles.items() if wanted in title or fnmatchcase(title, wanted)]
    if len(found) != 1:
        near = "" if found else nearest_part(wanted, titles.values())
        listed = ", ".join(f"{title} ({key})" for key, title in list(titles.items())[:8])
        number = f"{len(found)} cases" if found else "no case"
        raise InputError(f"{wanted!r} is {number} of the suite; {near or f'it has: {listed}'}")
    return Pairing(shared={found[0]: pairing.shared[found[0]]}, missing=(), added=())


class Measurement:
    """Measures the shared cases of both plans: counts first, then pairs in rounds until all are decided."""

    def __init__(
        self,
        sides: Sequence[Side],
        pairing: Pairing,
        analyses: InterimAnalyses,
        *,
        is_apart: bool,
        on_note: OnNote,
        wait_idle_s: float | None = None,
    ) -> None:
        self._sides, self._pairing, self._analyses = sides, pairing, analyses
        self._is_apart, self._wait_idle_s, self._note = is_apart, wait_idle_s, on_note
        self._titles = {case.id: case.title for case in sides[1].cases}
        self._ahead = 0  # interpreters of each side that were started ahead

    def run(self, *, started_s: float, budget_s: float) -> Comparison:
        """Measure and return the verdicts; `started_s` is when the budget of `budget_s` began."""
        planned = {case: self._planned(case) for case in self._pairing.shared}
        counted = [case for case, both in planned.items() if all(each.is_counted for each in both)]
        timed = [case for case in planned if case not in counted]
        if timed:
            self._start_ahead()
        failed = self._count(counted, started_s=started_s)
        self._count_unpaired()
        if timed and self._wait_idle_s is not None:
            wait = wait_until_idle(self._wait_idle_s, on_wait=self._note)
            started_s += wait.waited_s
            if not wait.use.is_idle:
                self._note(f"the machine is still not idle: {wait.use}")
        if timed:
            pair_s = {case: self._expected_s(planned[case]) for case in timed}
            left_s = budget_s - (time.monotonic() - started_s)
            of_instructions = [case for case in timed if planned[case][1].is_of_instructions]
            for line in budget_lines(pair_s, budget_s=budget_s, left_s=left_s, of_instructions=of_instructions):
                self._note(line)
        rounds = measure_rounds(
            timed, self._run_pair, self._analyse, deadline_s=started_s + budget_s, clock_s=time.monotonic
        )
        found = self._analyses.analyse(given_up=[*failed, *rounds.failed])
        suite = found.rows[0].suite if found.rows else ""
        known = {each.case_id for each in (*found.missing, *found.added, *found.failed)}  # those that were counted
        pairing = self._pairing
        missing = [
            _unpaired(each, suite, "base", "is not in head's plan") for each in pairing.missing if each.id not in known
        ]
        added = [
            _unpaired(each, suite, "head", "is not in base's plan") for each in pairing.added if each.id not in known
        ]
        return replace(
            found,
            missing=(*found.missing, *missing),
            added=(*found.added, *added),
            notes=(*found.notes, *_why_undecided(rounds, found, spent_s=time.monotonic() - started_s)),
        )

    def _planned(self, case: str) -> list[PlannedCase]:
        """Return the case in base's and in head's plan."""
        places = self._pairing.shared[case]
        return [side.cases[place] for side, place in zip(self._sides, places, strict=True)]

    def _expected_s(self, planned: Sequence[PlannedCase]) -> float:
        """Return the rough seconds of one pair: both sides start at the same time, and only timings take turns."""
        seconds = [case.seconds for case in planned]
        are_at_once = self._are_sharing(planned) and all(case.is_of_instructions for case in planned)
        return PAIR_START_S + (max(seconds) if are_at_once else sum(seconds))

    def _are_sharing(self, planned: Sequence[PlannedCase]) -> bool:
        return all(case.is_sharing for case in planned) and not self._is_apart

    def _count(self, cases: Sequence[str], *, started_s: float) -> list[str]:
        """Measure exact cases once a side, note what changed, and return the cases that failed."""
        failed = []
        for case in cases:
            outcomes = run_at_once(self._pair(case), "base", 0)
            if not self._are_good(case, 0, outcomes):
                failed.append(case)
        if cases:
            found = self._analyses.analyse(given_up=failed)
            rows = [row for row in found.rows if row.case_id in cases and row.is_deciding and not row.is_missing]
            for row in rows:
                if row.verdict != "same":
                    self._note(f"{row.case}: {row.metric}: {row.verdict}: {row.reason}")
            same = sum(row.verdict == "same" for row in rows)
            self._note(f"counts: {same} of {len(rows)} are the same, after {time.monotonic() - started_s:.0f} s")
        return failed

    def _count_unpaired(self) -> None:
        """Measure the exact cases that only one side has: the same counts under two names are probably a rename."""
        for side, cases in zip(self._sides, (self._pairing.missing, self._pairing.added), strict=True):
            for case in cases:
                if case.is_counted:
                    side.begin(side.cases.index(case), 0)
                    side.result()

    def _pair(self, case: str) -> dict[SideName, tuple[Side, int]]:
        return {side.name: (side, n) for side, n in zip(self._sides, self._pairing.shared[case], strict=True)}

    def _run_pair(self, first: SideName, case: str, index: int) -> Sequence[RunOutcome]:
        for side in self._sides:
            side.wait_until_prepared()
        outcomes = (run_together if self._are_sharing(self._planned(case)) else run_apart)(
            self._pair(case), first, index
        )
        self._ahead -= 1
        self._start_ahead()
        self._are_good(case, index, outcomes)
        return list(outcomes.values())

    def _start_ahead(self) -> None:
        """Start the interpreters of the next pairs while nothing is measured: as many as can import at the same time.

        The analysis of the pairs so far and the ends of their processes take place meanwhile.
        """
        if self._ahead <= 0:
            self._ahead = max(1, min(usable_cpus() // len(self._sides), MOST_AHEAD))
            for side in self._sides:
                side.prepare(self._ahead)

    def _are_good(self, case: str, index: int, outcomes: Mapping[SideName, RunOutcome]) -> bool:
        bad = [side for side, outcome in outcomes.items() if not outcome.is_good]
        for side in bad:
            self._note(f"{self._titles[case]}: run {index} of {side} has no result; this case is not measured further")
        return not bad

    def _analyse(self, pairs: Mapping[str, int]) -> set[str]:
        found = self._analyses.analyse()
        for row in found.rows:
            if row.is_deciding and row.case_id in pairs and row.interval is not None:
                verdict = "open" if row.is_open else row.verdict
                change = percent((row.ratio or 1.0) - 1)
                self._note(f"{row.runs[1]} runs a side: {row.case}: {row.metric} {change}: {verdict}")
        return open_cases(found)


def _why_undecided(rounds: Rounds, found: Comparison, *, spent_s: float) -> list[str]:
    undecided = [row for row in found.rows if row.is_open and row.is_deciding]
    if not undecided or rounds.stopped_because == "decided":
        return []
    if rounds.stopped_because == "enough":
        return [f"ended undecided after {MAX_PAIRS} runs a side, which is the maximum"]
    needed = longer_budget(undecided, rounds, spent_s=spent_s)
    return ["the time budget ended before all cases were decided" + (f"; try {needed}" if needed else "")]


def _unpaired(case: PlannedCase, suite: str, side: SideName, why: str) -> UncomparedCase:
    return UncomparedCase(suite=suite, case_id=case.id, case=case.title, side=side, why=why)


def _has_model(specs: Sequence[SideSpec]) -> bool:
    return any(spec.kind == "model" for spec in specs)


def _differing(specs: Sequence[SideSpec]) -> tuple[str, ...]:
    """What the sides are meant to differ in, so that this difference does not make them incomparable."""
    kinds = {"model": "model", "python": "software"}
    return tuple({kinds[spec.kind] for spec in specs if spec.kind in kinds})


def _new_folder(out: str | Path | None, suite: str) -> Path:
    """An absolute folder without records: those of two measurements must not be mixed. Raises InputError otherwise."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (Path(out) if out is not None else Path("results") / f"{suite}-ab" / now).absolute()
    if any(folder.rglob(RECORD_FILES)):
        raise InputError(f"{folder} holds records already; give --out a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
