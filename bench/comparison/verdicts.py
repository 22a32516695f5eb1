"""The result of a comparison: one verdict per case and metric, what could not be compared, and the exit code."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from bench.core.errors import UnknownNameError
from bench.core.schema import Better
from bench.core.units import format_value

Verdict = Literal["same", "better", "worse", "inconclusive"]
Fault = Literal["regression", "inconclusive", "incomplete"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FAULTS: tuple[Fault, ...] = get_args(Fault)
# The exit codes of DESIGN.md; if several faults apply, the first in this order decides.
EXIT_CODES: dict[Fault, int] = {"incomplete": 3, "regression": 1, "inconclusive": 4}
# Words of files that were written before 0.1.0.
FORMER_VERDICTS: dict[str, Verdict] = {"slower": "worse", "faster": "better"}


@dataclass(frozen=True, kw_only=True)
class MetricVerdict:
    """The verdict on one metric of one case.

    `ratio` is head / base with its 95 % `interval`; None if a value is unknown or the base is not above 0.
    `detectable` is the minimum detectable change as a share of the base: the smallest change that this comparison
    would have called `worse` or `better` in 80 of 100 repeats.
    `is_deciding` verdicts make the exit code. `is_missing` means that base has the metric and head does not, that all
    runs of base were throttled, or that a run of an A/B measurement failed before the metric was decided.
    `doubt` says how many runs are doubtful, such as `2 of 5 runs in head are drifting`; empty if none is.
    `is_open` verdicts belong to an A/B measurement and may still be decided by more runs; their `interval` holds with
    99 % for all metrics and all interim analyses together, and `needed_runs` a side would probably decide it.
    """

    suite: str
    case_id: str
    case: str
    metric: str
    unit: str
    better: Better | None
    base: float | None
    head: float | None
    runs: tuple[int, int]
    verdict: Verdict
    reason: str
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    detectable: float | None = None
    limit: str = ""
    is_deciding: bool = True
    is_missing: bool = False
    is_across: bool = False
    is_open: bool = False
    needed_runs: int | None = None
    doubt: str = ""


@dataclass(frozen=True, kw_only=True)
class UncomparedCase:
    """A case that could not be compared: which side has the gap or the failure, and why."""

    suite: str
    case_id: str
    case: str
    side: Literal["base", "head"]
    why: str


@dataclass(frozen=True, kw_only=True)
class ModuleChange:
    """A module, or so many `layers` of one, that was added, removed or costs more or less: MACs and parameters.

    A cost is None if it was not counted. The path of the whole model is empty.
    """

    path: str
    what: Literal["added", "removed", "changed"]
    macs: int | None
    params: int | None
    layers: int = 1

    def __str__(self) -> str:
        costs = [f"{'-' if n < 0 else '+'}{format_value(abs(n), unit)}" for n, unit in self._costs if n]
        place = self.path or "the whole model"
        several = f" ({self.layers} layers)" if self.layers > 1 else ""
        return f"{place}{several} {self.what}: {', '.join(costs) or 'other layers of the same cost'}"

    @property
    def _costs(self) -> tuple[tuple[int | None, str], ...]:
        return (self.macs, "MACs"), (self.params, "parameters")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Modules of one model that changed, and the ids in head of its cases, whose metrics they move.

    `source` is where the model is written, as `file:line`; empty if unknown.
    """

    model: str
    changes: tuple[ModuleChange, ...]
    case_ids: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        return f"{self.model}: {'; '.join(map(str, self.changes))}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One fact that differs between the sides or within one side, with all values found."""

    field: str
    base: tuple[str, ...]
    head: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field}: {' and '.join(self.base)} in base, {' and '.join(self.head)} in head"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Verdicts on HEAD against BASE. `failed` lists runs without a result; only those of head make it incomplete.

    `unmeasured` lists gate rules that match no metric; `unlike` lists what differs in an `--across` comparison.
    `causes` says for each model whose layers changed which ones, and which cases that concerns.
    """

    base: str
    head: str
    rows: tuple[MetricVerdict, ...]
    missing: tuple[UncomparedCase, ...] = ()
    added: tuple[UncomparedCase, ...] = ()
    failed: tuple[UncomparedCase, ...] = ()
    unmeasured: tuple[str, ...] = ()
    unlike: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()

    def moved_by(self, cause: Cause) -> list[MetricVerdict]:
        """Return the rows of the cause's cases that are worse or better, those that decide first."""
        rows = [row for row in self.rows if row.case_id in cause.case_ids and row.verdict in ("worse", "better")]
        return sorted(rows, key=lambda row: not row.is_deciding)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was compared: no metric of any case has a verdict that could decide."""
        return not any(row.is_deciding and not row.is_missing for row in self.rows)

    @property
    def faults(self) -> frozenset[Fault]:
        """All reasons why this comparison does not pass."""
        deciding = [row for row in self.rows if row.is_deciding]
        has_gaps = bool(self.missing or self.unmeasured or any(row.is_missing for row in deciding))
        has_failures = any(each.side == "head" for each in self.failed)
        found: dict[Fault, bool] = {
            "incomplete": self.is_empty or has_gaps or has_failures,
            "regression": any(row.verdict == "worse" for row in deciding),
            "inconclusive": any(row.verdict == "inconclusive" and not row.is_missing for row in deciding),
        }
        return frozenset(fault for fault, holds in found.items() if holds)

    def exit_code(self, *, fail_on: Collection[str] = FAULTS) -> int:
        """Return 0, or the code of the first fault that is in `fail_on`: 3 incomplete, 1 regression, 4 inconclusive.

        A comparison of nothing returns 3 whatever `fail_on` names. Raises UnknownNameError for an unknown fault.
        """
        for name in fail_on:
            if name not in FAULTS:
                raise UnknownNameError("fault", name, FAULTS, where="fail_on")
        if self.is_empty:
            return EXIT_CODES["incomplete"]
        return next((code for fault, code in EXIT_CODES.items() if fault in self.faults and fault in fail_on), 0)

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.rows)


def read_verdict(word: str) -> Verdict:
    """Return a stored verdict in today's words; files of earlier versions have `slower` and `faster`.

    Raises UnknownNameError for any other word.
    """
    current = FORMER_VERDICTS.get(word, word)
    for verdict in VERDICTS:
        if verdict == current:
            return verdict
    raise UnknownNameError("verdict", word, VERDICTS)


def one_line(text: str) -> str:
    """Return text of a record without line breaks and `::`, because GitHub executes log lines that begin with `::`."""
    return " ".join(text.split()).replace("::", ":\u200b:")


def percent(share: float, *, signed: bool = True) -> str:
    """`+3.1 %` for 0.031: one decimal, two below 1 %."""
    value = 100 * share
    if not math.isfinite(value):
        return "more than a float can hold"
    sign = "+" if signed else ""
    text = f"{value:{sign}.2f}" if abs(value) < 1 else f"{value:{sign}.1f}"
    return f"{text} %"


def amount(value: float, unit: str) -> str:
    """`+0.40 pt` for a difference of percentages, else `+3.2 ms` or `-12 MiB`."""
    if unit in ("%", "fraction"):
        return f"{value * (100 if unit == 'fraction' else 1):+.2f} pt"
    return f"{'-' if value < 0 else '+'}{format_value(abs(value), unit)}"


def p_value(p: float) -> str:
    return f"p {p:.1g}" if p >= 1e-4 else "p < 0.0001"
