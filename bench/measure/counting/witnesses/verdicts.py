"""Whether a counter's figure is ours, and if not, exactly why: module by module, both sides add up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.measure.counting.places import ROOT, parent_of
from bench.measure.counting.tally import Count
from bench.measure.counting.witnesses.testimony import Testimony

Word = Literal["agrees", "explained", "unexplained", "failed"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """`macs` by which the counter's products differ from ours, the modules it concerns, and why."""

    why: str
    macs: int
    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One counter beside us, for one clip in eval mode without gradients.

    `comparable` is the part of its `printed` figure that counts the same things as we do; `difference` is that part
    less `ours`, and `reasons` add up to it where the verdict is `explained`. `beyond` is the rest of the figure, by
    what it counts. A counter that `failed` has no figures.
    """

    tool: str
    version: str
    convention: str
    printed: int | float | None
    comparable: int | None
    ours: int
    difference: int | None
    verdict: Word
    reasons: tuple[Reason, ...] = ()
    beyond: Mapping[str, int]
    error: str | None = None

    @property
    def why(self) -> str:
        """The reasons in one line, the largest first."""
        if self.error is not None:
            return self.error
        parts = [f"{reason.macs:+,} {reason.why}, in {_listed(reason.modules)}" for reason in self.reasons]
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For records, in JSON."""
        return {**asdict(self), "why": self.why}


def judge(counted: Count, testimony: Testimony) -> Verdict:
    """Compare a complete count of ours with what a counter said of the same pass."""
    reasons = _reasons(counted, testimony)
    comparable = sum(line.products for line in testimony.lines)
    difference = comparable - counted.macs
    loose = any(reason.why == UNKNOWN for reason in reasons) or sum(r.macs for r in reasons) != difference
    does_not_add_up = sum(line.figure for line in testimony.lines) != testimony.printed
    word: Word = "explained" if reasons else "agrees"
    if loose or does_not_add_up:
        word = "unexplained"
    return Verdict(
        tool=testimony.tool,
        version=testimony.version,
        convention=testimony.convention,
        printed=testimony.printed,
        comparable=comparable,
        ours=counted.macs,
        difference=difference,
        verdict=word,
        reasons=reasons,
        beyond=_beyond(testimony),
        error="its parts do not add up to what it prints" if does_not_add_up else None,
    )


def failed(tool: str, version: str, *, ours: int, error: str) -> Verdict:
    """The verdict on a counter that gave no figure: not zero, but nothing."""
    return Verdict(
        tool=tool,
        version=version,
        convention="",
        printed=None,
        comparable=None,
        ours=ours,
        difference=None,
        verdict="failed",
        beyond={},
        error=error,
    )


UNKNOWN = "nobody knows why"


def _reasons(counted: Count, testimony: Testimony) -> tuple[Reason, ...]:
    """Why products differ: what the counter counts wrongly, and what of ours it never saw."""
    found: dict[str, tuple[int, set[str]]] = {}

    def add(why: str, macs: int, module: str) -> None:
        before, modules = found.get(why, (0, set()))
        found[why] = (before + macs, modules | {module})

    for line in testimony.lines:
        if line.products != line.true_products:
            add(line.cause or UNKNOWN, line.products - line.true_products, line.module)
    for module, macs, why in _unseen(counted, testimony):
        add(why, -macs, module)
    reasons = [Reason(why=why, macs=macs, modules=tuple(sorted(modules))) for why, (macs, modules) in found.items()]
    return tuple(sorted((r for r in reasons if r.macs or r.why == UNKNOWN), key=lambda reason: -abs(reason.macs)))


def _unseen(counted: Count, testimony: Testimony) -> list[tuple[str, int, str]]:
    """Products of ours that a module's lines do not hold: module, how many, and why.

    What the two sides credit to different modules cancels in the closest module that holds both; only a module's own
    products are ever excused by its blindness. What is left at the root is left over.
    """
    own = _residuals(counted, testimony)
    carried = dict.fromkeys([*own, ROOT], 0)
    unseen = []
    for module in sorted(own, key=lambda path: -len(path.split(".")) if path else 1):
        if own[module] + carried.get(module, 0) == 0:
            continue
        rest = own[module] + carried.get(module, 0)
        if own[module] > 0 and module in testimony.blind:
            unseen.append((module, own[module], testimony.blind[module]))
            rest = carried.get(module, 0)
        if module == ROOT:
            if rest:
                unseen.append((ROOT, rest, UNKNOWN))
        else:
            carried[parent_of(module)] = carried.get(parent_of(module), 0) + rest
    return unseen


def _residuals(counted: Count, testimony: Testimony) -> dict[str, int]:
    """Our products less the true products of the counter's lines, for every module and all that holds one."""
    own: dict[str, int] = {ROOT: 0}
    for row in counted.rows:
        module = testimony.aliases.get(row.module, row.module)
        own[module] = own.get(module, 0) + row.macs
    for line in testimony.lines:
        module = testimony.aliases.get(line.module, line.module)
        own[module] = own.get(module, 0) - line.true_products
    for module in list(own):
        while module != ROOT:
            module = parent_of(module)
            own.setdefault(module, 0)
    return own


def _beyond(testimony: Testimony) -> dict[str, int]:
    beyond: dict[str, int] = {}
    for line in testimony.lines:
        if line.figure != line.products:
            beyond[line.counted] = beyond.get(line.counted, 0) + line.figure - line.products
    return dict(sorted(beyond.items(), key=lambda item: -item[1]))


def _listed(modules: tuple[str, ...]) -> str:
    names = [module or "the model itself" for module in modules[:3]]
    more = len(modules) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
