"""What a comparison says: one row per case and metric, what could not be compared, and the exit code of it all."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from bench.comparison.likeness import Unlike
from bench.core.errors import UnknownNameError
from bench.core.schema import Better

Verdict = Literal["same", "faster", "slower", "inconclusive"]
Fault = Literal["regression", "inconclusive", "incomplete"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FAULTS: tuple[Fault, ...] = get_args(Fault)
# The exit codes of DESIGN.md, in the order in which the first that applies is taken.
EXIT_CODES: dict[Fault, int] = {"incomplete": 3, "regression": 1, "inconclusive": 4}


@dataclass(frozen=True, kw_only=True)
class Row:
    """The verdict on one metric of one case. `slower` is worse and `faster` better, whatever the metric measures.

    `ratio` is head / base with its 95 % `interval`; None where a value is unknown or the base is not above 0.
    `detectable` is the smallest change, as a share of the base, that this comparison would have called in 80 of 100.
    `is_deciding` rows make the exit code. `is_missing` rows were measured in base and are not known in head, or all of
    base's runs of them were throttled, or a run in turns failed before they were decided.
    `is_open` rows are of a measurement in turns that more runs may still decide; there, `interval` holds at every look
    and for all metrics together, with 99 %.
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


@dataclass(frozen=True, kw_only=True)
class Uncompared:
    """A case that could not be compared: where it lacks or failed, and why."""

    suite: str
    case_id: str
    case: str
    side: Literal["base", "head"]
    why: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Verdicts of HEAD against BASE. `failed` are runs without a result; only those of head make it incomplete.

    `unmeasured` are gate rules that no metric answers to; `unlike` what differs in an `--across` comparison.
    """

    base: str
    head: str
    rows: tuple[Row, ...]
    missing: tuple[Uncompared, ...] = ()
    added: tuple[Uncompared, ...] = ()
    failed: tuple[Uncompared, ...] = ()
    unmeasured: tuple[str, ...] = ()
    unlike: tuple[Unlike, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was compared: no metric of any case has a verdict that could decide."""
        return not any(row.is_deciding and not row.is_missing for row in self.rows)

    @property
    def faults(self) -> frozenset[Fault]:
        """All that keeps this comparison from being fine."""
        deciding = [row for row in self.rows if row.is_deciding]
        lacks = bool(self.missing or self.unmeasured or any(row.is_missing for row in deciding))
        failed = any(each.side == "head" for each in self.failed)
        found: dict[Fault, bool] = {
            "incomplete": self.is_empty or lacks or failed,
            "regression": any(row.verdict == "slower" for row in deciding),
            "inconclusive": any(row.verdict == "inconclusive" and not row.is_missing for row in deciding),
        }
        return frozenset(fault for fault, holds in found.items() if holds)

    def exit_code(self, *, fail_on: Collection[str] = FAULTS) -> int:
        """0, or by precedence 3 incomplete, 1 regression, 4 inconclusive, of those named in `fail_on`.

        A comparison of nothing is 3 whatever `fail_on` says. UnknownNameError for a fault that does not exist.
        """
        for name in fail_on:
            if name not in FAULTS:
                raise UnknownNameError("fault", name, FAULTS, where="fail_on")
        if self.is_empty:
            return EXIT_CODES["incomplete"]
        return next((code for fault, code in EXIT_CODES.items() if fault in self.faults and fault in fail_on), 0)

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.rows)
