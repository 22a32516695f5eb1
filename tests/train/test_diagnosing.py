"""The search for causes, on a model whose outputs are made by hand: fast, and with known answers."""

from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip
from bench.data.collection import Video, VideoSet
from bench.train import diagnosing
from bench.train.candidates import Setting, candidates, zoo_normalisations
from bench.train.diagnosing import diagnose, stratified

MODEL = nn.Linear(1, 1)  # never called
CLASSES = ("a", "b", "c", "d")
START = Setting(
    protocol=InputProtocol.of({"channels": "rgb", "scale": 1, "mean": [0.45], "std": [0.225]}, mark="given"),
    clip=Clip.model_validate("16x2x112"),
)


def video_set(number=400):
    videos = tuple(Video(id=f"v{n}", path=f"v{n}.mp4", labels=(n % 4,)) for n in range(number))
    return VideoSet(name="made", split="val", classes=CLASSES, videos=videos, hash="h")


@pytest.fixture
def made(monkeypatch):
    """Replaces the forward pass: `accuracy(setting)` says which share of the videos a setting gets right."""

    def make(accuracy, *, seed=0):
        def forward(self, setting, missing, known):
            share = accuracy(setting)
            for place in missing:
                # One draw per video, so that settings of one accuracy are right on the same videos, but for a tenth.
                own = np.random.default_rng((seed, place))
                other = np.random.default_rng((seed, place, crc32(repr(setting.forward_key).encode())))
                draw = own.random() if other.random() < 0.9 else other.random()
                label = self.videos.videos[place].labels[0]
                guess = label if draw < share else (label + 1 + int(other.integers(3))) % 4
                known[place] = (4 * np.eye(4)[[guess]] + other.random((1, 4))).astype(np.float32)
                self.forwards += 1

        monkeypatch.setattr(diagnosing.Scorer, "_forward", forward)

    return make


def diagnosed(start=START, videos=None, **options):
    return diagnose(MODEL, videos or video_set(), start=start, **options)


def test_a_prefix_of_the_subset_has_the_classes_evenly_and_does_not_depend_on_their_order():
    videos = video_set(40)
    order = [video.id for video in stratified(videos)]
    assert order == [video.id for video in stratified(replace(videos, videos=videos.videos[::-1]))]
    labels = [int(id_[1:]) % 4 for id_ in order]
    assert all(sorted(labels[n : n + 4]) == [0, 1, 2, 3] for n in range(0, 40, 4))


def test_the_cause_is_found_and_the_suite_says_how_to_put_it_right(made):
    made(lambda setting: 0.8 if setting.protocol.channels == "bgr" else 0.3)
    found = diagnosed(published=0.81)
    (cause,) = found.causes
    assert cause.candidate.topic == "channel order"
    assert cause.p < 1e-6
    assert found.suite_lines == {"preprocess": {"channels": "bgr"}}
    assert any("no gap is left" in sentence for sentence in found.sentences())
    assert found.stopped_because == "the published accuracy is reached"


def test_two_causes_are_found_one_after_the_other(made):
    """The larger one first; neither alone explains the gap."""

    def accuracy(setting):
        return 0.2 + 0.4 * (setting.clip.stride == 4) + 0.25 * (setting.protocol.channels == "bgr")

    made(accuracy)
    found = diagnosed()
    assert [cause.candidate.topic for cause in found.causes] == ["stride", "channel order"]
    assert found.suite_lines == {"clip": "16x4x112", "preprocess": {"channels": "bgr"}}
    assert found.top1.value == pytest.approx(0.85, abs=0.08)


def test_what_two_candidates_explain_alike_is_put_down_to_the_simpler_one(made):
    made(lambda setting: 0.9 if setting.protocol.std[0] / (setting.protocol.scale or 1) < 0.01 else 0.25)
    found = diagnosed()
    assert found.causes[0].candidate.what == "scale 1 → 255"
    assert any(trial.outcome == "as good as the cause" for trial in found.trials)


def test_a_right_evaluation_is_blamed_at_most_once_in_twenty(made):
    alarms = 0
    for seed in range(40):
        made(lambda setting: 0.7, seed=seed)
        alarms += bool(diagnosed(videos=video_set(200)).causes)
    assert alarms <= 4  # of 40; a binomial of 0.05 exceeds 4 once in thirty


def test_a_candidate_without_any_gain_is_dropped_after_the_first_videos(made):
    made(lambda setting: 0.8 if setting == START else 0.3)
    found = diagnosed()
    assert {trial.videos for trial in found.trials if trial.gain is not None} == {diagnosing.FIRST}


def test_another_order_of_the_classes_is_found_without_a_forward_pass(made):
    """Outputs are those of a model whose classes are numbered in another order."""
    made(lambda setting: 0.8)
    start = START.with_parts(classes=("b", "c", "d", "a"))
    found = diagnosed(start=start)
    assert found.causes[0].candidate.topic == "class order"
    assert found.top1.value > 0.7
    assert "labels" in found.suite_lines


def test_unread_videos_are_left_out_and_counted(made, monkeypatch):
    made(lambda setting: 0.5)
    forward = diagnosing.Scorer._forward

    def failing(self, setting, missing, known):
        forward(self, setting, [place for place in missing if place % 10], known)
        self.unread |= {place: None for place in missing if not place % 10}

    monkeypatch.setattr(diagnosing.Scorer, "_forward", failing)
    found = diagnosed()
    assert (found.videos, found.unread) == (180, 20)
    assert any(sentence.startswith("20 videos could not be read") for sentence in found.sentences())


def test_top1_is_also_given_with_missing_videos_counted_as_wrong(made):
    made(lambda setting: 0.5)
    whole, part = (diagnosed(videos=replace(video_set(200), missing=missing)) for missing in ({}, {"gone": (0,)}))
    assert (whole.missing, part.missing) == (0, 1)
    assert not any("missing" in sentence for sentence in whole.sentences())
    counted = 100 * part.top1.value * 200 / 201
    assert (
        f"1 of 201 annotated videos are missing and left out here; counted as wrong, top-1 is {counted:.1f} %"
        in part.sentences()
    )


def test_a_setting_that_the_model_does_not_take_is_reported_and_passed_over(made, monkeypatch):
    made(lambda setting: 0.5)
    forward = diagnosing.Scorer._forward

    def picky(self, setting, missing, known):
        if setting.clip.frames != 16:
            raise RuntimeError("shape mismatch\nmore")
        forward(self, setting, missing, known)

    monkeypatch.setattr(diagnosing.Scorer, "_forward", picky)
    outcomes = {trial.outcome for trial in diagnosed().trials if trial.topic == "clip length"}
    assert outcomes == {"not possible: shape mismatch"}


def test_a_killed_diagnosis_repeats_nothing(made, tmp_path):
    made(lambda setting: 0.8 if setting.protocol.channels == "bgr" else 0.3)
    first = diagnosed(folder=tmp_path)
    made(lambda setting: pytest.fail("a forward pass was repeated"))
    again = diagnosed(folder=tmp_path)
    assert [cause.candidate for cause in again.causes] == [cause.candidate for cause in first.causes]


def test_a_budget_ends_the_search(made):
    made(lambda setting: 0.5)
    times = iter(range(0, 10_000, 60))
    found = diagnosed(budget_s=200, clock=lambda: next(times))
    assert found.stopped_because == "the budget of 200 s is over"
    assert len(found.trials) < 10


def test_candidates_change_one_thing_and_are_all_different():
    found = candidates(START, stored=InputProtocol(), classes=CLASSES)
    assert len(
        {(each.setting.forward_key, each.setting.averaging, each.setting.protocol.classes) for each in found}
    ) == len(found)
    assert all(each.setting != START for each in found)
    topics = {each.topic for each in found}
    assert {
        "channel order",
        "value range",
        "mean and deviation",
        "size of the frames",
        "stride",
        "clip length",
    } <= topics
    assert {"filter of the scaling", "sampling", "views", "JPEG frames", "place of the crop"} <= topics


def test_averages_are_candidates_only_if_there_are_several_views():
    topics = lambda start: {each.topic for each in candidates(start, stored=InputProtocol(), classes=CLASSES)}  # noqa: E731
    assert "averaging" not in topics(START)
    assert "averaging" in topics(replace(START, views=(3, 1)))


def test_every_zoo_is_among_the_normalisations():
    known = [tuple(round(value, 2) for value in (mean[0], std[0])) for mean, std in zoo_normalisations()]
    assert {(0.43, 0.23), (0.45, 0.23), (0.48, 0.23), (0.5, 0.5)} <= set(known)


def test_videos_with_several_labels_are_refused():
    videos = replace(video_set(8), is_multi_label=True)
    with pytest.raises(InputError, match="needs one label for each video"):
        diagnosed(videos=videos)
