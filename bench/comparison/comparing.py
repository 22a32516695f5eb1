"""The regression gate: compares two sets of records and returns verdicts, each with its reason."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from bench.comparison.allowed_changes import GateValue, Rule, read_rules
from bench.comparison.baselines import PREFIX, baseline_files
from bench.comparison.causes import causes_of, have_same_structure, model_key
from bench.comparison.compatibility import depends_on_machine, incompatibilities, notable_differences
from bench.comparison.gate_rules import GateRules, decides_by_machine, metrics_of
from bench.comparison.pairing import (
    CasePair,
    are_enough_sessions,
    failed_runs,
    measured_alike,
    pair_cases,
    separate_sessions,
    unpaired_cases,
    wrong_outputs,
)
from bench.comparison.runs import MetricRuns, SideRuns, open_side
from bench.comparison.verdicts import Comparison, Difference, MetricVerdict
from bench.core.errors import InputError
from bench.core.schema import Record
from bench.core.units import plural
from bench.store import Source

MAX_LINES = 12
COSTS = frozenset({"ms", "s", "us", "clips/s", "videos/s", "B", "bytes", "J", "instructions"})

NOT_TIME = (
    "instructions are not time: more of them are usually slower, but an operator that waits for memory executes few, "
    "and another kernel may take longer for each"
)


def compare(
    base: Source | Iterable[Record],
    head: Source | Iterable[Record],
    *,
    gate: Mapping[str, GateValue] | None = None,
    across: bool = False,
    differing: Collection[str] = (),
    is_interim: bool = False,
    partners: Mapping[str, str] | None = None,
) -> Comparison:
    """Return the verdicts on `head` against `base`, per case and metric.

    Each side is a file, a folder, a pattern, `git:REF[:path]`, a list of those, or records. `base` may also be
    `baseline:BRANCH[:folder]`: what was kept of head's suites on machines like head's. `gate` maps a metric name, key
    or pattern to a threshold (`3%`, `0.5pt`, `200MiB`) for the worse direction, or to `{max_drop: …, max_rise: …}`; it
    adds to the rules of head's suites, or of base's if head's have none. If there is any rule, only metrics with a rule
    decide the exit code.

    `differing` lists the facts that may differ: `model`, `software`. `is_interim`: the runs are pairs of an A/B
    measurement that may go on (`interim.py`). `partners` maps ids of head to ids of base if the pairs are known.

    Raises InputError if environments or protocols are incompatible, unless `across`, which marks each verdict. Machines
    must be compatible only if a machine-dependent metric decides; else such metrics are not judged.
    """
    given = read_rules(gate or {})
    with open_side(head) as new, open_side(_base_source(base, new, given, across=across)) as old:
        found = pair_cases(old, new, differing=differing, partners=partners)
        pairs = [measured_alike(pair) for pair in found]
        rules = GateRules(old, new, given, pairs)
        if is_interim:
            rules.refuse_noise()
        unlike = _incompatible(pairs, differing, lambda pair: across or decides_by_machine(pair, rules))
        if unlike and not across:
            raise InputError(_refusal(unlike))
        # Late: this needs numpy and scipy, and the commands of the gate import this module at their start.
        from bench.comparison.judging import judge

        differences = [[] if across else _incompatible([pair], differing, lambda _: True) for pair in pairs]
        rows = judge(pairs, rules, machine_differences=differences, is_interim=is_interim)
        missing, added = unpaired_cases(old, new, found)
        causes = causes_of(pairs)
        notes = (
            *_notes(pairs),
            *_left_out(found, pairs),
            *_renames(old, new, found),
            *_same_cases(old, new, found),
            *_other_reasons(pairs, rows),
            *([NOT_TIME] if any(row.unit == "instructions" for row in rows) else []),
        )
        return Comparison(
            base=base if isinstance(base, str) else old.source,
            head=new.source,
            rows=tuple(replace(row, is_across=True) for row in rows) if unlike else tuple(rows),
            missing=tuple(missing),
            added=tuple(added),
            failed=(
                *failed_runs(old, "base", other=new),
                *failed_runs(new, "head", other=old),
                *wrong_outputs(pairs),
            ),
            unmeasured=tuple(rules.unmeasured()),
            unlike=tuple(unlike),
            notes=notes,
            causes=causes,
        )


def _base_source(
    base: Source | Iterable[Record], head: SideRuns, given: Mapping[str, Rule], *, across: bool
) -> Source | Iterable[Record]:
    """Return `base`, or for `baseline:BRANCH` its files for head's suites and, if it matters, head's machine."""
    if not (isinstance(base, str) and base.startswith(PREFIX)):
        return base
    cases = head.cases.values()
    records = [record for case in cases for record in (*case.records, *case.failures)]
    rules = GateRules(head, head, given)
    by_machine = any(decides_by_machine(CasePair(base=case, head=case), rules) for case in cases)
    return baseline_files(base, records, across=across, by_machine=by_machine)


def _incompatible(
    pairs: Sequence[CasePair], differing: Collection[str], of_machine: Callable[[CasePair], bool]
) -> list[Difference]:
    """Return every incompatible fact once, except those in a group that is meant to differ."""
    found = [
        difference
        for pair in pairs
        for difference in incompatibilities(pair.base.records, pair.head.records, of_machine=of_machine(pair))
    ]
    return [each for each in dict.fromkeys(found) if each.field.partition(".")[0] not in differing]


def _refusal(unlike: Sequence[Difference]) -> str:
    lines = [f"  {difference}" for difference in unlike[:MAX_LINES]]
    if len(unlike) > MAX_LINES:
        lines.append(f"  and {len(unlike) - MAX_LINES} more")
    return "\n".join(
        ["base and head were not measured alike, so a change may have other causes than the code:", *lines]
        + ["measure both alike, or give --across to compare them anyway and have each verdict marked"]
    )


def _notes(pairs: Sequence[CasePair]) -> Iterator[str]:
    found = [each for pair in pairs for each in notable_differences(pair.base.records, pair.head.records)]
    for difference in list(dict.fromkeys(found))[:MAX_LINES]:
        yield f"not the same in all runs: {difference}"
    if pairs and all(pair.base.records == pair.head.records for pair in pairs):
        yield "base and head are the same runs: comparing results with themselves shows nothing"
    if any(_are_apart(pair) for pair in pairs):
        yield (
            "base and head were measured one after the other: a change of the machine between two sessions looks like "
            "a change of the code; measure both in turns with vbench ab, or in five sessions or more together"
        )


def _left_out(found: Sequence[CasePair], pairs: Sequence[CasePair]) -> Iterator[str]:
    """Yield a note if runs were left out, because a folder holds runs measured alone and in turns."""
    numbers = [
        sum(len(getattr(pair, side).runs) for pair in found) - sum(len(getattr(pair, side).runs) for pair in pairs)
        for side in ("base", "head")
    ]
    if any(numbers):
        ways = {record.in_turns for pair in pairs for record in pair.head.records}
        used = "were measured alone" if None in ways else "took turns (vbench ab)"
        yield (
            f"{plural(numbers[0], 'run')} of base and {plural(numbers[1], 'run')} of head are left out: both sides are "
            f"compared by the runs that {used}"
        )


def _renames(old: SideRuns, new: SideRuns, pairs: Sequence[CasePair]) -> Iterator[str]:
    """Yield a note for each model that only base has and that has the structure of one that only head has."""
    paired = {id(case) for pair in pairs for case in (pair.base, pair.head)}
    gone, come = ([case for case in side.cases.values() if case.runs and id(case) not in paired] for side in (old, new))
    alike = [
        (before.case.point.model, after.case.point.model)
        for before in gone
        for after in come
        if before.case.point.clip == after.case.point.clip and have_same_structure(before, after)
    ]
    for before, after in dict.fromkeys(alike):
        yield (
            f"{before} is gone and {after} is new, with the same layers and counts: if it was renamed, add "
            f"`renamed: {{{after}: {before}}}` to the suite, which compares them and keeps the history"
        )


def _same_cases(old: SideRuns, new: SideRuns, pairs: Sequence[CasePair]) -> Iterator[str]:
    """Yield a note for suites of one side with the same cases, none of which is the partner of the other side's."""
    paired = {id(case) for pair in pairs for case in (pair.base, pair.head)}
    left = {
        name: [case for case in side.cases.values() if case.runs and id(case) not in paired]
        for name, side in (("base", old), ("head", new))
    }
    for name, other in (("base", "head"), ("head", "base")):
        wanted = {case.id for case in left[other]}
        suites: dict[str, list[str]] = {}
        for case in left[name]:
            if case.id in wanted:
                suites.setdefault(case.id, []).append(case.case.suite)
        for several in dict.fromkeys(tuple(found) for found in suites.values() if len(found) > 1):
            yield (
                f"the suites {', '.join(several)} of {name} have the same cases, so it is not clear which are those of "
                f"{other}: give the records of one of them"
            )


def _other_reasons(pairs: Sequence[CasePair], rows: Sequence[MetricVerdict]) -> Iterator[str]:
    """Yield a note for each model that costs more although its layers have the same counts."""
    alike = {model_key(pair.head) for pair in pairs if have_same_structure(pair.base, pair.head)}
    models = {pair.head.id: pair.head for pair in pairs if model_key(pair.head) in alike}
    moved: dict[str, dict[str, None]] = {}
    for row in rows:
        case = models.get(row.case_id)
        if case and row.is_deciding and row.verdict == "worse" and row.unit in COSTS:
            moved.setdefault(case.case.point.model, {})[row.metric] = None
    for model, metrics in moved.items():
        yield (
            f"{model} has the same layers and counts as before: {', '.join(metrics)} changed for another reason, such "
            "as an operator, a memory layout or a library"
        )


def _are_apart(pair: CasePair) -> bool:
    """Whether all runs of one side were measured before those of the other, and runs are what is compared."""
    records = [*pair.base.records, *pair.head.records]
    if not all(depends_on_machine(record) for record in records):
        return False
    old, new = ([record.started_at for record in side.records] for side in (pair.base, pair.head))
    return (max(old) < min(new) or max(new) < min(old)) and _is_any_judged_by_runs(pair)


def _is_any_judged_by_runs(pair: CasePair) -> bool:
    """Whether both sides know a drifting metric that is compared over runs and not over sessions."""
    keys = [metric.key for metric, _ in metrics_of(pair) if metric.can_drift]
    sides = [(MetricRuns.of(pair.base.runs, key), MetricRuns.of(pair.head.runs, key)) for key in keys]
    return any(old.known and new.known and not are_enough_sessions(separate_sessions(old, new)) for old, new in sides)
