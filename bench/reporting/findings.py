"""What the data say, as sentences: nobody wrote them down in advance."""

import math
from collections.abc import Iterator, Sequence

from bench.reporting.ablation import POINTS, Ablation, Effect
from bench.reporting.board import Board, Column, Row, group_of
from bench.reporting.cases import Reading
from bench.reporting.quantity import scale_of, written
from bench.reporting.wording import axis_name, count_of, listed, metric_name, value_text
from bench.stats import Estimate


def ablation_findings(ablation: Ablation) -> list[str]:
    """One sentence for each level that was compared with the baseline in the goal, the clearest effect first."""
    goal = ablation.goal
    effects = [ablation.effects[level, goal] for level in ablation.levels if goal and (level, goal) in ablation.effects]
    compared = [effect for effect in effects if effect.difference is not None]
    return [_sentence(ablation, effect) for effect in sorted(compared, key=_clearness)]


def leader_findings(board: Board) -> list[str]:
    """Who leads each headline metric that has a direction, and whether others may be level with the leader."""
    accuracies = [c for c in board.headlines if c.metric == "accuracy.top1"]
    speeds = [c for c in board.headlines if c.metric in ("throughput.clips_per_s", "latency.p50_ms")]
    return [sentence for column in [*accuracies, *speeds] for sentence in _leaders(board, column)]


def difference_text(effect: Effect) -> str:
    """`−43.2 pt`, `×0.52`, or the amount in the metric's unit."""
    found = effect.difference
    return "" if found is None else _amount(effect, found.value)


def interval_text(effect: Effect) -> str:
    """`−46.0 to −40.4`; empty where the pairs give none."""
    found = effect.difference
    if found is None or not math.isfinite(found.low):
        return ""
    unit = _unit(effect)
    return f"{_number(effect, found.low)} to {_number(effect, found.high)}{' ' + unit if unit else ''}"


def _clearness(effect: Effect) -> tuple[bool, float]:
    found = effect.difference or Estimate(value=0, low=0, high=0)
    size = abs(math.log(found.value)) if effect.is_ratio else abs(found.value)
    return not effect.is_settled, -size


def _sentence(ablation: Ablation, effect: Effect) -> str:
    level, baseline = value_text(ablation.levels[effect.level]), value_text(ablation.levels[ablation.baseline])
    factor, metric = axis_name(ablation.factor), _in_sentence(effect.column, ablation.columns)
    interval = interval_text(effect)
    evidence = f"95 % interval {interval}, {count_of(effect.pairs, 'pair')}" if interval else "one pair, no interval"
    if effect.verdict == "no difference seen":
        return (
            f"No difference seen in {metric} between {factor} {level} and {baseline} "
            f"({difference_text(effect)}; {evidence})."
        )
    if effect.verdict == "one pair":
        return (
            f"With {factor} {level} instead of {baseline}, {metric} came out {_how_much(effect)}, but one pair cannot "
            "tell this from chance."
        )
    if effect.verdict == "the same":
        return f"{_capital(metric)} is the same with {factor} {level} and {baseline}."
    if effect.verdict == "depends on the setting":
        return f"Whether {factor} {level} or {baseline} has the higher {metric} depends on the other settings."
    change = f"{_capital(metric)} is {_how_much(effect)} with {factor} {level} than with {baseline}"
    return f"{change} ({evidence}){_price(ablation, effect)}."


def _how_much(effect: Effect) -> str:
    """`43.2 points lower`, `2.10 times as high`."""
    value = effect.difference.value if effect.difference else math.nan
    if effect.is_ratio:
        return f"{written(value if value >= 1 else 1 / value, 2)} times {'higher' if value >= 1 else 'lower'}"
    amount = _amount(effect, abs(value)).lstrip("+").replace(" pt", " points")
    return f"{amount} {'higher' if value >= 0 else 'lower'}"


def _price(ablation: Ablation, effect: Effect) -> str:
    """What the level costs beside the baseline: `, at 0.52 times the MACs`."""
    costs = [c for c in ablation.columns if c.metric in ("macs.forward", "latency.p50_ms")]
    ratios = [
        f"{written(found.difference.value, 2)} times the {_in_sentence(column, costs)}"
        for column in costs
        if column != effect.column
        and (found := ablation.effects.get((effect.level, column)))
        and found.difference is not None
        and found.is_ratio
    ]
    return f", at {listed(ratios)}" if ratios else ""


def _amount(effect: Effect, value: float) -> str:
    return f"{_number(effect, value)} {_unit(effect)}".strip()


def _number(effect: Effect, value: float) -> str:
    if effect.is_ratio:
        return f"×{written(value, 2)}"
    value *= 100 if effect.column.unit == "fraction" else 1
    return f"{'+' if value > 0 else ''}{written(value, 1)}"


def _unit(effect: Effect) -> str:
    if effect.is_ratio:
        return ""
    return "pt" if effect.column.unit in POINTS else effect.column.unit


def _leaders(board: Board, column: Column) -> Iterator[str]:
    for group, best in board.best(column).items():
        rows = [r for r in board.rows if column in r.readings and group_of(r, column) == group]
        leader = next(r for r in rows if r.readings[column].value == best)
        others = [r for r in rows if r is not leader and _may_be_level(r.readings[column], leader.readings[column])]
        scale = scale_of([best], column.unit)
        word = "Highest" if column.better == "higher" else "Lowest"
        where = f" on machine {group}" if group and len({r.machine for r in board.rows if r.machine}) > 1 else ""
        reading = leader.readings[column]
        ends = f" ({scale.text(reading.low)} to {scale.text(reading.high)})" if reading.has_interval else ""
        yield (
            f"{word} {_in_sentence(column, board.headlines)}{where}: {board.label(leader)}, "
            f"{scale.text(best)} {scale.unit}{ends}{_beside(board, others)}."
        )


def _beside(board: Board, others: Sequence[Row]) -> str:
    if not others:
        return ""
    if len(others) > 3:
        return f"; the intervals of {len(others)} others reach it"
    names = listed(board.label(row) for row in others)
    return f"; {names} {'reaches' if len(others) == 1 else 'reach'} it within the intervals"


def _may_be_level(other: Reading, leader: Reading) -> bool:
    """Whether the two intervals overlap; readings without an interval are taken at their value."""
    if other.value is None or leader.value is None:
        return False
    low, high = (other.low, other.high) if other.has_interval else (other.value, other.value)
    leads_low, leads_high = (leader.low, leader.high) if leader.has_interval else (leader.value, leader.value)
    return low <= leads_high and leads_low <= high


def _in_sentence(column: Column, columns: Sequence[Column]) -> str:
    """The metric's name as it stands within a sentence, with its labels and what tells it from others of `columns`."""
    name = metric_name(column.metric)
    name = name if name[:2].isupper() else name[0].lower() + name[1:]
    labels = [f"{axis_name(k)} {v}" for k, v in column.labels]
    where = f" on {column.place_among(columns)}" if column.protocol else ""
    return f"{name} at {', '.join(labels)}{where}" if labels else f"{name}{where}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
