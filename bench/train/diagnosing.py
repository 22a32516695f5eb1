"""Why is an accuracy not the published one? Tries one change of the evaluation at a time, and keeps what helps most.

Every candidate is evaluated on the same videos as the evaluation in question, so that each difference is paired. The
videos are a stratified subset in an order by hash, evaluated in growing prefixes: a candidate that shows nothing on the
first one is dropped. Only on the whole subset is a cause tested, by McNemar's exact test at 5 % over all candidates of
the round and all sizes of the subset (Bonferroni), so that a correct evaluation is blamed at most once in twenty times.
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
import torch
from numpy.typing import NDArray
from torch import nn

from bench.core.errors import BenchError, InputError
from bench.core.input_protocol import InputProtocol
from bench.core.registry import DATASETS
from bench.core.stats import Estimate, mcnemar, paired_shares, wilson_interval
from bench.data.clip_batches import UnreadVideo, view_batches
from bench.data.collection import VideoSet, open_dataset
from bench.data.split_names import evaluated_split
from bench.models.base import inputs_of
from bench.models.weights.load_report import require_trained
from bench.train.calibration import expected_calibration_error
from bench.train.candidates import Candidate, Setting, candidates, renumbered
from bench.train.checkpointing import read_arrays, written_whole
from bench.train.evaluating import batch_outputs, in_evaluation_mode, ordered, over_views, state_hash, view_scores
from bench.train.inference import prepared
from bench.train.preprocessing import checkpoint_protocol, view_options, with_matching_classes
from bench.train.progress import ProgressClock, ProgressReport, silent
from bench.train.scoring import class_columns, find_relabelling

FIRST = 50  # videos after which a candidate without any gain is dropped
VIDEOS = 200
GROWTHS = 2  # the subset is doubled at most so often
SIGNIFICANT = 0.05
LEAST_GAIN = 0.02  # a smaller gain of top-1 explains no gap worth a search
ROUNDS = 5
# A model may raise any of these for a clip or a setting that it does not support; the candidate is then not possible.
UNFIT = (BenchError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


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


@dataclass
class Scorer:
    """Outputs of a model on prefixes of a video set, computed once for all settings that share a forward pass.

    With a `folder` they are stored there, so that a killed diagnosis repeats nothing.
    """

    model: nn.Module
    videos: VideoSet
    device: str
    batch: int = 16
    workers: int = 0
    folder: Path | None = None
    report: ProgressReport = silent
    forwards: int = 0
    unread: dict[int, UnreadVideo] = field(default_factory=dict)
    _outputs: dict[str, dict[int, NDArray[np.float32]]] = field(default_factory=lambda: defaultdict(dict))
    _identity: str = ""

    def __post_init__(self) -> None:
        ids = " ".join(video.id for video in self.videos.videos)
        self._identity = hashlib.sha256(f"{state_hash(self.model)} {self.videos.hash} {ids}".encode()).hexdigest()

    def scores(self, setting: Setting, first: int) -> NDArray[np.float32]:
        """`(first, classes)` scores of the first videos; NaN for one that cannot be read."""
        known = self._known(setting.forward_key)
        missing = [place for place in range(first) if place not in known and place not in self.unread]
        if missing:
            self._forward(setting, missing, known)
            self._save(setting.forward_key, known)
        width = next(iter(known.values())).shape[1] if known else len(self.videos.classes)
        scores = np.full((first, width), np.nan, dtype=np.float32)
        for place in range(first):
            if place in known:
                scores[place] = self._scored(known[place], setting)
        return scores

    def _scored(self, outputs_VC: NDArray[np.float32], setting: Setting) -> NDArray[np.float32]:
        """The scores of one video from the outputs of its views."""
        averaging, classes = setting.protocol.averaging or "softmax", setting.protocol.classes
        columns = None if classes is None else class_columns(classes, self.videos.classes)
        outputs = ordered(torch.from_numpy(outputs_VC), columns)
        if setting.relabelling is not None:
            outputs = ordered(outputs, np.argsort(setting.relabelling).tolist())
        by_view = view_scores(outputs, averaging=averaging).numpy()
        scores: NDArray[np.float32] = over_views(by_view[None], averaging=averaging)[0]
        return scores

    def _forward(self, setting: Setting, missing: Sequence[int], known: dict[int, NDArray[np.float32]]) -> None:
        wanted = set(missing)
        failed: list[UnreadVideo] = []
        batches = view_batches(
            self.videos,
            clip=setting.clip,
            inputs=inputs_of(self.model),
            views=setting.views,
            batch=self.batch,
            changes=(setting.change,),
            without=frozenset(range(len(self.videos))) - wanted,
            workers=self.workers,
            failures=failed,
            **view_options(setting.protocol, setting.clip),
        )
        with in_evaluation_mode(self.model), torch.inference_mode():
            for each in batches:
                outputs = batch_outputs(self.model, each, device=self.device, at_once=self.batch).cpu().numpy()
                by_video = outputs.reshape(len(each.videos), each.views, -1)
                known |= dict(zip(each.videos.tolist(), by_video, strict=True))
                self.forwards += len(outputs)
        self.unread |= {video.position: video for video in failed}

    def _file(self, key: str) -> Path | None:
        name = hashlib.sha256(f"{self._identity} {key}".encode()).hexdigest()[:16]
        return None if self.folder is None else self.folder / f"{name}.npz"

    def _known(self, key: str) -> dict[int, NDArray[np.float32]]:
        known, file = self._outputs[key], self._file(key)
        if not known and file is not None and (stored := read_arrays(file)):
            known |= dict(zip(stored["places"].tolist(), stored["outputs"], strict=True))
        return known

    def _save(self, key: str, known: dict[int, NDArray[np.float32]]) -> None:
        file = self._file(key)
        if file is None or not known:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        places = sorted(known)
        with written_whole(file) as part, part.open("wb") as opened:
            np.savez(opened, places=np.array(places), outputs=np.stack([known[place] for place in places]))


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
    scorer = Scorer(
        model=model, videos=subset, device=device, batch=batch, workers=workers, folder=folder, report=report
    )
    search = _Search(scorer=scorer, stored=stored or InputProtocol(), budget_s=budget_s, clock=clock)
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
        self, *, scorer: Scorer, stored: InputProtocol, budget_s: float | None, clock: Callable[[], float]
    ) -> None:
        self.scorer, self.stored, self.budget_s, self.clock = scorer, stored, budget_s, clock
        self.started, self.trials = clock(), list[Trial]()
        self.labels = np.array([video.labels[0] for video in scorer.videos.videos], dtype=np.int64)
        self.progress = ProgressClock()

    @property
    def is_over(self) -> bool:
        return self.budget_s is not None and self.clock() - self.started >= self.budget_s

    def run(self, start: Setting, *, number: int, available: int, published: float | None) -> Diagnosis:
        """Run rounds until nothing helps; the subset is doubled if a cause is likely but not yet significant."""
        setting, causes, growths, stopped = start, list[Cause](), 0, f"{ROUNDS} causes were found"
        self._right(start, number)  # an evaluation that is not possible is an error, not a candidate without gain
        while len(causes) < ROUNDS:
            if causes and published is not None and causes[-1].after.high >= published:
                stopped = "the published accuracy is reached"
                break
            cause, is_likely = self._round(setting, number, done={cause.candidate.topic for cause in causes})
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

    def _round(self, setting: Setting, number: int, *, done: set[str]) -> tuple[Cause | None, bool]:
        """Try every candidate once. Returns the cause, None if none is significant, and whether one is likely."""
        base = self._right(setting, number)
        found = candidates(setting, stored=self.stored, classes=self.scorer.videos.classes)
        found = [each for each in [*found, *self._renumbered(setting, number)] if each.topic not in done]
        trials: list[Trial] = []
        results: list[tuple[int, Candidate, Pair]] = []
        for place, candidate in enumerate(found):
            fraction = place / len(found)
            self.scorer.report(self.progress.progress(f"trying {candidate.topic}: {candidate.what}", fraction))
            trial, pair = self._try(candidate, base)
            trials.append(trial)
            if pair is not None:
                results.append((place, candidate, pair))
            if self.is_over:
                break
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
                before=_top1(base),
                after=_top1(pair.right),
                gain=pair.gain,
                p=self._corrected(pair, found),
                tried=len(found),
            )
        self.trials += trials
        return cause, is_likely

    def _try(self, candidate: Candidate, base: NDArray[np.int8]) -> "tuple[Trial, Pair | None]":
        """The trial of one candidate, and its pair with `base`; no pair if it was dropped early or is not possible."""
        trial = Trial(topic=candidate.topic, what=candidate.what, videos=0, gain=None, p=None, outcome="no gain")
        try:
            early = Pair.of(base[:FIRST], self._right(candidate.setting, min(FIRST, len(base))))
            is_dropped = early.won <= early.lost and len(base) > FIRST
            pair = early if is_dropped else Pair.of(base, self._right(candidate.setting, len(base)))
        except UNFIT as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            return replace(trial, outcome=f"not possible: {reason}"), None
        known = replace(trial, videos=pair.videos, gain=pair.gain, p=pair.p)
        return known, None if is_dropped else pair

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
        if not is_read.any():
            raise InputError(f"none of {number} videos gives finite scores")
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


def _top1(right: NDArray[np.int8]) -> Estimate:
    return wilson_interval(int((right == 1).sum()), int((right >= 0).sum()))


def _share(share: Estimate) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
