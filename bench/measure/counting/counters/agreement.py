"""Whether a counter agrees with our count, and if not, exactly why: module by module, both sides add up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.measure.counting.counters.counter_report import CounterReport
from bench.measure.counting.model_count import Count
from bench.measure.counting.module_paths import ROOT, parent_of

Word = Literal["agrees", "explained", "unexplained", "failed"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """`macs` by which the counter's products differ from ours, the modules concerned, and why."""

    why: str
    macs: int
    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One counter compared with our count, for one clip in eval mode without gradients.

    `comparable` is the part of the `printed` number that counts the same things as we do; `difference` is that part
    minus `ours`, and `reasons` add up to it if the verdict is `explained`. `beyond` is the rest of the number, by what
    it counts. A counter that `failed` has no values.
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
        """The reasons in one line, largest first."""
        if self.error is not None:
            return self.error
        parts = [f"{reason.macs:+,} {reason.why}, in {_listed(reason.modules)}" for reason in self.reasons]
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For records, in JSON."""
        return {**asdict(self), "why": self.why}


def judge(counted: Count, report: CounterReport) -> Agreement:
    """Compare a complete count of ours with a counter report of the same pass."""
    reasons = _reasons(counted, report)
    comparable = sum(line.products for line in report.lines)
    difference = comparable - counted.macs
    loose = any(reason.why == UNKNOWN for reason in reasons) or sum(r.macs for r in reasons) != difference
    does_not_add_up = sum(line.value for line in report.lines) != report.printed
    word: Word = "explained" if reasons else "agrees"
    if loose or does_not_add_up:
        word = "unexplained"
    return Agreement(
        tool=report.tool,
        version=report.version,
        convention=report.convention,
        printed=report.printed,
        comparable=comparable,
        ours=counted.macs,
        difference=difference,
        verdict=word,
        reasons=reasons,
        beyond=_beyond(report),
        error="its parts do not add up to what it prints" if does_not_add_up else None,
    )


def failed(tool: str, version: str, *, ours: int, error: str) -> Agreement:
    """Return the result for a counter that printed nothing; its values are None, not 0."""
    return Agreement(
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


UNKNOWN = "for an unknown reason"


def _reasons(counted: Count, report: CounterReport) -> tuple[Reason, ...]:
    """Return why products differ: what the counter counts wrongly, and what it missed."""
    found: dict[str, tuple[int, set[str]]] = {}

    def add(why: str, macs: int, module: str) -> None:
        before, modules = found.get(why, (0, set()))
        found[why] = (before + macs, modules | {module})

    for line in report.lines:
        if line.products != line.true_products:
            add(line.cause or UNKNOWN, line.products - line.true_products, line.module)
    for module, macs, why in _unseen(counted, report):
        add(why, -macs, module)
    reasons = [Reason(why=why, macs=macs, modules=tuple(sorted(modules))) for why, (macs, modules) in found.items()]
    return tuple(sorted((r for r in reasons if r.macs or r.why == UNKNOWN), key=lambda reason: -abs(reason.macs)))


def _unseen(counted: Count, report: CounterReport) -> list[tuple[str, int, str]]:
    """Return the products that the counter's parts lack: module, how many, and why.

    Products that the two sides credit to different modules cancel in the closest common parent. A reason in `blind`
    explains only the module's own products. What remains at the root is unexplained.
    """
    own = _residuals(counted, report)
    carried = dict.fromkeys([*own, ROOT], 0)
    unseen = []
    for module in sorted(own, key=lambda path: -len(path.split(".")) if path else 1):
        if own[module] + carried.get(module, 0) == 0:
            continue
        rest = own[module] + carried.get(module, 0)
        if own[module] > 0 and module in report.blind:
            unseen.append((module, own[module], report.blind[module]))
            rest = carried.get(module, 0)
        if module == ROOT:
            if rest:
                unseen.append((ROOT, rest, UNKNOWN))
        else:
            carried[parent_of(module)] = carried.get(parent_of(module), 0) + rest
    return unseen


def _residuals(counted: Count, report: CounterReport) -> dict[str, int]:
    """Return our products minus the true products of the counter's parts, for every module and its parents."""
    own: dict[str, int] = {ROOT: 0}
    for row in counted.rows:
        module = report.aliases.get(row.module, row.module)
        own[module] = own.get(module, 0) + row.macs
    for line in report.lines:
        module = report.aliases.get(line.module, line.module)
        own[module] = own.get(module, 0) - line.true_products
    for module in list(own):
        while module != ROOT:
            module = parent_of(module)
            own.setdefault(module, 0)
    return own


def _beyond(report: CounterReport) -> dict[str, int]:
    beyond: dict[str, int] = {}
    for line in report.lines:
        if line.value != line.products:
            beyond[line.counted] = beyond.get(line.counted, 0) + line.value - line.products
    return dict(sorted(beyond.items(), key=lambda item: -item[1]))


def _listed(modules: tuple[str, ...]) -> str:
    names = [module or "the model itself" for module in modules[:3]]
    more = len(modules) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
