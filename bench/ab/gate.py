"""The gate on a noisy machine: measures base and head alternately in one job until every gated case is decided."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.ab.blocks import BlockResult, measure_blocks
from bench.ab.pairs import run_apart, run_together
from bench.ab.sides import PlannedCase, RunOutcome, Side, SideName, SideSpec, read_side, side_setup, suite_for_side
from bench.comparison.allowed_changes import GateValue, read_rules, refuse_noise
from bench.comparison.interim import ANALYSED_BLOCKS, InterimAnalyses, open_cases
from bench.comparison.verdicts import Comparison, UncomparedCase, percent
from bench.core.errors import InputError, SetUpError
from bench.core.units import plural
from bench.core.yaml_tree import Tree
from bench.store import RECORDS
from bench.suite import check_suite, limit_text

OnNote = Callable[[str], None]


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
    on_note: OnNote = lambda text: None,
) -> Comparison:
    """Verdicts of `head` against `base`, both measured now on the cases of `suite`, as read by `read_suite`.

    A side is a commit, branch or tag; `.`, the working folder as it is; `model:NAME` or `package.module:factory`, which
    replaces the suite's one model; or `python:PATH`, the interpreter of another environment. On a CPU two processes,
    one of each side, take turns by steps; with `apart`, or on a GPU, they run one after the other. Records of both stay
    in `<out>/base` and `<out>/head` (`results/<suite>-ab/<time>`); `identify` keeps home folders and host names in
    them. Raises InputError for a wrong side or suite, SetUpError if a side cannot be measured at all.
    """
    started = time.monotonic()
    specs = read_side(base), read_side(head)
    if _has_model(specs):
        check_suite(suite)
    try:
        refuse_noise(read_rules({**_gate_of(suite.data), **(gate or {})}))
    except InputError:
        check_suite(suite)  # raises with the line
        raise
    suites = [replace(suite, data=_with_limits_as_text(suite_for_side(spec, suite.data))) for spec in specs]
    folder, path = _new_folder(out, str(suite.data.get("suite"))), Path(suite.position(()).file).absolute()
    with ExitStack() as stack:
        try:
            sides = [
                stack.enter_context(
                    Side(
                        name,
                        stack.enter_context(side_setup(spec)),
                        own,
                        path=path,
                        out=folder / name,
                        identify=identify,
                    )
                )
                for name, spec, own in zip(_NAMES, specs, suites, strict=True)
            ]
        except SetUpError:
            check_suite(suite)  # if the file itself is wrong, that is the error, with its line
            raise
        pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=_has_model(specs))
        partners = {case: sides[0].cases[place].id for case, (place, _) in pairing.shared.items()}
        analyses = InterimAnalyses(
            folder / "base",
            folder / "head",
            gate=gate,
            across=across,
            differing=_differing(specs),
            partners=partners,
        )
        comparison = _measure(sides, pairing, analyses, deadline_s=started + budget_s, apart=apart, on_note=on_note)
        titles = [side.setup.title for side in sides]
    notes = (*comparison.notes, f"records of both sides: {folder}")
    return replace(comparison, base=titles[0], head=titles[1], notes=notes)


def _with_limits_as_text(suite: Mapping[str, Any]) -> dict[str, Any]:
    """`suite` with limits as text, because older commits do not accept a number as a limit."""
    rules = {
        metric: {side: limit_text(limit) for side, limit in rule.items()} if isinstance(rule, Mapping) else rule
        for metric, rule in _gate_of(suite).items()
    }
    return {**suite, "gate": rules} if rules else dict(suite)


def _gate_of(suite: Mapping[str, Any]) -> Mapping[str, GateValue]:
    """The gate rules of a suite; empty if they are not a mapping, which is reported when the suite is planned."""
    gate = suite.get("gate")
    return gate if isinstance(gate, Mapping) else {}


_NAMES: tuple[SideName, SideName] = ("base", "head")


def pair_plans(base: Sequence[PlannedCase], head: Sequence[PlannedCase], *, by_place: bool) -> Pairing:
    """Pair the cases of both plans: by id, or by place in the plan if the models are meant to differ."""
    if by_place:
        if len(base) != len(head):
            raise SetUpError(
                f"base plans {plural(len(base), 'case')} and head {len(head)}; the models have different axes"
            )
        return Pairing(shared={case.id: (n, n) for n, case in enumerate(head)}, missing=(), added=())
    places = {case.id: n for n, case in enumerate(base)}
    ids = {case.id for case in head}
    return Pairing(
        shared={case.id: (places[case.id], n) for n, case in enumerate(head) if case.id in places},
        missing=tuple(case for case in base if case.id not in ids),
        added=tuple(case for case in head if case.id not in places),
    )


def _measure(
    sides: Sequence[Side],
    pairing: Pairing,
    analyses: InterimAnalyses,
    *,
    deadline_s: float,
    apart: bool,
    on_note: OnNote,
) -> Comparison:
    titles = {case.id: case.title for case in sides[1].cases}

    def run_pair(first: SideName, case: str, index: int) -> Sequence[RunOutcome]:
        pair = {side.name: (side, place) for side, place in zip(sides, pairing.shared[case], strict=True)}
        is_sharing = all(side.cases[place].is_sharing for side, place in pair.values()) and not apart
        outcomes = (run_together if is_sharing else run_apart)(pair, first, index)
        for side in (side for side in outcomes if not outcomes[side].is_good):
            on_note(f"{titles[case]}: run {index} of {side} has no result; this case is not measured further")
        return list(outcomes.values())

    def analyse(blocks: Mapping[str, int], is_last: bool) -> set[str]:
        found = analyses.analyse(blocks, is_last=is_last)
        for line in _progress_lines(found, blocks):
            on_note(line)
        return open_cases(found)

    result = measure_blocks(
        list(pairing.shared),
        run_pair,
        analyse,
        analysed=ANALYSED_BLOCKS,
        deadline_s=deadline_s,
        clock_s=time.monotonic,
    )
    found = analyses.analyse({}, given_up=result.failed)
    suite = found.rows[0].suite if found.rows else ""
    missing = [_unpaired(case, suite, "base", "is not in head's plan") for case in pairing.missing]
    added = [_unpaired(case, suite, "head", "is not in base's plan") for case in pairing.added]
    return replace(
        found,
        missing=(*found.missing, *missing),
        added=(*found.added, *added),
        notes=(*found.notes, *_why_undecided(result, found)),
    )


def _progress_lines(found: Comparison, blocks: Mapping[str, int]) -> list[str]:
    """One line for each deciding metric of the cases that were analysed."""
    rows = [row for row in found.rows if row.is_deciding and row.case_id in blocks and row.interval is not None]
    return [
        f"{row.runs[1]} runs a side: {row.case}: {row.metric} {percent((row.ratio or 1.0) - 1)}: "
        f"{'open' if row.is_open else row.verdict}"
        for row in rows
    ]


def _why_undecided(result: BlockResult, found: Comparison) -> list[str]:
    if not open_cases(found) or result.stopped_because == "decided":
        return []
    if result.stopped_because == "enough":
        return [f"ended undecided after {2 * ANALYSED_BLOCKS[-1]} runs a side, which is the maximum"]
    return ["the time budget ended before all cases were decided; a longer --budget may decide the rest"]


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
    if any(folder.rglob(RECORDS)):
        raise InputError(f"{folder} holds records already; give --out a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
