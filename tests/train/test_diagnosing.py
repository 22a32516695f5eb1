"""The search for causes, on a model whose outputs are made by hand: fast, and with known answers."""

from dataclasses import replace
from zlib import crc32

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from bench.core.errors import InputError, VideoError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip
from bench.data.collection import Video, VideoSet
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.train import diagnosing, setting_scores
from bench.train.candidates import Setting, candidates, zoo_normalisations
from bench.train.diagnosing import diagnose, stratified
from bench.train.evaluating import evaluate_changes

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
        def outputs_of(setting, place):
            # One draw per video, so that settings of one accuracy are right on the same videos, but for a tenth.
            own = np.random.default_rng((seed, place))
            other = np.random.default_rng((seed, place, crc32(repr(setting.forward_key).encode())))
            draw = own.random() if other.random() < 0.9 else other.random()
            label = place % 4  # of the stratified subset
            guess = label if draw < accuracy(setting) else (label + 1 + int(other.integers(3))) % 4
            return (4 * np.eye(4)[[guess]] + other.random((1, 4))).astype(np.float32)

        def computed(self, settings, places):
            for start in range(0, len(places), self.batch):
                chunk = places[start : start + self.batch]
                found = {}
                for setting in settings:
                    try:
                        found[setting.forward_key] = {place: outputs_of(setting, place) for place in chunk}
                    except RuntimeError as error:
                        self.impossible[setting.forward_key] = error
                yield found

        monkeypatch.setattr(setting_scores.Scorer, "_computed", computed)

    return make


class Tiny(nn.Module):
    """Means of each channel over a clip's first and second half, through a layer with fixed weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-3, 3, 24).view(4, 6).sin())

    def forward(self, clip_BCTHW):
        halves = clip_BCTHW.mean(dim=(3, 4)).unflatten(2, (2, -1)).mean(3)
        return self.layer(halves.flatten(1))


@pytest.fixture
def films(tmp_path):
    random = np.random.default_rng(0)
    for number in range(6):
        write_mp4(
            tmp_path / f"{number}.mp4",
            random.integers(0, 256, (12, 16, 16 + 2 * number, 3), dtype=np.uint8),
            fps=8,
            options=HISTORY_FREE,
        )
    videos = tuple(Video(id=f"{n}", path=tmp_path / f"{n}.mp4", labels=(n % 4,)) for n in range(6))
    return VideoSet(name="films", split="val", classes=CLASSES, videos=videos, hash="h")


def test_scores_of_settings_computed_together_are_those_of_an_evaluation_of_each(films):
    start = replace(START, clip=Clip.model_validate("4x2x16"))
    scorer = setting_scores.Scorer(model=Tiny(), videos=films, device="cpu", batch=4)
    settings = [start, *(each.setting for each in candidates(start, stored=InputProtocol(), classes=CLASSES))]
    scorer.extend(settings, 6)
    forwards = scorer.forwards
    for setting in settings:
        if setting.forward_key in scorer.impossible:
            continue  # torchcodec, where FFmpeg's libraries are missing
        (found,) = evaluate_changes(
            Tiny(),
            films,
            changes=(setting.change,),
            clip=setting.clip,
            views=setting.views,
            protocol=setting.protocol,
        ).values()
        np.testing.assert_allclose(scorer.scores(setting, 6), found.scores, atol=1e-5, err_msg=str(setting))
    assert scorer.forwards == forwards


@pytest.mark.slow
def test_worker_processes_give_the_outputs_of_this_process(films):
    """As `diagnose --workers 2` starts them. One file is no video: its error comes back from the worker."""
    films.videos[5].path.write_bytes(b"no video")
    start = replace(START, clip=Clip.model_validate("4x2x16"))
    settings = [start, replace(start, views=(1, 3)), replace(start, protocol=start.with_parts(channels="bgr").protocol)]
    processes = set()

    def note_processes(_pairs, _clips):
        processes.update(child.pid for child in psutil.Process().children())
        return True

    found = {}
    for workers in (0, 2):
        scorer = setting_scores.Scorer(model=Tiny(), videos=films, device="cpu", batch=2, workers=workers)
        scorer.extend(settings, 6, on_chunk=note_processes)
        assert len(processes) >= workers
        found[workers] = [scorer.scores(setting, 6) for setting in settings]
    for alone, together in zip(found[0], found[2], strict=True):
        np.testing.assert_allclose(alone, together, atol=1e-6)
        assert np.isnan(together[5]).all()
        assert not np.isnan(together[:5]).any()


def test_a_view_with_the_same_values_is_not_computed_again(films):
    """Video 0 is square: its three crops are one. The others differ in width, by 1, 2, 3, 4 and 5 columns a side."""
    scorer = setting_scores.Scorer(model=Tiny(), videos=films, device="cpu")
    start = replace(START, clip=Clip.model_validate("4x2x16"))
    alike = replace(start, protocol=start.with_parts(interpolation="bicubic", crop_rounding="ceil").protocol)
    scorer.extend([start, alike], 6)
    assert scorer.forwards == 6
    scorer.extend([replace(start, views=(1, 3))], 6)
    assert scorer.forwards == 6 + 2 * 5


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


def test_a_wrong_range_is_not_put_down_to_a_mean_and_deviation_that_is_luckier_on_a_few_videos(made):
    """With values up to 255, dividing by 1 instead of 0.225 already helps; a scale changes one part, a mean two."""

    def accuracy(setting):
        lucky = setting.protocol.scale == 255 and setting.protocol.std == (1.0, 1.0, 1.0)
        return 0.82 if lucky else 0.8 if (setting.protocol.scale or 1) == 1 else 0.2

    made(accuracy)
    assert diagnosed(start=START.with_parts(scale=255)).causes[0].candidate.topic == "value range"


def test_a_right_evaluation_is_blamed_at_most_once_in_twenty(made):
    alarms = 0
    for seed in range(40):
        made(lambda setting: 0.7, seed=seed)
        alarms += bool(diagnosed(videos=video_set(200)).causes)
    assert alarms <= 4  # of 40; a binomial of 0.05 exceeds 4 once in thirty


def test_a_candidate_that_is_far_worse_is_dropped_after_the_first_videos(made):
    made(lambda setting: 0.8 if setting == START else 0.3)
    found = diagnosed()
    assert {trial.videos for trial in found.trials if trial.gain is not None} == {diagnosing.FIRST}


def test_a_candidate_is_dropped_once_its_gain_is_clearly_less_than_the_subset_could_show(made, monkeypatch):
    """Equal answers on 50 videos exclude a gain of 8 points: Tango's interval for 0 of 50 ends at 7.1 points."""
    made(lambda setting: 0.5)
    monkeypatch.setattr(diagnosing.Pair, "of", lambda base, right, of=diagnosing.Pair.of: of(base, base))
    found = diagnosed()
    assert {trial.videos for trial in found.trials if trial.gain is not None} == {50}


def test_the_subset_grows_by_doubling_up_to_its_size():
    assert list(diagnosing.prefixes(200)) == [25, 50, 100, 200]
    assert list(diagnosing.prefixes(60)) == [25, 50, 60]
    assert list(diagnosing.prefixes(20)) == [20]


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
    computed = setting_scores.Scorer._computed

    def failing(self, settings, places):
        for found in computed(self, settings, places):
            yield {
                key: {place: outputs if place % 10 else VideoError("damaged") for place, outputs in of.items()}
                for key, of in found.items()
            }

    monkeypatch.setattr(setting_scores.Scorer, "_computed", failing)
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


def test_a_setting_that_the_model_does_not_take_is_reported_and_passed_over(made):
    def accuracy(setting):
        if setting.clip.frames != 16:
            raise RuntimeError("shape mismatch\nmore")
        return 0.5

    made(accuracy)
    outcomes = {trial.outcome for trial in diagnosed().trials if trial.topic == "clip length"}
    assert outcomes == {"not possible: shape mismatch"}


def test_a_killed_diagnosis_repeats_nothing(made, tmp_path):
    made(lambda setting: 0.8 if setting.protocol.channels == "bgr" else 0.3)
    first = diagnosed(folder=tmp_path)
    made(lambda setting: pytest.fail("a forward pass was repeated"))
    again = diagnosed(folder=tmp_path)
    assert [cause.candidate for cause in again.causes] == [cause.candidate for cause in first.causes]


@pytest.mark.parametrize(("budget_s", "videos"), [(20, 25), (330, 50)])
def test_a_budget_ends_the_search_with_what_was_tried_until_then(made, budget_s, videos):
    """The clock shows one minute more after each chunk of 16 videos; the first 50 videos take five chunks."""
    made(lambda setting: 0.9 if setting.protocol.channels == "bgr" else 0.2)
    times = iter(range(0, 10_000, 60))
    found = diagnosed(budget_s=budget_s, clock=lambda: next(times))
    assert found.stopped_because == f"the budget of {budget_s} s is over"
    assert found.videos == videos
    assert [cause.candidate.topic for cause in found.causes] == ["channel order"] * (videos == 50)


def test_one_setting_has_its_error_raised_if_it_is_the_evaluation_in_question(made):
    def accuracy(setting):
        raise RuntimeError("shape mismatch")

    made(accuracy)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        diagnosed()


def test_a_diagnosis_killed_midway_goes_on_where_it_was(made, monkeypatch, tmp_path):
    computed_pairs = []
    monkeypatch.setattr(setting_scores, "SAVE_EVERY_S", 0)

    def counted(kill_after):
        made(lambda setting: 0.5)
        computed = setting_scores.Scorer._computed

        def counting(self, settings, places):
            for number, found in enumerate(computed(self, settings, places)):
                if len(computed_pairs) >= kill_after:
                    raise KeyboardInterrupt
                computed_pairs.append((number, sorted(found), sorted(next(iter(found.values())))))
                yield found

        monkeypatch.setattr(setting_scores.Scorer, "_computed", counting)

    counted(10_000)
    whole = diagnosed()
    expected, computed_pairs[:] = len(computed_pairs), []
    counted(3)
    with pytest.raises(KeyboardInterrupt):
        diagnosed(folder=tmp_path)
    counted(10_000)
    again = diagnosed(folder=tmp_path)
    assert again.trials == whole.trials
    assert len(computed_pairs) == expected


def test_the_time_left_is_reported(made, monkeypatch):
    made(lambda setting: 0.5)
    monkeypatch.setattr("bench.train.progress.EVERY_S", 0)
    reports = []
    diagnosed(report=reports.append)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] <= 1
    assert reports[-1].seconds_left is not None
    assert reports[0].what.startswith("trying ")


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
