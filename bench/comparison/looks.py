"""Judging while base and head are still measured in turns: when the evidence is looked at, and what stays decided.

Every look spends a share of the gate's error rate that was set aside for it beforehand; docs/decisions/0007.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from bench.comparison.comparing import compare
from bench.comparison.limits import GateValue
from bench.comparison.outcome import Comparison, Row

# After how many blocks of four runs (A B B A, then B A A B) a case is looked at. Three are six runs a side, the fewest
# that decide.
LOOKS = (3, 4, 6, 8, 12, 16, 24, 32)


def share_at(blocks: int, *, is_last: bool) -> float:
    """Which share of the error rate may be spent on evidence of so many blocks; 0 where no look is due.

    The shares of all looks on the way to any last one add up to at most 1. A last look takes what is left; where its
    evidence is that of a look before, its share holds the one spent then.
    """
    if blocks < LOOKS[0]:
        return 0.0
    if is_last:
        return 1 - sum(look < blocks for look in LOOKS) / len(LOOKS)
    return 1 / len(LOOKS) if blocks in LOOKS else 0.0


class Looks:
    """The looks at one interleaved measurement. What a look has decided stays so, whatever later runs say."""

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
        self._decided: dict[tuple[str, str, str], Row] = {}
        self._shares: dict[str, float] = {}

    def look(self, blocks: Mapping[str, int], *, is_last: bool = False, given_up: Collection[str] = ()) -> Comparison:
        """What the records of now decide. `blocks` are those of each case, by its id in head, that is still open.

        Cases are `given_up` where a run failed: what no look before has decided of them is missing from the verdict.
        """
        self._shares |= dict.fromkeys(given_up, 0.0)
        due = {case: share_at(count, is_last=is_last) for case, count in blocks.items()}
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
                _left_undecided(row, failures[row.case_id]) if row.is_open and row.case_id in failures else row
                for row in rows
            ),
        )

    def _failures_of(self, case: str, found: Comparison) -> str:
        """Why `case`, an id in head, was given up: what became of the runs that failed on either side."""
        ids = {"base": (self._partners or {}).get(case, case), "head": case}
        return "; ".join(f"{each.why} ({each.side})" for each in found.failed if each.case_id == ids[each.side])


def open_cases(comparison: Comparison) -> set[str]:
    """Cases, by id in head, with a deciding metric that more runs may still decide."""
    return {row.case_id for row in comparison.rows if row.is_open and row.is_deciding}


def _key(row: Row) -> tuple[str, str, str]:
    return row.suite, row.case_id, row.metric


def _left_undecided(row: Row, failures: str) -> Row:
    reason = f"not measured to an end, since {failures or 'a run failed'}"
    return replace(row, reason=reason, is_open=False, is_missing=True)
