"""Findings: sentences computed from ablations and rankings."""

import math
from collections.abc import Iterator, Sequence

from bench.core.doubts import TIMING_DOUBTS
from bench.core.registry import DATASETS
from bench.core.stats import Estimate
from bench.core.units import choose_scale, format_doubtful, format_number, format_signed, plural
from bench.reporting.ablation import POINTS, Ablation, Effect, level_text
from bench.reporting.board import Board, Column
from bench.reporting.case_results import MetricSummary
from bench.reporting.metric_text import axis_name, listed, metric_name

MOST_RANGES = 3  # of metrics, in one sentence


def ablation_findings(ablation: Ablation) -> list[str]:
    """One sentence for each level that was compared with the baseline in the goal, the clearest effect first."""
    goal = ablation.goal
    if not ablation.has_baseline:
        return [f"The baseline, {axis_name(ablation.factor)} {ablation.baseline_text}, has no result to compare with."]
    effects = [ablation.effects[level, goal] for level in ablation.levels if goal and (level, goal) in ablation.effects]
    compared = [effect for effect in effects if effect.difference is not None]
    return [_sentence(ablation, effect) for effect in sorted(compared, key=_by_certainty_and_size)]


def leader_findings(board: Board) -> list[str]:
    """The leaders in accuracy and speed, with those whose intervals overlap; a description if there is one row."""
    if len(board.rows) == 1:
        return [_description_of_single_row(board)]
    return [sentence for column in _ranking_columns(board) for sentence in _leaders(board, column)]


def ranking_gaps(board: Board) -> list[str]:
    """Why the rows are not ranked: as a whole, or in each accuracy and speed that has no leader on any machine."""
    if not board.rows:
        return ["There is no ranking, because no case has a result."]
    if len(board.rows) == 1:
        return ["There is no ranking, because this is the only row."]
    if not (columns := _ranking_columns(board)):
        return [_without_accuracy_and_speed(board)]
    return [
        f"{_capitalised(_in_sentence(column, board.headlines))} has no ranking: {_gap(board, column)}."
        for column in columns
        if not board.best(column)
    ]


def _ranking_columns(board: Board) -> list[Column]:
    accuracies = [c for c in board.headlines if c.metric == "accuracy.top1"]
    return accuracies + [c for c in board.headlines if c.metric in ("throughput.clips_per_s", "latency.p50_ms")]


def _gap(board: Board, column: Column) -> str:
    """Why no row leads in a column that some row knows."""
    known = [row for row in board.rows if (s := row.summaries.get(column)) and s.value is not None]
    groups = board.contenders(column)
    ranked = sum(map(len, groups.values()))
    if len(known) == 1:
        return f"only {board.label(known[0], [column])} has a value"
    if ranked < 2 <= len(known):
        doubts = listed(dict.fromkeys(doubt for row in known for doubt in row.summaries[column].doubts))
        few = "none" if not ranked else "only one"
        return f"of {len(known)} values {few} may be ranked ({doubts or 'the others are incomplete'})"
    if all(len(rows) == 1 for rows in groups.values()):
        return f"each of the {len(groups)} machines has only one value that may be ranked"
    if len(groups) == 1:
        return f"all {ranked} values are equal"
    return "no machine has two different values"


def _without_accuracy_and_speed(board: Board) -> str:
    """What was measured instead, from the least to the most: `MACs 1.20 G (a) to 3.40 G (b)`."""
    ranges = []
    for column in board.headlines[:MOST_RANGES]:
        known = [(s.value, row) for row in board.rows if (s := row.summaries.get(column)) and s.value is not None]
        (low, lowest), (high, highest) = (pick(known, key=lambda each: each[0]) for pick in (min, max))
        name, scale = _name_in_sentence(column), choose_scale([low, high], column.unit)
        texts = [f"{scale.text(value)} {scale.unit_after(name)}".strip() for value in (low, high)]
        names = [board.label(row, [column]) for row in (lowest, highest)]
        ranges.append(
            f"{name} {texts[0]} everywhere"
            if low == high
            else f"{name} {texts[0]} ({names[0]}) to {texts[1]} ({names[1]})"
        )
    measured = f" Measured were {listed(ranges)}." if ranges else ""
    return f"There is no ranking, because neither an accuracy nor a speed was measured.{measured}"


def chance_findings(board: Board) -> list[str]:
    """One sentence for each data set on which no top-1 is above that of guessing by more than its interval."""
    return [
        f"The accuracies {_where_in_sentence(column, board.headlines).strip()} mean nothing yet: no top-1 is above the "
        f"{format_number(100 / classes, 1)} % of guessing among {classes} classes by more than its interval."
        for column in board.headlines
        if column.metric == "accuracy.top1"
        and (known := [s for row in board.rows if (s := row.summaries.get(column)) and s.value is not None])
        and (classes := _classes(board, column)) is not None
        and all(summary.has_interval and summary.low * _percent(summary) <= 100 / classes for summary in known)
    ]


def _classes(board: Board, column: Column) -> int | None:
    """The number of classes of a column's data set: the fewest that the data set declares and that heads have."""
    name = dict(column.protocol).get("dataset")
    heads = [row.args.get("num_classes") for row in board.rows if column in row.summaries]
    own = DATASETS.get(name).num_classes if isinstance(name, str) and name in DATASETS else None
    return min((each for each in (own, *heads) if isinstance(each, int) and each > 0), default=None)


def _percent(summary: MetricSummary) -> int:
    return 100 if summary.unit == "fraction" else 1


def difference_text(effect: Effect) -> str:
    """`−43.2 pt`, `×0.52`, or the amount in the metric's unit."""
    found = effect.difference
    return "" if found is None else _amount(effect, found.value)


def interval_text(effect: Effect) -> str:
    """`−46.0 to −40.4`; empty where the pairs give none."""
    found = effect.difference
    if found is None or not math.isfinite(found.low):
        return ""
    usual = 2 if effect.is_ratio else 1
    for decimals in range(usual, usual + 3):
        ends = [_number(effect, end, decimals) for end in (found.low, found.high)]
        if ends[0] != ends[1]:
            break
    return f"{ends[0]} to {ends[1]} {_unit(effect)}".strip()


def _by_certainty_and_size(effect: Effect) -> tuple[int, float]:
    """Sort key: settled effects first, then those without a visible difference, each by size."""
    found = effect.difference or Estimate(value=0, low=0, high=0)
    size = abs(math.log(found.value)) if effect.is_ratio else abs(found.value)
    return 0 if effect.is_settled else 2 if effect.verdict == "one pair" else 1, -size


def _sentence(ablation: Ablation, effect: Effect) -> str:
    level, baseline = level_text(ablation.levels[effect.level]), ablation.baseline_text
    factor, metric = axis_name(ablation.factor), _in_sentence(effect.column, ablation.columns)
    change, evidence = _change(effect, f"{factor} {level}", baseline, metric), _evidence(effect)
    if effect.verdict == "no difference seen":
        size = difference_text(effect)
        return f"No difference seen in {metric} between {factor} {level} and {baseline} ({size}; {evidence})."
    if effect.verdict == "one pair":
        return f"{change}, but a single pair cannot show whether this is chance."
    if effect.verdict == "doubtful":
        return f"{change}, but timings behind it are doubtful."
    if effect.verdict == "the same":
        return f"{_capitalised(metric)} is the same with {factor} {level} and {baseline}."
    if effect.verdict == "depends on the setting":
        return f"Whether {factor} {level} or {baseline} has the higher {metric} depends on the other settings."
    return f"{change} ({evidence}){_cost_ratios(ablation, effect)}."


def _change(effect: Effect, level: str, baseline: str, metric: str) -> str:
    """`Top-1 is 43.2 points lower with kernel_depth 1 than with 3`, or the ratio of the two."""
    value = effect.difference.value if effect.difference else math.nan
    if effect.is_ratio:
        return f"{_capitalised(metric)} with {level} is {format_number(value, 2)} times that with {baseline}"
    amount = _amount(effect, abs(value)).lstrip("+").replace(" pt", " points")
    return f"{_capitalised(metric)} is {amount} {'higher' if value >= 0 else 'lower'} with {level} than with {baseline}"


def _evidence(effect: Effect) -> str:
    interval = interval_text(effect)
    if effect.is_of_weights:
        return f"95 % interval {interval} over the same videos; for these weights, since each was trained once"
    return f"95 % interval {interval}, {plural(effect.pairs, 'pair')}" if interval else plural(effect.pairs, "pair")


def _cost_ratios(ablation: Ablation, effect: Effect) -> str:
    """Cost of the level relative to the baseline: `, at 0.52 times the MACs`."""
    costs = [c for c in ablation.columns if c.metric in ("macs.forward", "latency.p50_ms")]
    ratios = [
        f"{format_number(found.difference.value, 2)} times the {_in_sentence(column, costs)}"
        for column in costs
        if column != effect.column
        and (found := ablation.effects.get((effect.level, column)))
        and found.difference is not None
        and found.is_ratio
        and found.verdict != "doubtful"
    ]
    return f", at {listed(ratios)}" if ratios else ""


def _amount(effect: Effect, value: float) -> str:
    return f"{_number(effect, value, 2 if effect.is_ratio else 1)} {_unit(effect)}".strip()


def _number(effect: Effect, value: float, decimals: int) -> str:
    if effect.is_ratio:
        return f"×{format_number(value, decimals)}"
    value *= 100 if effect.column.unit == "fraction" else 1
    return format_signed(value, decimals)


def _unit(effect: Effect) -> str:
    if effect.is_ratio:
        return ""
    return "pt" if effect.column.unit in POINTS else effect.column.unit


def _description_of_single_row(board: Board) -> str:
    """All headlines of the only row: `c3d: parameters 78.4 M, MACs 38.5 G, latency 20.0 ms.`"""
    row, parts = board.rows[0], []
    for column in board.headlines:
        summary, name = row.summaries[column], _name_in_sentence(column)
        scale = choose_scale([summary.value], column.unit)
        amount = f"{name} {scale.text(summary.value)} {scale.unit_after(name)}".strip()
        if summary.value is not None and set(summary.doubts) & set(TIMING_DOUBTS):
            half_width = (summary.high - summary.low) / 2 if summary.has_interval else None
            amount = f"{name} {format_doubtful(summary.value, column.unit, half_width=half_width)}"
        parts.append(f"{amount}{_where_in_sentence(column, board.headlines)}")
    return f"{row.label}: {listed(parts, most=len(parts))}."


def _leaders(board: Board, column: Column) -> Iterator[str]:
    contenders = board.contenders(column)
    for group, best in board.best(column).items():
        labelled = [(board.label(row, [column]), row.summaries[column]) for row in contenders[group]]
        leaders = {label: found for label, found in labelled if found.value == best}
        summary = next(iter(leaders.values()))
        level = dict.fromkeys(label for label, found in labelled if _may_be_level(found, summary))
        others = [label for label in level if label not in leaders]
        scale = choose_scale([best], column.unit)
        word = "Highest" if column.better == "higher" else "Lowest"
        where = f" on machine {group}" if group and len(board.machines_of(board.columns)) > 1 else ""
        has_ends = summary.has_interval and summary.low < summary.high
        ends = f" ({scale.text(summary.low)} to {scale.text(summary.high)})" if has_ends else ""
        yield (
            f"{word} {_in_sentence(column, board.headlines)}{where}: {listed(leaders, most=3)}, "
            f"{scale.text(best)} {scale.unit}{ends}{_tied_text(others)}."
        )


def _tied_text(others: Sequence[str]) -> str:
    if not others:
        return ""
    if len(others) > 3:
        return f"; the intervals of {len(others)} others reach it"
    return f"; {listed(others)} {'reaches' if len(others) == 1 else 'reach'} it within the intervals"


def _may_be_level(other: MetricSummary, leader: MetricSummary) -> bool:
    """Whether the two intervals overlap; a summary without an interval is a single point."""
    if other.value is None or leader.value is None:
        return False
    low, high = (other.low, other.high) if other.has_interval else (other.value, other.value)
    leads_low, leads_high = (leader.low, leader.high) if leader.has_interval else (leader.value, leader.value)
    return low <= leads_high and leads_low <= high


def _in_sentence(column: Column, columns: Sequence[Column]) -> str:
    """The metric's name for the middle of a sentence, with its labels and the data set."""
    return f"{_name_in_sentence(column)}{_where_in_sentence(column, columns)}"


def _name_in_sentence(column: Column) -> str:
    name = metric_name(column.metric)
    return name if name[:2].isupper() else name[0].lower() + name[1:]


def _where_in_sentence(column: Column, columns: Sequence[Column]) -> str:
    """` at batch 8`; ` on ucf101 (split 1)`."""
    labels = ", ".join(f"{axis_name(k)} {v}" for k, v in column.labels)
    return (f" at {labels}" if labels else "") + (f" on {column.place_among(columns)}" if column.protocol else "")


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
