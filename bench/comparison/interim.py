"""Interim analyses of an A/B measurement: after any pair of runs, and which verdicts stay. docs/decisions/0022."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from bench.comparison.allowed_changes import GateValue
from bench.comparison.comparing import compare
from bench.comparison.verdicts import Comparison, MetricVerdict


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

    def analyse(self, *, given_up: Collection[str] = ()) -> Comparison:
        """Return the verdicts that the present records give.

        A case, by its id in head, is `given_up` if a run failed: its metrics without an earlier verdict are reported as
        missing.
        """
        found = compare(
            self._base,
            self._head,
            gate=self._gate,
            across=self._across,
            differing=self._differing,
            is_interim=True,
            partners=self._partners,
        )
        for row in found.rows:
            if row.is_deciding and not row.is_open and row.case_id not in given_up:
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
