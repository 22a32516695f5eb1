"""The gate on a noisy machine: base and head measured in one job, in turns, until every gated case is decided."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.ab.pairs import run_apart, run_together
from bench.ab.sides import PlannedCase, Ran, Side, SideName, SideSpec, place_of, read_side, suite_of
from bench.ab.turns import Turns, measure_in_turns
from bench.comparison.interim import ANALYSED_BLOCKS, InterimAnalyses, open_cases
from bench.comparison.limits import GateValue, read_rules, refuse_noise
from bench.comparison.verdicts import Comparison, UncomparedCase, percent
from bench.core.errors import InputError, SetUpError
from bench.core.units import plural
from bench.store import RECORDS
from bench.suite import check_suite, limit_text, read_suite

OnNote = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Cases that both sides plan, by id in head, with their places in base's and in head's plan; and the others."""

    shared: Mapping[str, tuple[int, int]]
    missing: tuple[PlannedCase, ...]
    added: tuple[PlannedCase, ...]


def ab(
    base: str,
    head: str,
    suite: str | Path,
    *,
    budget_s: float = 600.0,
    out: str | Path | None = None,
    small: bool = False,
    gate: Mapping[str, GateValue] | None = None,
    across: bool = False,
    apart: bool = False,
    on_note: OnNote = lambda text: None,
) -> Comparison:
    """Verdicts of `head` against `base`, both measured now by the cases of `suite`.

    A side is a commit, branch or tag; `.`, the working folder as it is; `model:NAME` or `package.module:factory`, in
    the place of the suite's one model; or `python:PATH`, another environment's interpreter. On a CPU two processes, one
    of each side, take turns by steps; `apart`, or on a GPU, they run one after the other. Records of both stay in
    `<out>/base` and `<out>/head` (`results/<suite>-ab/<time>`). SetUpError where a side cannot be measured at all.
    """
    started = time.monotonic()
    specs = read_side(base), read_side(head)
    tree = read_suite(suite, small=small)
    if _is_model(specs):
        check_suite(tree)
    try:
        refuse_noise(read_rules({**_gate_of(tree.data), **(gate or {})}))
    except InputError:
        check_suite(tree)  # which knows the line
        raise
    suites = [replace(tree, data=_with_texts(suite_of(spec, tree.data))) for spec in specs]
    folder = _folder(out, str(tree.data.get("suite")))
    with ExitStack() as stack:
        try:
            sides = [
                stack.enter_context(
                    Side(
                        name,
                        stack.enter_context(place_of(spec)),
                        own,
                        path=Path(tree.position(()).file).absolute(),
                        out=folder / name,
                    )
                )
                for name, spec, own in zip(_NAMES, specs, suites, strict=True)
            ]
        except SetUpError:
            check_suite(tree)  # what this vbench calls wrong in the file is not for want of a side
            raise
        pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=_is_model(specs))
        partners = {case: sides[0].cases[place].id for case, (place, _) in pairing.shared.items()}
        looks = InterimAnalyses(
            folder / "base",
            folder / "head",
            gate=gate,
            across=across,
            differing=_differing(specs),
            partners=partners,
        )
        comparison = _measured(sides, pairing, looks, deadline_s=started + budget_s, apart=apart, on_note=on_note)
        titles = [side.place.title for side in sides]
    notes = (*comparison.notes, f"records of both sides: {folder}")
    return replace(comparison, base=titles[0], head=titles[1], notes=notes)


def _with_texts(suite: Mapping[str, Any]) -> dict[str, Any]:
    """`suite` with limits as texts: commits from before a bare number was one take nothing else."""
    rules = {
        metric: {side: limit_text(limit) for side, limit in rule.items()} if isinstance(rule, Mapping) else rule
        for metric, rule in _gate_of(suite).items()
    }
    return {**suite, "gate": rules} if rules else dict(suite)


def _gate_of(suite: Mapping[str, Any]) -> Mapping[str, GateValue]:
    """The rules of a suite as its file has them; what is no mapping is told of where the suite is planned."""
    gate = suite.get("gate")
    return gate if isinstance(gate, Mapping) else {}


_NAMES: tuple[SideName, SideName] = ("base", "head")


def pair_plans(base: Sequence[PlannedCase], head: Sequence[PlannedCase], *, by_place: bool) -> Pairing:
    """Which case of head is which of base: by id, or, where the models are meant to differ, by place in the plan."""
    if by_place:
        if len(base) != len(head):
            raise SetUpError(f"base plans {plural(len(base), 'case')} and head {len(head)}; the models take other axes")
        return Pairing(shared={case.id: (n, n) for n, case in enumerate(head)}, missing=(), added=())
    places = {case.id: n for n, case in enumerate(base)}
    ids = {case.id for case in head}
    return Pairing(
        shared={case.id: (places[case.id], n) for n, case in enumerate(head) if case.id in places},
        missing=tuple(case for case in base if case.id not in ids),
        added=tuple(case for case in head if case.id not in places),
    )


def _measured(
    sides: Sequence[Side], pairing: Pairing, looks: InterimAnalyses, *, deadline_s: float, apart: bool, on_note: OnNote
) -> Comparison:
    titles = {case.id: case.title for case in sides[1].cases}

    def run(first: SideName, case: str, index: int) -> Sequence[Ran]:
        pair = {side.name: (side, place) for side, place in zip(sides, pairing.shared[case], strict=True)}
        is_sharing = all(side.cases[place].is_sharing for side, place in pair.values()) and not apart
        ran = (run_together if is_sharing else run_apart)(pair, first, index)
        for side in (side for side in ran if not ran[side].is_good):
            on_note(f"{titles[case]}: run {index} of {side} has no result; this case is not measured further")
        return list(ran.values())

    def judge(blocks: Mapping[str, int], is_last: bool) -> set[str]:
        found = looks.analyse(blocks, is_last=is_last)
        for line in _told(found, blocks):
            on_note(line)
        return open_cases(found)

    turns = measure_in_turns(
        list(pairing.shared), run, judge, looks=ANALYSED_BLOCKS, deadline_s=deadline_s, clock_s=time.monotonic
    )
    found = looks.analyse({}, given_up=turns.failed)
    suite = found.rows[0].suite if found.rows else ""
    missing = [_unpaired(case, suite, "base", "is not in head's plan") for case in pairing.missing]
    added = [_unpaired(case, suite, "head", "is not in base's plan") for case in pairing.added]
    return replace(
        found,
        missing=(*found.missing, *missing),
        added=(*found.added, *added),
        notes=(*found.notes, *_why_ended(turns, found)),
    )


def _told(found: Comparison, blocks: Mapping[str, int]) -> list[str]:
    """One line for every metric that decides, of the cases that were looked at."""
    rows = [row for row in found.rows if row.is_deciding and row.case_id in blocks and row.interval is not None]
    return [
        f"{row.runs[1]} runs a side: {row.case}: {row.metric} {percent((row.ratio or 1.0) - 1)}: "
        f"{'open' if row.is_open else row.verdict}"
        for row in rows
    ]


def _why_ended(turns: Turns, found: Comparison) -> list[str]:
    if not open_cases(found) or turns.stopped_because == "decided":
        return []
    if turns.stopped_because == "enough":
        return [f"ended undecided after {2 * ANALYSED_BLOCKS[-1]} runs a side, the most that are taken"]
    return ["the time budget ended before all was decided; a longer --budget may decide the rest"]


def _unpaired(case: PlannedCase, suite: str, side: SideName, why: str) -> UncomparedCase:
    return UncomparedCase(suite=suite, case_id=case.id, case=case.title, side=side, why=why)


def _is_model(specs: Sequence[SideSpec]) -> bool:
    return any(spec.kind == "model" for spec in specs)


def _differing(specs: Sequence[SideSpec]) -> tuple[str, ...]:
    """What the sides are meant to differ in, so that it does not make them unlike."""
    kinds = {"model": "model", "python": "software"}
    return tuple({kinds[spec.kind] for spec in specs if spec.kind in kinds})


def _folder(out: str | Path | None, suite: str) -> Path:
    """An absolute folder that holds no records yet: those of two measurements must not be taken for one."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (Path(out) if out is not None else Path("results") / f"{suite}-ab" / now).absolute()
    if any(folder.rglob(RECORDS)):
        raise InputError(f"{folder} holds records already; give --out a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
