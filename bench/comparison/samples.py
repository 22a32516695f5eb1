"""One metric in the runs of one side of a comparison: what is known of it, and what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.comparison.judging import metric_values
from bench.comparison.neighbours import values_beside
from bench.comparison.sides import Run
from bench.core.schema import Metric
from bench.core.units import plural


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The runs that know a metric, and how many throttled ones were left out of them."""

    known: tuple[tuple[Run, Metric], ...]
    named: Metric | None
    throttled: int

    @classmethod
    def of(cls, runs: Sequence[Run], key: str) -> "Sample":
        found = [(run, metric) for run in runs if (metric := run.record.metric(key)) is not None]
        known = [(run, metric) for run, metric in found if metric_values([metric])]
        steady = [each for each in known if each[0].record.status != "throttled" or not each[1].is_of_machine]
        named = next((metric for _, metric in [*steady, *known, *found]), None)
        return cls(known=tuple(steady), named=named, throttled=len(known) - len(steady))

    @property
    def values(self) -> list[float]:
        return metric_values([metric for _, metric in self.known])

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """Operators, and how often they are called, that a count leaves out; sorted."""
        found = {each for run, metric in self.known for each in run.record.left_out_of(metric).items()}
        return sorted(found)

    @property
    def why_unknown(self) -> str:
        """What is said after "unknown in base": nothing where nothing explains it."""
        if self.throttled:
            return f": {plural(self.throttled, 'run')} throttled; cool the device or lower its clocks, and run again"
        if self.named is None:
            return ": not measured there"
        return f": {self.named.note}" if self.named.note else ""

    def beside(self, other: "Sample") -> list[tuple[float, float]]:
        """Values of runs with one index on both sides: neighbours in time, where runs were taken in turns."""
        own, others = ({run.record.run_index: m for run, m in side.known} for side in (self, other))
        return [values_beside(own[index], others[index]) for index in sorted(own.keys() & others.keys())]


def remark(base: Sample, head: Sample) -> str:
    """What explains that runs are few: those left out, else what the measure noted."""
    throttled = base.throttled + head.throttled
    if throttled:
        return f"{plural(throttled, 'throttled run')} left out"
    notes = [sample.named.note for sample in (base, head) if sample.named is not None and sample.named.note]
    return notes[0] if notes else ""
