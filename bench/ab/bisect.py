"""Finds the commit that made a metric worse, by measuring commits between a good and a bad one against the good one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from bench.ab.gate import OnNote, ab
from bench.core.errors import InputError, SetUpError
from bench.core.files import write_atomically
from bench.core.git import commit_hint, run_git
from bench.core.yaml_tree import Tree

Judgement = Literal["good", "bad", "unknown"]
Judge = Callable[[str], Judgement]
STATE = "bisect.json"


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """How a bisection ended. `first_bad` is None if BAD is not worse than GOOD, or if it could not be decided.

    `candidates` are the commits that may be the first bad one, oldest first; more than one if some are unknown.
    """

    good: str
    bad: str
    first_bad: str | None
    candidates: tuple[str, ...]
    judged: Mapping[str, Judgement] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 if a first bad commit was found, 4 if it is one of several, 0 if BAD is not worse."""
        return 1 if self.first_bad else 4 if self.candidates else 0


def bisect(commits: Sequence[str], judge: Judge, *, good: str, judged: dict[str, Judgement]) -> Bisection:
    """Search `commits`, oldest first and ending with the bad one, for the first that `judge` calls bad.

    The last is judged first: if it is not bad, there is nothing to find. A commit that is unknown, because it cannot be
    measured or decided, is passed over. `judged` holds earlier judgements, which are not repeated, and receives the new
    ones.
    """

    def judgement_of(commit: str) -> Judgement:
        if commit not in judged:
            judged[commit] = judge(commit)
        return judged[commit]

    low, high = -1, len(commits) - 1  # the last that is known to be good, and the first that is known to be bad
    if judgement_of(commits[high]) != "bad":
        open_ones = () if judged[commits[high]] == "good" else tuple(commits)
        return Bisection(good=good, bad=commits[high], first_bad=None, candidates=open_ones, judged=dict(judged))
    unknown: set[int] = set()
    while left := [place for place in range(low + 1, high) if place not in unknown]:
        middle = min(left, key=lambda place: abs(place - (low + high) / 2))
        found = judgement_of(commits[middle])
        if found == "unknown":
            unknown.add(middle)
        elif found == "bad":
            high = middle
        else:
            low = middle
    candidates = tuple(commits[low + 1 : high + 1])
    return Bisection(
        good=good,
        bad=commits[-1],
        first_bad=candidates[0] if len(candidates) == 1 else None,
        candidates=candidates,
        judged=dict(judged),
    )


def commits_between(good: str, bad: str) -> list[str]:
    """Return the commits after `good` up to `bad` along first parents, oldest first.

    Raises InputError if git does not know them or `bad` does not come after `good`.
    """
    try:
        for name in (good, bad):
            if run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").returncode == 1:
                raise InputError(f"no commit, branch or tag {name!r} here{commit_hint(name)}")
        done = run_git("rev-list", "--reverse", "--first-parent", "--end-of-options", f"{good}..{bad}")
    except FileNotFoundError:
        raise InputError("vbench bisect needs git, which is not installed") from None
    if done.returncode:  # no repository
        raise InputError(f"git does not know the commits from {good} to {bad}: {done.stderr.strip()}")
    commits = done.output.decode().split()
    if not commits:
        raise InputError(f"{bad} does not come after {good}; give the good commit first")
    return commits


class KeptJudgements:
    """Judgements of one question in a file, so that a bisection that was stopped goes on where it was."""

    def __init__(self, folder: Path, question: Mapping[str, str]) -> None:
        """Read the file in `folder`, if there is one; raises InputError if it answers another question."""
        self._file, self._question = folder / STATE, dict(question)
        self.judged: dict[str, Judgement] = {}
        if self._file.is_file():
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            if stored["question"] != self._question:
                raise InputError(f"{folder} holds the bisection of another question; give --out another folder")
            self.judged = stored["judged"]

    def keep(self, commit: str, judgement: Judgement) -> None:
        """Store one more judgement at once."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = {**self.judged, commit: judgement}
        write_atomically(self._file, json.dumps({"question": self._question, "judged": kept}, indent=2) + "\n")


def judge_by_measuring(
    metric: str,
    case: str,
    suite: Tree,
    *,
    good: str,
    bad: str,
    limit: str,
    budget_s: float,
    out: Path,
    on_note: OnNote,
    small: bool = False,
) -> Judge:
    """Return a judge that measures a commit and `good` alternately: bad is `worse`; `same` and `better` are good.

    A commit that cannot be measured, or not decided within `budget_s`, is unknown, and so is one between `good` and
    `bad` that has no such case.
    """

    def judge(commit: str) -> Judgement:
        on_note(f"measuring {commit[:10]} against {good[:10]}")
        folder = out / f"{commit[:10]}-{datetime.now():%Y%m%d-%H%M%S}"
        given = {"gate": {metric: limit}, "only": case, "budget_s": budget_s, "out": folder, "small": small}
        try:
            found = ab(good, commit, suite, on_note=on_note, **given)  # type: ignore[arg-type]  # mypy sees one type for all values
        except (SetUpError, InputError) as error:
            if isinstance(error, InputError) and commit == bad:
                raise  # the question itself is wrong
            on_note(f"{commit[:10]} is passed over: {error}")
            return "unknown"
        verdicts = [row.verdict for row in found.rows if row.is_deciding and not row.is_missing]
        judgement: Judgement = "unknown"
        if "worse" in verdicts:
            judgement = "bad"
        elif verdicts and "inconclusive" not in verdicts:
            judgement = "good"
        on_note(f"{commit[:10]} is {judgement}")
        return judgement

    return judge
