"""Interim analyses of an A/B measurement: when runs are analysed before the end, and which verdicts stay.

Every interim analysis spends a share of the gate's error rate that is fixed beforehand. See
docs/decisions/0007-alternating-sides.md.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from bench.comparison.allowed_changes import GateValue
from bench.comparison.comparing import compare
from bench.comparison.verdicts import Comparison, MetricVerdict

# After how many blocks of four runs (A B B A, then B A A B) a case is analysed. Three blocks are six runs a side, the
# fewest that decide.
ANALYSED_BLOCKS = (3, 4, 6, 8, 12, 16, 24, 32)


def alpha_share(blocks: int, *, is_last: bool) -> float:
    """Return the share of the error rate for an analysis after so many blocks; 0 if no analysis is due.

    The shares of all analyses up to any last one add up to at most 1. A last analysis gets all that is left. If it
    repeats the evidence of an earlier analysis, its share includes the one spent then.
    """
    if blocks < ANALYSED_BLOCKS[0]:
        return 0.0
    if is_last:
        return 1 - sum(analysed < blocks for analysed in ANALYSED_BLOCKS) / len(ANALYSED_BLOCKS)
    return 1 / len(ANALYSED_BLOCKS) if blocks in ANALYSED_BLOCKS else 0.0


class InterimAnalyses:
    """All analyses of one A/B measurement. A verdict that one has reached stays, whatever later runs show."""

    def __init__(
        self,
        base: Path,
        head: Path,
        *,
        gate: Mapping[str, GateValue] | None = None,
        across: bool = False,
        differing: Collection[str] = (),
        partners: Mapping[str, str] | None = None,
    ) -> None:
        self._base, self._head = base, head
        self._gate, self._across, self._differing, self._partners = gate, across, differing, partners
        self._decided: dict[tuple[str, str, str], MetricVerdict] = {}
        self._shares: dict[str, float] = {}

    def analyse(
        self, blocks: Mapping[str, int], *, is_last: bool = False, given_up: Collection[str] = ()
    ) -> Comparison:
        """Return the verdicts that the present records give.

        `blocks` is the number of blocks of each open case, by its id in head. A case is `given_up` if a run failed:
        its metrics without an earlier verdict are reported as missing.
        """
        self._shares |= dict.fromkeys(given_up, 0.0)
        due = {case: alpha_share(count, is_last=is_last) for case, count in blocks.items()}
        self._shares |= {case: share for case, share in due.items() if share > 0}
        found = compare(
            self._base,
            self._head,
            gate=self._gate,
            across=self._across,
            differing=self._differing,
            shares=self._shares,
            partners=self._partners,
        )
        for row in found.rows:
            if row.is_deciding and not row.is_open and due.get(row.case_id, 0) > 0:
                self._decided.setdefault(_key(row), row)
        rows = [self._decided.get(_key(row), row) for row in found.rows]
        failures = {case: self._failures_of(case, found) for case in given_up}
        return replace(
            found,
            rows=tuple(
                _given_up(row, failures[row.case_id]) if row.is_open and row.case_id in failures else row
                for row in rows
            ),
        )

    def _failures_of(self, case: str, found: Comparison) -> str:
        """Return how the runs of `case`, an id in head, failed on either side."""
        ids = {"base": (self._partners or {}).get(case, case), "head": case}
        return "; ".join(f"{each.why} ({each.side})" for each in found.failed if each.case_id == ids[each.side])


def open_cases(comparison: Comparison) -> set[str]:
    """Return the cases, by id in head, with a deciding metric that more runs may still decide."""
    return {row.case_id for row in comparison.rows if row.is_open and row.is_deciding}


def _key(row: MetricVerdict) -> tuple[str, str, str]:
    return row.suite, row.case_id, row.metric


def _given_up(row: MetricVerdict, failures: str) -> MetricVerdict:
    reason = f"the measurement stopped early: {failures or 'a run failed'}"
    return replace(row, reason=reason, is_open=False, is_missing=True)
