"""Real videos (UCF-101, HMDB-51, Kinetics, ActivityNet and files that break readers) all the way to logits."""

import csv
from pathlib import Path

import torch

import bench
from bench.core.schema import Clip
from bench.data.clip_batches import UnreadVideo, view_batches
from bench.data.collection import Video, video_set
from bench.models.base import VideoModel, inputs_of

CLIP = Clip.model_validate("8x4x32")


def manifest(clips: Path) -> list[dict[str, str]]:
    with (clips / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_real_clip_is_decoded_sampled_and_classified(clips: Path) -> None:
    """Two views of each: logits are finite and differ between videos; a damaged file is named, not dropped."""
    rows = manifest(clips)
    assert len(rows) >= 18
    videos = video_set(
        "clips",
        "val",
        classes=[row["file"] for row in rows],
        videos=[Video(id=row["file"], path=clips / row["file"], labels=(n,)) for n, row in enumerate(rows)],
        root=clips,
    )
    model = bench.create_model("c3d_search", num_classes=len(rows), width=0.05).eval()
    assert isinstance(model, VideoModel)
    failures: list[UnreadVideo] = []
    seen: dict[int, torch.Tensor] = {}
    for batch in view_batches(
        videos,
        clip=CLIP,
        inputs=inputs_of(model),
        views=(2, 1),
        mean=model.mean,
        std=model.std,
        batch=4,
        failures=failures,
    ):
        with torch.inference_mode():
            logits = model(*batch.clips).unflatten(0, (-1, batch.views)).mean(1)
        assert logits.isfinite().all()
        assert batch.labels.tolist() == batch.videos.tolist()
        seen |= dict(zip(batch.videos.tolist(), logits, strict=True))
    unread = {failure.position for failure in failures}
    assert seen.keys() | unread == set(range(len(rows)))
    assert not seen.keys() & unread
    assert all("corrupted" in failures[n].id for n in range(len(failures))), failures
    distinct = torch.stack(list(seen.values())).unique(dim=0)
    assert len(distinct) >= len(seen) - 1, "dc_video_0 and dc_video_90 may hold the same picture; no others do"


def test_probe_counts_the_frames_of_a_sequential_decode(clips: Path) -> None:
    for row in manifest(clips):
        facts = bench.probe(clips / row["file"])
        assert facts.frames == int(row["decoded_frames"]), row["file"]
        assert facts.is_ok is (row["note"] == ""), row["file"]
