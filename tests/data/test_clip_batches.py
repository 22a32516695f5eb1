"""Batches: the same clips whatever workers, ranks and resumption do; every video once in evaluation; nothing unsaid."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import VideoError
from bench.core.schema import Clip
from bench.data.clip_batches import (
    Batch,
    UnreadVideo,
    UnreadVideoWarning,
    _add,
    _taken,
    epoch_order,
    made_by_workers,
    read_ahead,
    steps_per_epoch,
    train_batches,
    view_batches,
)
from bench.data.collection import Video, VideoSet, open_dataset, video_set
from bench.data.decode import read_frames
from bench.data.prepare import prepare_frames
from bench.data.prepare_shards import prepare_shards
from bench.data.transforms import Augmentation
from bench.models.base import InputSpec

CLIP = Clip.model_validate("4x2x16")
AUGMENTATION = Augmentation(crop="random_resized")


@dataclass(frozen=True)
class Input:
    """An input that takes every `every`-th frame."""

    channels: int = 3
    modality: str = "rgb"
    every: int = 1

    def take(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        return clip_BCTHW[:, :, :: self.every]


COMMON: dict[str, Any] = {"clip": CLIP, "inputs": (Input(),), "mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    root = tmp_path_factory.mktemp("data") / "motions"
    return open_dataset(
        "motions", root=root, split="train", clips_per_class=2, val_clips_per_class=1, frames=12, size=32
    )


@pytest.fixture(scope="module")
def shards(videos: VideoSet, tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    """The same videos in several tar shards."""
    root = tmp_path_factory.mktemp("shards")
    one_bytes = max(video.path.stat().st_size for video in videos.videos)
    prepare_shards(videos, root / "train", shard_bytes=3 * one_bytes)
    return open_dataset("folder", root=root, split="train")


def train(videos: VideoSet, **options: Any) -> list[Batch]:
    given_: dict[str, Any] = {**COMMON, "augmentation": AUGMENTATION, "batch": 4, "seed": 3, "epoch": 0, **options}
    return list(train_batches(videos, **given_))


def view(videos: VideoSet, **options: Any) -> list[Batch]:
    return list(view_batches(videos, **{**COMMON, "batch": 4, **options}))


def by_video(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(v): clip for batch in batches for v, clip in zip(batch.videos, batch.clips[0], strict=True)}


def broken(videos: VideoSet, positions: set[int], folder: Path) -> VideoSet:
    """The set with files at `positions` that are no videos."""

    def renamed() -> Iterator[Video]:
        for position, video in enumerate(videos.videos):
            if position in positions:
                path = folder / f"{video.id}.mp4"
                path.write_bytes(b"no video at all")
                yield replace(video, path=path, id=f"broken-{position}", frames=None)
            else:
                yield video

    return video_set("motions", "train", classes=videos.classes, videos=renamed(), root=folder)


def test_a_batch_has_the_shapes_and_labels_that_its_videos_say(videos: VideoSet) -> None:
    batches = train(videos, inputs=(Input(), Input(every=2)))
    assert len(batches) == steps_per_epoch(videos, batch=4) == 4
    for batch in batches:
        fast, slow = batch.clips
        assert (fast.shape, slow.shape) == ((4, 3, 4, 16, 16), (4, 3, 2, 16, 16))
        assert fast.dtype == torch.float32
        assert fast.is_contiguous()
        assert batch.labels.tolist() == [videos.videos[v].labels[0] for v in batch.videos]
        assert torch.equal(fast[:, :, ::2], slow)
    assert sorted(int(v) for batch in batches for v in batch.videos) == list(range(16))


def test_a_centre_clip_is_the_normalised_centre_of_the_decoded_frames(videos: VideoSet) -> None:
    (batch,) = train(videos, augmentation=Augmentation(sampling="centre"), batch=16)
    for position, clip in by_video([batch]).items():
        frames = read_frames(videos.videos[position].path, (2, 4, 6, 8), size=16)
        expected = (torch.from_numpy(frames).float().permute(3, 0, 1, 2) / 255 - 0.5) / 0.25
        torch.testing.assert_close(clip, expected, atol=1e-5, rtol=1e-5)


def test_kept_videos_give_the_same_clips_as_decoding_again(videos: VideoSet) -> None:
    fresh, kept_first, kept_again = (by_video(train(videos, cache_bytes=size)) for size in (0, 1 << 24, 1 << 24))
    assert all(torch.equal(fresh[v], kept_first[v]) and torch.equal(fresh[v], kept_again[v]) for v in fresh)


def test_epochs_and_seeds_differ_in_order_and_draw(videos: VideoSet) -> None:
    one, epoch, seed = train(videos), train(videos, epoch=1), train(videos, seed=4)
    orders = [[int(v) for batch in batches for v in batch.videos] for batches in (one, epoch, seed)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert not torch.equal(by_video(one)[0], by_video(epoch)[0])


def test_a_resumed_epoch_continues_with_the_remaining_batches(videos: VideoSet) -> None:
    whole, rest = train(videos), train(videos, start=3)
    assert len(rest) == 1
    assert torch.equal(rest[0].clips[0], whole[3].clips[0])


def test_two_ranks_together_see_what_one_would(videos: VideoSet) -> None:
    alone = train(videos, batch=8)
    ranks = [train(videos, batch=4, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(alone):
        assert torch.equal(torch.cat([rank[step].clips[0] for rank in ranks]), batch.clips[0])
        assert torch.equal(torch.cat([rank[step].videos for rank in ranks]), batch.videos)


@given(videos=st.integers(0, 300), batch=st.integers(1, 20), world=st.integers(1, 5))
def test_the_ranks_of_an_epoch_share_no_video_and_have_equal_batches(videos: int, batch: int, world: int) -> None:
    ranks = [epoch_order(videos, batch=batch, seed=1, epoch=2, rank=rank, world=world) for rank in range(world)]
    assert len({tuple(len(each) for each in rank) for rank in ranks}) == 1
    taken = [position for rank in ranks for each in rank for position in each]
    assert len(taken) == len(set(taken)) <= videos
    assert set(taken) <= set(range(videos))
    assert videos - len(taken) < batch * world


def test_views_of_a_video_are_adjacent_and_come_from_one_decode(
    videos: VideoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data import clips

    calls: list[Path] = []

    def counted(path: Path, *args: Any, **kwargs: Any) -> Any:
        calls.append(path)
        return read_frames(path, *args, **kwargs)

    monkeypatch.setattr(clips, "read_frames", counted)
    batches = view(videos, views=(3, 1), cache_bytes=0, batch=5)
    assert sorted(calls) == sorted(video.path for video in videos.videos)
    assert [int(v) for batch in batches for v in batch.videos] == list(range(16))
    first = batches[0]
    assert first.views == 3
    assert first.clips[0].shape == (15, 3, 4, 16, 16)
    expected = read_frames(videos.videos[1].path, (5, 7, 9, 11), size=16)
    shown = (first.clips[0][5] * 0.25 + 0.5) * 255
    assert np.allclose(shown.permute(1, 2, 3, 0).numpy(), expected, atol=0.01)


def test_views_are_taken_as_sampling_and_short_say(videos: VideoSet) -> None:
    path = videos.videos[0].path
    expected = {
        ("blocks", "loop"): (0, 4, 8, 0),
        ("blocks", "clamp"): (0, 4, 8, 11),
        ("sections", "loop"): (1, 4, 7, 10),
    }
    for (sampling, short), indices in expected.items():
        clip = Clip.model_validate("4x4x16")
        shown = by_video(view(videos, clip=clip, sampling=sampling, short=short))[0]
        frames = ((shown * 0.25 + 0.5) * 255).permute(1, 2, 3, 0).numpy()
        assert np.allclose(frames, read_frames(path, indices, size=16), atol=0.01)


def test_ranks_take_turns_and_repeat_no_video(videos: VideoSet) -> None:
    seen = [[int(v) for batch in view(videos, rank=rank, world=3) for v in batch.videos] for rank in range(3)]
    assert sorted(seen[0] + seen[1] + seen[2]) == list(range(16))


def test_spatial_views_need_frames_wider_than_the_clip(videos: VideoSet) -> None:
    batches = view(videos, views=(1, 3), resize=(16, 28))
    left, centre, right = batches[0].clips[0][:3]
    frames = read_frames(videos.videos[0].path, (2, 4, 6, 8), size=(16, 28))
    for clip, column in ((left, 0), (centre, 6), (right, 12)):
        shown = ((clip * 0.25 + 0.5) * 255).permute(1, 2, 3, 0).numpy()
        assert np.allclose(shown, frames[:, :, column : column + 16], atol=0.01)


def test_unreadable_videos_are_replaced_in_training_and_reported(videos: VideoSet, tmp_path: Path) -> None:
    failures: list[UnreadVideo] = []
    batches = train(broken(videos, {2, 7}, tmp_path), failures=failures)
    assert sorted(unread.position for unread in failures) == [2, 7]
    assert all("cannot be opened" in unread.reason for unread in failures)
    assert [len(batch.labels) for batch in batches] == [4] * 4
    assert not {2, 7} & {int(v) for batch in batches for v in batch.videos}
    for batch in batches:
        assert batch.labels.tolist() == [videos.videos[v].labels[0] for v in batch.videos]


def test_a_batch_of_nothing_that_can_be_read_shows_the_next_of_the_epoch(videos: VideoSet, tmp_path: Path) -> None:
    """A share of one clip per rank is such a batch; a training that continues later gets the same replacement."""
    order = [int(batch.videos[0]) for batch in train(videos, batch=1)]
    bad = {order[3], order[4], order[15]}
    expected = [order[5] if p in (3, 4) else order[0] if p == 15 else order[p] for p in range(16)]
    failures: list[UnreadVideo] = []
    batches = train(broken(videos, bad, tmp_path), batch=1, failures=failures)
    assert [int(batch.videos[0]) for batch in batches] == expected
    assert [batch.labels.tolist() for batch in batches] == [list(videos.videos[v].labels) for v in expected]
    assert [unread.position for unread in failures] == [order[3], order[4], order[15]]
    again = train(broken(videos, bad, tmp_path), batch=1, start=4, failures=[])
    assert torch.equal(again[0].clips[0], batches[4].clips[0])
    pairs = [batch.videos.tolist() for batch in train(broken(videos, bad, tmp_path), batch=2, failures=[])]
    assert pairs[1:3] == [[order[2], order[2]], [order[5], order[5]]], "a batch with one that can be read repeats it"


def test_prefetching_ends_with_the_batch(videos: VideoSet) -> None:
    """Its thread cannot wait for itself, and garbage is collected in any thread."""
    decoded: Any = SimpleNamespace()
    rows: Any = SimpleNamespace(add=lambda shown: None)
    read = read_ahead(tuple(enumerate(videos.videos[:3])), lambda position, video: decoded)
    used, _ = _add(read, rows, lambda position, decoded: decoded, most=1)
    assert (len(used), inspect.getgeneratorstate(read)) == (1, inspect.GEN_CLOSED)


def test_unreadable_videos_are_left_out_of_evaluation_and_reported(videos: VideoSet, tmp_path: Path) -> None:
    failures: list[UnreadVideo] = []
    batches = view(broken(videos, {0, 1, 2, 3, 9}, tmp_path), failures=failures)
    assert sorted(unread.position for unread in failures) == [0, 1, 2, 3, 9]
    assert [int(v) for batch in batches for v in batch.videos] == [4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15]


def test_uncollected_failures_are_warned_of(videos: VideoSet, tmp_path: Path) -> None:
    with pytest.warns(UnreadVideoWarning, match="broken-5"):
        view(broken(videos, {5}, tmp_path))


def test_a_training_batch_without_a_single_video_is_an_error(videos: VideoSet, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="none of the 4 videos"):
        train(broken(videos, set(range(16)), tmp_path))


def test_a_video_shorter_than_annotated_gives_the_frames_that_are_there(videos: VideoSet) -> None:
    lying = replace(videos, videos=tuple(replace(video, frames=500) for video in videos.videos), hash="lying")
    batches = view(lying, cache_bytes=0)
    assert len(by_video(batches)) == 16


def test_frames_that_no_clip_wants_stop_no_video_from_being_read_with_or_without_a_cache(
    videos: VideoSet, tmp_path: Path
) -> None:
    """One that claims a frame too many, as the headers of DivX avi do, and a folder that lacks a frame."""
    frames = tmp_path / "frames"
    prepare_frames(videos.videos[1].path.parent, frames)
    cut = frames / videos.videos[1].path.stem
    (cut / "image_00001.jpg").unlink()
    odd = [replace(videos.videos[0], frames=13), replace(videos.videos[1], path=cut, frames=12)]
    short = video_set("motions", "train", classes=videos.classes, videos=odd, root=tmp_path)
    failures: list[UnreadVideo] = []
    kept, again, fresh = (by_video(view(short, cache_bytes=size, failures=failures)) for size in (1 << 24, 1 << 24, 0))
    assert failures == []
    assert sorted(kept) == sorted(again) == sorted(fresh) == [0, 1]
    assert all(torch.equal(kept[v], fresh[v]) and torch.equal(again[v], fresh[v]) for v in fresh)


def test_multi_label_sets_have_a_one_for_each_label(videos: VideoSet) -> None:
    several = [replace(v, labels=(i % 8, (i + 3) % 8)) for i, v in enumerate(videos.videos)]
    multi = video_set("m", "train", classes=videos.classes, videos=several, root=None, is_multi_label=True)
    for batch in train(multi):
        assert batch.labels.shape == (4, 8)
        for position, row in zip(batch.videos.tolist(), batch.labels, strict=True):
            assert set(row.nonzero().flatten().tolist()) == {position % 8, (position + 3) % 8}


def shard_of(video: Video) -> Path:
    return next(parent for parent in video.path.parents if parent.suffix == ".tar")


def test_an_epoch_over_shards_is_shuffled_as_a_whole(shards: VideoSet) -> None:
    """Members are read in place, so that neighbours in a shard are no more likely to share a batch than others."""
    assert len({shard_of(video) for video in shards.videos}) >= 4
    first, *_ = train(shards)
    assert len({shard_of(shards.videos[v]) for v in first.videos}) >= 3
    orders = [[int(v) for batch in train(shards, **draw) for v in batch.videos] for draw in ({}, {}, {"epoch": 1})]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(len(shards)))


def test_an_epoch_over_shards_is_the_same_for_ranks_and_when_resumed(shards: VideoSet) -> None:
    whole = train(shards, batch=8)
    ranks = [train(shards, batch=4, rank=rank, world=2) for rank in range(2)]
    rest = train(shards, batch=8, start=1)
    assert torch.equal(rest[0].clips[0], whole[1].clips[0])
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[step].clips[0] for rank in ranks]), batch.clips[0])


def test_shards_give_the_clips_of_the_files_in_them(shards: VideoSet, videos: VideoSet) -> None:
    views = {shards.videos[v].path.stem: clip for v, clip in by_video(view(shards)).items()}
    plain = {videos.videos[v].path.stem: clip for v, clip in by_video(view(videos)).items()}
    assert views.keys() == plain.keys()
    assert all(torch.equal(views[stem], plain[stem]) for stem in views)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches_out_of_shards(workers: int, shards: VideoSet) -> None:
    alone, worked = train(shards), train(shards, workers=workers)
    resumed = train(shards, workers=workers, start=2)
    assert torch.equal(resumed[0].clips[0], alone[2].clips[0])
    for one, other in zip(alone, worked, strict=True):
        assert torch.equal(one.videos, other.videos)
        assert torch.equal(one.clips[0], other.clips[0])


@pytest.mark.slow
def test_workers_make_the_same_batches_in_the_same_order(videos: VideoSet, tmp_path: Path) -> None:
    mixed = broken(videos, {3}, tmp_path)
    failures: tuple[list[UnreadVideo], list[UnreadVideo]] = ([], [])
    alone, worked = (train(mixed, workers=n, failures=told) for n, told in zip((0, 2), failures, strict=True))
    assert failures[0] == failures[1]
    for one, other in zip(alone, worked, strict=True):
        assert torch.equal(one.clips[0], other.clips[0])
        assert torch.equal(one.videos, other.videos)


@pytest.mark.slow
def test_an_error_in_a_worker_keeps_its_one_line(videos: VideoSet, tmp_path: Path) -> None:
    with pytest.raises(VideoError) as raised:
        train(broken(videos, set(range(16)), tmp_path), workers=1)
    assert "\n" not in str(raised.value)


def test_the_next_video_is_decoded_while_one_is_used(videos: VideoSet) -> None:
    decoded = {position: Event() for position in range(3)}

    def read(position: int, _video: Video) -> list[Any]:
        decoded[position].set()
        if position == 1:
            raise VideoError("unreadable")
        return [position]

    order = tuple((position, videos.videos[position]) for position in range(3))
    for position, video, frames in read_ahead(order, read):
        assert video is videos.videos[position]
        assert isinstance(frames, VideoError) if position == 1 else frames == [position]
        assert position == 2 or decoded[position + 1].wait(timeout=30)


def test_frames_taken_of_a_page_locked_clip_are_page_locked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """SlowFast's slow pathway is a copy of every fourth frame; from pageable memory its transfer would block."""
    locked: set[int] = set()

    def pin(clip: torch.Tensor) -> torch.Tensor:
        copied = clip.clone()
        locked.add(copied.data_ptr())
        return copied

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda clip: clip.data_ptr() in locked)
    fast, slow = InputSpec(), InputSpec(frames=lambda frames: frames // 4)
    pageable = torch.randn(1, 3, 8, 4, 4)
    clip = pageable.pin_memory()
    assert [_taken(spec, clip).is_pinned() for spec in (fast, slow)] == [True, True]
    assert torch.equal(_taken(slow, clip), slow.take(pageable))
    assert _taken(fast, clip) is clip, "nothing is copied that need not be"
    assert [_taken(spec, pageable).is_pinned() for spec in (fast, slow)] == [False, False]


@pytest.mark.parametrize("uses_gpu", [True, False])
def test_memory_is_page_locked_only_in_a_process_that_uses_its_gpu(
    uses_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: uses_gpu)
    monkeypatch.setattr("bench.data.clip_batches.DataLoader", lambda *_, **options: given.update(options) or ())
    assert list(made_by_workers(lambda request: request, [object()], workers=2)) == []  # type: ignore[arg-type, return-value]
    assert given["pin_memory"] is uses_gpu
