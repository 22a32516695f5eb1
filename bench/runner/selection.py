"""Parts of a suite: one shard of its cases, those that match a pattern, or single ones by their ids."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.core.errors import InputError, suggest
from bench.core.schema import Case
from bench.runner.job_kind import JobKind


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which cases of a suite are planned and run; all of them by default, and those that meet every condition.

    `shard` is (i, n): every n-th case, beginning with the i-th, so that n machines with i from 1 to n share the suite.
    `only` are shell patterns for titles, models and measures, or parts of titles. `cases` are ids or their first
    digits. `kind` selects the cases of one kind of job.
    """

    shard: tuple[int, int] | None = None
    only: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    kind: JobKind | None = None

    def of(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """The selected cases in their order. Raises InputError if a part of the selection has no case."""
        if self.shard is not None and self.shard[1] > len(cases):
            raise InputError(f"--shard {self.shard[0]}/{self.shard[1]}: there are only {len(cases)} cases to share")
        for given in self.cases:
            _require_one(given, cases)
        for pattern in self.only:
            if not pattern:
                raise InputError("--only '' is empty; it takes a part of a title, a model, a measure, or a pattern")
            if not any(_matches(case, pattern) for case in cases):
                names = {name for case in cases for name in (case.point.model, *case.measures)}
                raise InputError(f"--only {pattern!r} matches no case; {suggest(pattern.strip('*?'), names)}")
        chosen = tuple(case for place, case in enumerate(cases) if self._has(case, place))
        if cases and not chosen:
            raise InputError("no case meets --shard, --only and --case together; `vbench plan` lists the cases")
        return chosen

    def _has(self, case: Case, place: int) -> bool:
        return (
            (self.shard is None or place % self.shard[1] == self.shard[0] - 1)
            and (not self.only or any(_matches(case, pattern) for pattern in self.only))
            and (not self.cases or case.id.startswith(self.cases))
            and self.kind in (None, JobKind.of(case))
        )


def _matches(case: Case, pattern: str) -> bool:
    names = (case.title, case.point.model, *case.measures)
    return pattern in case.title or any(fnmatchcase(name, pattern) for name in names)


def _require_one(given: str, cases: Sequence[Case]) -> None:
    """Raises InputError unless `given` begins the id of exactly one case."""
    ids = [case.id for case in cases if given and case.id.startswith(given)]
    if not ids:
        raise InputError(f"no case has the id {given!r}; {suggest(given, [case.id for case in cases])}")
    if len(ids) > 1:
        raise InputError(f"{len(ids)} cases have ids that begin with {given!r}: {', '.join(ids[:8])}")


def shard_from_text(text: str) -> tuple[int, int]:
    """Parse `3/8`, the third of eight shards; raises InputError for anything else."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    shard = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= shard[0] <= shard[1]:
        raise InputError(f"--shard {text!r} is not i/n with i from 1 to n, such as 3/8")
    return shard
