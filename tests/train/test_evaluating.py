from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bench.core.errors import InputError, TrainingError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import SlidingWindows, views_per_video
from bench.data import clips
from bench.data.clip_batches import view_batches
from bench.models.base import inputs_of
from bench.train.evaluating import Evaluation, evaluate, in_evaluation_mode, rounding_of, state_hash


class Counting(nn.Module):
    """Wraps a model and counts what goes through it."""

    def __init__(self, model):
        super().__init__()
        self.model, self.clips, self.passes = model, 0, 0

    def forward(self, clip):
        self.clips, self.passes = self.clips + len(clip), self.passes + 1
        return self.model(clip)


def by_hand(model, videos, clip, views):
    """Probabilities of every video, one view at a time."""
    model.eval()
    rows = []
    batches = view_batches(
        videos, clip=clip, inputs=inputs_of(model), views=views, mean=(0.45,) * 3, std=(0.225,) * 3, batch=1
    )
    for batch in batches:
        with torch.no_grad():
            rows.append(torch.stack([model(view[None])[0].softmax(0) for view in batch.clips[0]]))
    return torch.stack(rows).numpy()


def test_scores_are_the_mean_of_the_views_probabilities(tiny_net, val_videos, clip):
    model = tiny_net()
    seen = evaluate(model, val_videos, clip=clip, views=(3, 2), batch=5)
    expected = by_hand(model, val_videos, clip, (3, 2))
    np.testing.assert_allclose(seen.scores, expected.mean(axis=1), atol=1e-6)
    labels = np.array([video.labels[0] for video in val_videos.videos])
    assert (seen.labels == labels).all()
    assert seen.top(1).value == pytest.approx((expected.mean(axis=1).argmax(1) == labels).mean())
    assert seen.clip_top(1) == pytest.approx((expected.argmax(2) == labels[:, None]).mean())


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_a_view_costs_one_forward_whatever_the_batch(tiny_net, val_videos, clip, batch):
    model = Counting(tiny_net())
    seen = evaluate(model, val_videos, clip=clip, views=(2, 2), batch=batch)
    assert model.clips == 4 * len(val_videos)
    np.testing.assert_allclose(seen.scores, evaluate(tiny_net(), val_videos, clip=clip, views=(2, 2)).scores, atol=1e-6)


def test_raw_scores_are_averaged_on_request(tiny_net, val_videos, clip):
    seen = evaluate(tiny_net(), val_videos, clip=clip, views=(2, 1), protocol=InputProtocol(averaging="score"))
    assert not np.allclose(seen.scores.sum(axis=1), 1)


def test_a_video_that_cannot_be_read_is_named_and_counts_as_wrong(tiny_net, damaged_videos, clip):
    model = tiny_net()
    seen = evaluate(model, damaged_videos, clip=clip)
    assert [video.id for video in seen.unread] == [damaged_videos.videos[3].id]
    assert (len(seen.labels), seen.counted) == (11, 12)
    right = int((seen.ranks == 0).sum())
    assert seen.top(1).value == pytest.approx(right / 12)
    assert seen.clip_top(1) == pytest.approx(right / 12)
    left_out = evaluate(model, damaged_videos, clip=clip, excludes_unread=True)
    assert left_out.top(1).value == pytest.approx(right / 11)
    assert len(left_out.unread) == 1


def test_a_class_of_unreadable_videos_lowers_the_mean_per_class():
    scores = np.eye(2, dtype=np.float32)[[0, 0]]
    labels = np.array([0, 0])
    seen = Evaluation(
        positions=np.arange(2),
        labels=labels,
        scores=scores,
        clip_ranks=np.zeros((2, 1), dtype=np.int64),
        unread_labels=np.array([1, 1]),
    )
    assert seen.mean_class == pytest.approx(0.5)
    assert replace(seen, excludes_unread=True).mean_class == pytest.approx(1.0)


def test_nothing_to_read_is_an_error(tiny_net, damaged_videos, clip):
    only = replace(damaged_videos, videos=(damaged_videos.videos[3],))
    with pytest.raises(TrainingError, match="none of the 1 videos can be read"):
        evaluate(tiny_net(), only, clip=clip)


def test_videos_without_labels_have_no_accuracy(tiny_net, val_videos, clip):
    bare = replace(val_videos, videos=(replace(val_videos.videos[0], labels=()), *val_videos.videos[1:]))
    with pytest.raises(InputError, match="1 of its 12 videos have no label"):
        evaluate(tiny_net(), bare, clip=clip)


def test_a_model_that_returns_nan_has_no_accuracy(tiny_net, val_videos, clip):
    model = tiny_net()
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        evaluate(model, val_videos, clip=clip)


def test_a_model_that_returns_no_logits_is_refused(val_videos, clip):
    with pytest.raises(InputError, match=r"must return logits \(B, classes\)"):
        evaluate(nn.Identity(), val_videos, clip=clip)


def test_several_labels_a_video_are_scored_by_average_precision(tiny_net, val_videos, clip):
    videos = tuple(replace(v, labels=(0, 1) if i % 3 == 0 else v.labels) for i, v in enumerate(val_videos.videos))
    many = replace(val_videos, videos=videos, is_multi_label=True)
    seen = evaluate(tiny_net(), many, clip=clip)
    assert seen.is_multi_label
    assert seen.labels.shape == (12, 2)
    assert seen.labels[0].all()
    assert 0 < seen.mean_average_precision <= 1
    assert seen.ranks[0] == 0, "both classes are right for the first video"


def test_probabilities_of_several_labels_are_each_their_own(val_videos, clip):
    """Logits (8, 9) of the first video stand above (0, -9) of the others in class 0; softmax ranks it below them."""

    class Given(nn.Module):
        def forward(self, clips):
            self.seen += len(clips)
            return torch.tensor([[8.0, 9.0], *[[0.0, -9.0]] * 11])[self.seen - len(clips) : self.seen]

        seen = 0

    videos = [replace(v, labels=(0, 1) if i == 0 else (1,)) for i, v in enumerate(val_videos.videos)]
    many = replace(val_videos, videos=tuple(videos), is_multi_label=True)
    precision, loss = {}, {}
    for averaging in ("sigmoid", "softmax"):
        seen = evaluate(Given(), many, clip=clip, protocol=InputProtocol(averaging=averaging))
        precision[averaging], loss[averaging] = seen.mean_average_precision, seen.loss
    assert precision == {"sigmoid": 1.0, "softmax": pytest.approx((1 / 12 + 1) / 2)}
    logits, targets = torch.tensor([[8.0, 9.0], *[[0.0, -9.0]] * 11]), torch.tensor([[1.0, 1.0], *[[0.0, 1.0]] * 11])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, targets)
    assert loss["sigmoid"] == pytest.approx(float(expected), rel=1e-4)


def test_every_module_is_back_in_its_mode(tiny_net):
    model = tiny_net().train()
    model.norm.eval()
    with in_evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert not model.norm.training


@pytest.mark.parametrize("views", [(1, 1), (5, 1), (3, 2), (4, "full")])
def test_views_cost_a_forward_each_and_one_decode_together(tiny_net, val_videos, clip, views, monkeypatch):
    decoded = []
    read = clips.read_frames
    monkeypatch.setattr(clips, "read_frames", lambda path, *rest, **kw: decoded.append(path) or read(path, *rest, **kw))
    monkeypatch.setattr("bench.data.clip_batches._shared_cache", lambda *_: None)
    model = Counting(tiny_net())
    evaluate(model, val_videos, clip=clip, views=views)
    assert model.clips == views_per_video(views) * len(val_videos)
    assert sorted(decoded) == sorted(video.path for video in val_videos.videos)


@pytest.mark.parametrize(
    ("capability", "convolutions", "products", "told"),
    [
        (7, True, True, None),
        (8, True, False, "TF32 in convolutions"),
        (9, True, True, "TF32 in convolutions and products"),
        (9, False, False, None),
    ],
)
def test_rounding_to_tf32_is_recorded(capability, convolutions, products, told, monkeypatch):
    def switch(is_on):
        return SimpleNamespace(fp32_precision="tf32" if is_on else "ieee")

    cuda = SimpleNamespace(matmul=switch(products))
    backends = SimpleNamespace(cudnn=SimpleNamespace(conv=switch(convolutions)), cuda=cuda)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (capability, 0))
    monkeypatch.setattr("bench.train.evaluating.torch.backends", backends)
    assert rounding_of("cuda") == told
    assert rounding_of("cpu") is None


def test_sliding_windows_score_every_video_by_as_many_clips_as_it_is_long(tiny_net, val_videos, clip):
    lengths = [8, 5, 8, 3, 7, 4, 8, 8, 6, 2, 1, 8]
    cut = [replace(video, segment=(0, frames)) for video, frames in zip(val_videos.videos, lengths, strict=True)]
    videos, model = replace(val_videos, videos=tuple(cut)), tiny_net()
    seen = evaluate(model, videos, clip=clip, views=(SlidingWindows(3), 1), batch=4, keeps_clip_scores=True)
    for row, (video, frames) in enumerate(zip(cut, lengths, strict=True)):
        # One window every 3 frames, up to the first that four frames do not fill.
        windows = next(n for n in range(1, 9) if 3 * (n - 1) + 4 > frames)
        own = by_hand(model, replace(videos, videos=(video,)), clip, (SlidingWindows(3), 1))[0]
        assert len(own) == windows
        np.testing.assert_allclose(seen.scores[row], own.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(seen.clip_scores[row, :windows], own, atol=1e-6)
        assert np.isnan(seen.clip_scores[row, windows:]).all()
        assert (seen.clip_ranks[row] >= 0).sum() == windows
    right = [(ranks[ranks >= 0] == 0).mean() for ranks in seen.clip_ranks]
    assert seen.clip_top(1) == pytest.approx(np.mean(right))


def test_the_hash_of_a_state_covers_shapes_types_and_every_value() -> None:
    def linear(rows: int, columns: int) -> nn.Module:
        model = nn.Linear(columns, rows, bias=False)
        nn.init.ones_(model.weight)
        return model

    changed = linear(2, 3)
    with torch.no_grad():
        changed.weight[1, 2] = 1 + 2**-20
    same_bytes = linear(2, 3)
    same_bytes.weight = nn.Parameter(same_bytes.weight.detach().view(torch.int32), requires_grad=False)
    assert state_hash(linear(2, 3)) == state_hash(linear(2, 3))
    assert len({state_hash(model) for model in (linear(2, 3), linear(3, 2), changed, same_bytes)}) == 4
