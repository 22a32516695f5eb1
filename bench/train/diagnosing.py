"""Why is an accuracy not the published one? Tries one change of the evaluation at a time, and keeps what helps most.

Every candidate is evaluated on the same videos as the evaluation in question, so that each difference is paired. The
videos are a stratified subset in an order by hash, evaluated in growing prefixes: a candidate whose gain is clearly
less than the subset could show is dropped. Only on the whole subset is a cause tested, by McNemar's exact test at 5 %
over all candidates of the round and all sizes of the subset (Bonferroni), so that a correct evaluation is blamed at
most once in twenty times.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.core.registry import DATASETS
from bench.core.stats import Estimate, mcnemar, paired_shares, wilson_interval
from bench.core.units import format_signed
from bench.data.collection import VideoSet, open_dataset
from bench.data.split_names import evaluated_split
from bench.models.weights.load_report import require_trained
from bench.train.calibration import expected_calibration_error
from bench.train.candidates import Candidate, Setting, candidates, renumbered
from bench.train.inference import prepared
from bench.train.preprocessing import checkpoint_protocol, with_matching_classes
from bench.train.progress import ProgressClock, ProgressReport, silent
from bench.train.scoring import find_relabelling
from bench.train.setting_scores import UNFIT, Scorer

FIRST = 25  # videos after which candidates are first dropped
VIDEOS = 200
LEAST_WINS = 16  # net wins on the whole subset; fewer are hardly ever significant after the correction
GROWTHS = 2  # the subset is doubled at most so often
SIGNIFICANT = 0.05
LEAST_GAIN = 0.02  # a smaller gain of top-1 explains no gap worth a search
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate of one round: on how many videos it was tried, its paired gain, and McNemar's p, uncorrected.

    `outcome` is `cause`, `as good as the cause`, `less than the cause`, `no gain`, or why it could not be tried.
    """

    topic: str
    what: str
    videos: int
    gain: Estimate | None
    p: float | None
    outcome: str


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A candidate that was kept: top-1 before and after, and p corrected for all candidates of its round."""

    candidate: Candidate
    before: Estimate
    after: Estimate
    gain: Estimate
    p: float
    tried: int


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What explains an accuracy. Shares are fractions of 1 over `videos` of the `available` ones.

    `missing` videos are annotated and not there, `unread` ones cannot be read; neither are in the shares.
    """

    videos: int
    available: int
    unread: int
    missing: int
    start: Setting
    start_top1: Estimate
    causes: tuple[Cause, ...]
    trials: tuple[Trial, ...]
    published: float | None
    calibration: dict[str, float]
    seconds: float
    stopped_because: str

    @property
    def top1(self) -> Estimate:
        """Top-1 with every cause corrected."""
        return self.causes[-1].after if self.causes else self.start_top1

    @property
    def suite_lines(self) -> dict[str, Any]:
        """The keys of a suite that evaluates as in the last round."""
        lines: dict[str, Any] = {}
        for cause in self.causes:
            for key, value in cause.candidate.lines.items():
                before = lines.get(key)
                lines[key] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value
        return lines

    def sentences(self) -> list[str]:
        """The result in words: the accuracy, each cause and how sure it is, and what stays unexplained."""
        found = [f"top-1 as evaluated: {_share(self.start_top1)} on {self.videos} of {self.available} videos"]
        for number, cause in enumerate(self.causes, start=1):
            place = "cause" if number == 1 else f"cause {number}"
            found.append(
                f"{place}: {cause.candidate.topic}: {cause.candidate.what}: {_points(cause.gain)} of top-1, to "
                f"{_share(cause.after)} (p {cause.p:.2g}, corrected for {cause.tried} candidates)"
            )
        if not self.causes:
            found.append(
                f"no cause found among {len(self.trials)} candidates: nothing here raises top-1 by more than chance"
            )
        if self.unread:
            worse = self.top1.value * self.videos / (self.videos + self.unread)
            found.append(
                f"{self.unread} videos could not be read and are left out here; counted as wrong, top-1 is "
                f"{100 * worse:.1f} %"
            )
        if self.missing:
            annotated = self.available + self.missing
            found.append(
                f"{self.missing} of {annotated} annotated videos are missing and left out here; counted as wrong, "
                f"top-1 is {100 * self.top1.value * self.available / annotated:.1f} %"
            )
        if self.published is not None:
            found.append(self._gap_sentence(self.published))
        if len(self.calibration) > 1:
            best = min(self.calibration, key=lambda name: self.calibration[name])
            errors = ", ".join(f"{name} {100 * error:.1f} %" for name, error in self.calibration.items())
            found.append(
                f"with one view, averaging cannot change top-1; by expected calibration error the outputs fit {best} "
                f"best ({errors})"
            )
        found.append(f"stopped because {self.stopped_because}")
        return found

    def _gap_sentence(self, published: float) -> str:
        gap, left = published - self.start_top1.value, published - self.top1.value
        if gap <= 0:
            return f"the published top-1 of {100 * published:.1f} % is not above the one measured"
        if self.top1.low <= published <= self.top1.high:
            return (
                f"the published top-1 of {100 * published:.1f} % is within the interval of the last one: no gap is left"
            )
        explained = 100 * (self.top1.value - self.start_top1.value)
        return (
            f"of the gap of {100 * gap:.1f} points to the published {100 * published:.1f} %, {explained:.1f} are "
            f"explained and {100 * left:.1f} are not"
        )


def diagnose(
    model: nn.Module,
    videos: VideoSet,
    *,
    start: Setting,
    stored: InputProtocol | None = None,
    published: float | None = None,
    number: int = VIDEOS,
    budget_s: float | None = None,
    device: str = "cpu",
    batch: int = 16,
    workers: int = 0,
    folder: Path | None = None,
    report: ProgressReport = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Diagnosis:
    """Find what explains the accuracy of `model` on `videos`, evaluated as `start` says.

    `stored` is the protocol of the checkpoint, `published` the top-1 to explain, as a fraction of 1. The subset begins
    with `number` videos and is doubled while a cause is likely but not yet significant, until all videos are used or
    `budget_s` is over. Raises InputError for videos without one label each, and every error of the evaluation in
    question.
    """
    if videos.is_multi_label or any(len(video.labels) != 1 for video in videos.videos):
        raise InputError(f"a diagnosis needs one label for each video; {videos.name} {videos.split} has others")
    subset = replace(videos, videos=tuple(stratified(videos)))
    scorer = Scorer(model=model, videos=subset, device=device, batch=batch, workers=workers, folder=folder)
    search = _Search(scorer=scorer, stored=stored or InputProtocol(), budget_s=budget_s, report=report, clock=clock)
    return search.run(start, number=min(number, len(subset)), available=len(videos), published=published)


def diagnose_weights(
    model: str,
    dataset: str,
    *,
    weights: str | PathLike[str] | None,
    entry: str | None = None,
    clip: str | None = None,
    root: Path | None = None,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    views: str = "1x1",
    given: InputProtocol | None = None,
    arguments: Mapping[str, Any] | None = None,
    **search: Any,
) -> Diagnosis:
    """Diagnose the evaluation that `vbench eval` would do with the same arguments; `search` goes to `diagnose`."""
    name = evaluated_split(split, known=DATASETS.get(dataset).splits, dataset=dataset)
    videos = open_dataset(dataset, root=root, split=name, **(options or {}))
    built, settings = prepared(
        model, weights=weights, entry=entry, clip=clip, views=views, given=given, arguments=arguments or {}
    )
    require_trained(built)
    start = Setting(
        protocol=with_matching_classes(settings.protocol_of(built), videos), clip=settings.clip, views=settings.views
    )
    outputs = built.__dict__["weights_report"].file_classes
    if start.protocol.classes is None and outputs not in (None, len(videos.classes)):
        raise InputError(
            f"the model has {outputs} classes and {videos.name} has {len(videos.classes)}, and the names of its "
            "outputs are unknown; give them: --labels FILE, one name a line"
        )
    stored = checkpoint_protocol(built)
    return diagnose(built, videos, start=start, stored=stored, device=str(settings.device), **search)


def stratified(videos: VideoSet) -> Iterator[Any]:
    """The videos in an order by the hash of their ids in which every prefix has the classes as evenly as possible."""
    by_class: dict[int, list[Any]] = defaultdict(list)
    for video in sorted(videos.videos, key=lambda video: hashlib.sha256(video.id.encode("utf-8", "replace")).digest()):
        by_class[video.labels[0]].append(video)
    for turn in range(max(map(len, by_class.values()), default=0)):
        yield from (by_class[label][turn] for label in sorted(by_class) if turn < len(by_class[label]))


class _Search:
    """The greedy search of one diagnosis."""

    def __init__(
        self,
        *,
        scorer: Scorer,
        stored: InputProtocol,
        budget_s: float | None,
        report: ProgressReport,
        clock: Callable[[], float],
    ) -> None:
        self.scorer, self.stored, self.budget_s, self.report, self.clock = scorer, stored, budget_s, report, clock
        self.started, self.trials = clock(), list[Trial]()
        self.labels = np.array([video.labels[0] for video in scorer.videos.videos], dtype=np.int64)

    @property
    def is_over(self) -> bool:
        return self.budget_s is not None and self.clock() - self.started >= self.budget_s

    def run(self, start: Setting, *, number: int, available: int, published: float | None) -> Diagnosis:
        """Run rounds until nothing helps; the subset is doubled if a cause is likely but not yet significant."""
        setting, causes, growths, stopped = start, list[Cause](), 0, f"{ROUNDS} causes were found"
        self.scorer.scores(start, 1)  # an evaluation that is not possible is an error, not a candidate without gain
        evaluated = 0  # videos on which the evaluation in question is known
        while len(causes) < ROUNDS:
            if causes and published is not None and causes[-1].after.high >= published:
                stopped = "the published accuracy is reached"
                break
            done = {cause.candidate.topic for cause in causes}
            cause, is_likely, reached = self._round(setting, number, done=done)
            evaluated = max(evaluated, reached)
            if cause is not None:
                causes.append(cause)
                setting = cause.candidate.setting
            elif is_likely and growths < GROWTHS and number < available and not self.is_over:
                growths, number = growths + 1, min(2 * number, available)
            else:
                stopped = "nothing else helps"
            if self.is_over:
                stopped = f"the budget of {self.budget_s:g} s is over"
            if self.is_over or stopped == "nothing else helps":
                break
        number = min(number, evaluated or FIRST)
        right = self._right(start, number)
        return Diagnosis(
            videos=int((right >= 0).sum()),
            available=available,
            unread=int((right < 0).sum()),
            missing=len(self.scorer.videos.missing),
            start=start,
            start_top1=_top1(right),
            causes=tuple(causes),
            trials=tuple(self.trials),
            published=published,
            calibration=self._calibration(setting, number),
            seconds=self.clock() - self.started,
            stopped_because=stopped,
        )

    def _round(self, setting: Setting, number: int, *, done: set[str]) -> tuple[Cause | None, bool, int]:
        """Try every candidate once.

        Returns the cause, None if none is significant; whether one is likely; and on how many videos they were tried.
        """
        found = candidates(setting, stored=self.stored, classes=self.scorer.videos.classes)
        found = [each for each in found if each.topic not in done]
        race = self._race(setting, found, number)
        if not race.videos:
            return None, False, 0
        for each in self._renumbered(setting, race.videos):
            if each.topic not in done:
                race.pairs[len(found)] = Pair.of(race.base, self._right(each.setting, race.videos))
                race.finalists.append(len(found))
                found.append(each)
        trials = [_trial(each, race, place) for place, each in enumerate(found)]
        results = [(place, found[place], race.pairs[place]) for place in race.finalists]
        sure = [
            each
            for each in results
            if each[2].gain.value >= LEAST_GAIN and self._corrected(each[2], found) < SIGNIFICANT
        ]
        is_likely = any(pair.gain.value >= LEAST_GAIN and pair.p < SIGNIFICANT for _, _, pair in results)
        cause = None
        if sure:
            place, candidate, pair = self._simplest_of_best(sure)
            for other, _, tested in results:
                if tested.won > tested.lost:
                    trials[other] = replace(trials[other], outcome="less than the cause")
            for other, _, _ in self._as_good(sure, pair):
                trials[other] = replace(trials[other], outcome="as good as the cause")
            trials[place] = replace(trials[place], outcome="cause")
            cause = Cause(
                candidate=candidate,
                before=_top1(race.base),
                after=_top1(pair.right),
                gain=pair.gain,
                p=self._corrected(pair, found),
                tried=len(found),
            )
        self.trials += trials
        return cause, is_likely, race.videos

    def _race(self, setting: Setting, found: Sequence[Candidate], number: int) -> "Race":
        """Try candidates on growing prefixes; one whose gain is clearly too small is tried no further."""
        sought = max(LEAST_GAIN, LEAST_WINS / number)
        race = Race(base=np.zeros(0, dtype=np.int8), finalists=list(range(len(found))))
        progress, left = ProgressClock(), (len(found) + 1) * number
        for size in prefixes(number):
            alive = race.finalists
            what = f"trying {len(alive)} candidates on {size} of {number} videos"

            def on_chunk(pairs: int, clips: int, what: str = what) -> bool:
                nonlocal left
                left -= pairs
                if progress.count(clips):
                    self.report(progress.progress(what, 1 - max(0, left) / ((len(found) + 1) * number)))
                return not self.is_over

            settings = [setting, *(found[place].setting for place in alive)]
            if not self.scorer.extend(settings, size, on_chunk=on_chunk):
                break  # the budget is over; what all have been tried on counts
            race.base, race.videos = self._right(setting, size), size
            if not (race.base >= 0).any():
                self._require_scores(setting, number)
            for place in alive:
                try:
                    race.pairs[place] = Pair.of(race.base, self._right(found[place].setting, size))
                except UNFIT as error:
                    race.errors[place] = error
            possible = [place for place in alive if place not in race.errors]
            race.finalists = [place for place in possible if size == number or race.pairs[place].gain.high >= sought]
            left = (len(race.finalists) + 1) * (number - size)
        return race

    def _require_scores(self, setting: Setting, number: int) -> None:
        """Raise InputError if none of the first `number` videos has scores."""
        if not (self._right(setting, number) >= 0).any():
            raise InputError(f"none of {number} videos gives finite scores")

    def _simplest_of_best(self, sure: "list[tuple[int, Candidate, Pair]]") -> "tuple[int, Candidate, Pair]":
        """Of the candidates that are as good as the best one, that which changes least."""
        best = max(sure, key=lambda each: each[2].gain.value)
        return min(self._as_good(sure, best[2]), key=lambda each: (each[1].parts, -each[2].gain.value))

    def _as_good(self, sure: "list[tuple[int, Candidate, Pair]]", best: "Pair") -> "list[tuple[int, Candidate, Pair]]":
        return [each for each in sure if Pair.of(best.right, each[2].right).p >= SIGNIFICANT]

    def _corrected(self, pair: "Pair", found: Sequence[Candidate]) -> float:
        """p over all candidates of the round and all sizes that the subset may have."""
        return min(1.0, pair.p * len(found) * (GROWTHS + 1))

    def _right(self, setting: Setting, number: int) -> NDArray[np.int8]:
        """1 for each video that is right, 0 for a wrong one, -1 for one that cannot be read."""
        scores = self.scorer.scores(setting, number)
        is_read = np.isfinite(scores).all(axis=1)
        predicted = np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=1)
        right: NDArray[np.int8] = np.where(is_read, predicted == self.labels[:number], -1).astype(np.int8)
        return right

    def _renumbered(self, setting: Setting, number: int) -> Iterator[Candidate]:
        """Yield the order of classes that fits the outputs far better, found on one half and tested on the other."""
        scores = self.scorer.scores(setting, number)
        is_read = np.isfinite(scores).all(axis=1)
        found = find_relabelling(scores[is_read], self.labels[:number][is_read])
        if found is not None and setting.relabelling is None:
            yield renumbered(setting, found.mapping, classes=self.scorer.videos.classes)

    def _calibration(self, setting: Setting, number: int) -> dict[str, float]:
        """Expected calibration error of the outputs as softmax and as sigmoid, which one view cannot tell by top-1."""
        if setting.views != (1, 1):
            return {}
        errors = {}
        for averaging in ("softmax", "sigmoid"):
            scores = self.scorer.scores(setting.with_parts(averaging=averaging), number)
            is_read = np.isfinite(scores).all(axis=1)
            right = scores[is_read].argmax(axis=1) == self.labels[:number][is_read]
            errors[averaging] = expected_calibration_error(scores[is_read].max(axis=1), right)
        return errors


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A candidate against the evaluation in question, on the videos that both could read."""

    right: NDArray[np.int8]
    won: int
    lost: int
    videos: int

    @classmethod
    def of(cls, base: NDArray[np.int8], right: NDArray[np.int8]) -> "Pair":
        """Count the videos that only one of both gets right."""
        is_read = (base >= 0) & (right >= 0)
        won, lost = int(((base == 0) & (right == 1)).sum()), int(((base == 1) & (right == 0)).sum())
        return cls(right=right, won=won, lost=lost, videos=int(is_read.sum()))

    @property
    def gain(self) -> Estimate:
        return paired_shares(self.won, self.lost, max(1, self.videos))

    @property
    def p(self) -> float:
        return mcnemar(self.won, self.lost)


@dataclass
class Race:
    """Candidates, by their places, tried on the first `videos` videos against the evaluation in question.

    `pairs` has the last pair of each candidate, `errors` those that are not possible; `finalists` were not dropped.
    """

    base: NDArray[np.int8]
    finalists: list[int]
    videos: int = 0
    pairs: dict[int, "Pair"] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)


def prefixes(number: int) -> Iterator[int]:
    """Numbers of videos after which candidates are dropped: FIRST, doubled until it is `number`."""
    size = FIRST
    while size < number:
        yield size
        size *= 2
    yield number


def _trial(candidate: Candidate, race: Race, place: int) -> Trial:
    trial = Trial(topic=candidate.topic, what=candidate.what, videos=0, gain=None, p=None, outcome="no gain")
    if place in race.errors:
        error = race.errors[place]
        reason = str(error).partition("\n")[0] or type(error).__name__
        return replace(trial, outcome=f"not possible: {reason}")
    pair = race.pairs[place]
    return replace(trial, videos=pair.videos, gain=pair.gain, p=pair.p)


def _top1(right: NDArray[np.int8]) -> Estimate:
    return wilson_interval(int((right == 1).sum()), int((right >= 0).sum()))


def _share(share: Estimate) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _points(gain: Estimate) -> str:
    value, low, high = (format_signed(100 * each, 1) for each in (gain.value, gain.low, gain.high))
    return f"{value} points ({low} to {high})"
