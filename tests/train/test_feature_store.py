"""Features in memory-mapped shards: what they hold, and that a killed process loses one shard at most."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.core.errors import InputError, TrainingError
from bench.core.schema import Clip, views_from_text
from bench.train import feature_store
from bench.train.evaluating import evaluate, state_hash
from bench.train.feature_store import take_features
from bench.train.inference import InferenceSettings


@pytest.fixture
def two_views():
    return InferenceSettings(clip=Clip.model_validate("4x1x32"), views=(2, 1), batch=3)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_store, "MOST_IN_SHARD", 5)


def take(model, videos, settings, folder, **more):
    return take_features(model, videos, settings, folder=folder, about={"state": state_hash(model)}, **more)


@pytest.mark.usefixtures("small_shards")
def test_the_head_gives_the_scores_of_an_evaluation_for_stored_vectors(tiny_net, val_videos, two_views, tmp_path):
    model = tiny_net().eval()
    stored = take(model, val_videos, two_views, tmp_path)
    assert stored.videos == tuple(video.id for video in val_videos.videos)
    assert stored.labels.tolist() == [video.labels[0] for video in val_videos.videos]
    assert [count for _, count in stored.shards] == [5, 5, 2]
    found = stored.vectors(range(12))
    assert found.shape == (12, 2, model.fc.in_features)
    with torch.no_grad():
        scores = model.fc(torch.from_numpy(found)).softmax(2).mean(1).numpy()
    expected = evaluate(model, val_videos, clip=two_views.clip, views=two_views.views).scores
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    order = np.array([11, 0, 7, 7, 4])
    np.testing.assert_array_equal(stored.vectors(order), found[order])


def test_means_over_the_views_are_those_of_the_vectors_of_single_views(tiny_net, val_videos, two_views, tmp_path):
    model = tiny_net()
    one_by_one = take(model, val_videos, two_views, tmp_path)
    means = take(model, val_videos, two_views, tmp_path, per_view=False)
    assert (means.sizes.views, means.cost.clips, one_by_one.cost.clips) == (1, 24, 24)
    expected = one_by_one.vectors(range(12)).mean(1, keepdims=True)
    np.testing.assert_allclose(means.vectors(range(12)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("views", "clips"), [("sliding:4", None), ("2xfull", 24)])
def test_means_are_kept_of_views_that_differ_in_number_or_size(tiny_net, val_videos, two_views, tmp_path, views, clips):
    settings = replace(two_views, views=views_from_text(views))
    found = take(tiny_net(), val_videos, settings, tmp_path, per_view=False)
    assert found.vectors(range(12)).shape == (12, 1, found.sizes.width)
    assert found.cost.clips == clips if clips else found.cost.clips > 12


def test_a_video_without_a_label_has_the_label_minus_one(tiny_net, val_videos, two_views, tmp_path):
    first, *rest = val_videos.videos
    videos = replace(val_videos, videos=(replace(first, labels=()), *rest))
    assert take(tiny_net(), videos, two_views, tmp_path).labels[0] == -1


def test_a_second_call_reads_what_is_there(tiny_net, val_videos, two_views, tmp_path, monkeypatch):
    model = tiny_net()
    first = take(model, val_videos, two_views, tmp_path)
    monkeypatch.setattr(feature_store, "batches_of", lambda *_, **__: pytest.fail("a video is read again"))
    second = take(model, val_videos, two_views, tmp_path)
    assert (second.folder, second.cost) == (first.folder, first.cost)
    np.testing.assert_array_equal(second.vectors(range(12)), first.vectors(range(12)))


@pytest.mark.usefixtures("small_shards")
def test_a_killed_process_goes_on_at_the_first_missing_shard(tiny_net, val_videos, two_views, tmp_path, monkeypatch):
    model, whole = tiny_net(), take_features
    read_batches, seen = feature_store.batches_of, []

    def killed_at_the_seventh(*args, **more):
        for batch in read_batches(*args, **more):
            seen.extend(batch.videos.tolist())
            if len(seen) > 6:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(feature_store, "batches_of", killed_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        take(model, val_videos, two_views, tmp_path)
    taken = []

    def counted(model_, videos, *args, **more):
        taken.extend(video.id for video in videos.videos)
        yield from read_batches(model_, videos, *args, **more)

    monkeypatch.setattr(feature_store, "batches_of", counted)
    resumed = take(model, val_videos, two_views, tmp_path)
    assert taken == [video.id for video in val_videos.videos[5:]]
    assert resumed.resumed
    monkeypatch.setattr(feature_store, "batches_of", read_batches)
    fresh = whole(model, val_videos, two_views, folder=tmp_path / "fresh", about={"state": state_hash(model)})
    np.testing.assert_array_equal(resumed.vectors(range(12)), fresh.vectors(range(12)))
    assert resumed.cost.clips == 24


@pytest.mark.parametrize("change", ["weights", "views", "videos", "pooling", "dtype"])
def test_other_features_lie_in_another_folder(tiny_net, val_videos, two_views, tmp_path, change):
    model = tiny_net()
    first = take(model, val_videos, two_views, tmp_path).folder
    more = {"dtype": "float16"} if change == "dtype" else {"pooling": "max"} if change == "pooling" else {}
    settings = replace(two_views, views=(1, 1)) if change == "views" else two_views
    videos = replace(val_videos, videos=val_videos.videos[:4], hash="other") if change == "videos" else val_videos
    if change == "weights":
        with torch.no_grad():
            model.fc.bias[0] += 1
    assert take(model, videos, settings, tmp_path, **more).folder != first


@pytest.mark.usefixtures("small_shards")
def test_unread_videos_have_no_row(tiny_net, damaged_videos, two_views, tmp_path):
    stored = take(tiny_net(), damaged_videos, two_views, tmp_path)
    assert len(stored) == 11
    assert [video.position for video in stored.unread] == [3]
    assert damaged_videos.videos[3].id not in stored.videos
    only = replace(damaged_videos, videos=(damaged_videos.videos[3],))
    with pytest.raises(TrainingError, match="none of the 1 videos can be read"):
        take(tiny_net(), only, two_views, tmp_path / "none")


def test_tokens_are_kept_with_the_pooled_vectors(tiny_net, val_videos, two_views, tmp_path):
    stored = take(tiny_net(), val_videos, two_views, tmp_path, with_tokens=True, pooling="mean")
    tokens, vectors = stored.tokens([2, 9]), stored.vectors([2, 9])
    assert tokens.shape == (2, 2, stored.sizes.tokens, stored.sizes.token_width)
    np.testing.assert_allclose(tokens.mean(2), vectors, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("views", [(1, "full"), "sliding"])
def test_views_of_different_sizes_are_refused(tiny_net, val_videos, two_views, tmp_path, views):
    chosen = views_from_text("sliding:4") if views == "sliding" else views
    with pytest.raises(InputError, match="equally many views of equal size"):
        take(tiny_net(), val_videos, replace(two_views, views=chosen), tmp_path)


def test_a_full_disk_is_an_error_before_any_work(tiny_net, val_videos, two_views, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"the features of 12 videos need .* where 100 B are free"):
        take(tiny_net(), val_videos, two_views, tmp_path)
