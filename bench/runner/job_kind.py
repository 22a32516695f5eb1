"""What a case needs of the job that runs it. Cases of one kind share jobs; each kind is submitted by itself."""

import re
from dataclasses import dataclass, field

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.core.registry import MEASURES
from bench.core.schema import Case
from bench.runner.idle import is_timed_case

FORM = re.compile(r"(?P<timing>timed|untimed)(?:,ranks=(?P<ranks>\d+),nodes=(?P<nodes>\d+))?")


@dataclass(frozen=True, order=True, kw_only=True)
class JobKind:
    """Timed cases need their node to themselves; `layout` says how many ranks share a case, and on how many nodes."""

    is_timed: bool = False
    layout: RankLayout = field(default_factory=RankLayout)

    @classmethod
    def of(cls, case: Case) -> "JobKind":
        return cls(is_timed=is_timed_case(case), layout=rank_layout(case))

    @classmethod
    def from_text(cls, text: str) -> "JobKind":
        """Parse what `str` returns: `timed`, or `untimed,ranks=8,nodes=2`. Raises InputError for another form."""
        found = FORM.fullmatch(text)
        if found is None:
            raise InputError(f"--kind {text!r} is not a kind of job, such as timed or untimed,ranks=8,nodes=2")
        layout = RankLayout(ranks=int(found["ranks"]), nodes=int(found["nodes"])) if found["ranks"] else RankLayout()
        return cls(is_timed=found["timing"] == "timed", layout=layout)

    def __str__(self) -> str:
        layout = "" if self.layout == RankLayout() else f",ranks={self.layout.ranks},nodes={self.layout.nodes}"
        return f"{'timed' if self.is_timed else 'untimed'}{layout}"


def is_shared(case: Case) -> bool:
    """Whether several processes can take a measure of this case together; one that is not imported here cannot."""
    return any(name in MEASURES and MEASURES.get(name).is_shared for name in case.measures)


def rank_layout(case: Case) -> RankLayout:
    """Return how many ranks share the case: the largest layout that a shared measure asks for."""
    asked = [
        RankLayout.of(options)
        for name, options in case.measures.items()
        if name in MEASURES and MEASURES.get(name).is_shared
    ]
    return max(asked, default=RankLayout())
