"""Compares JPEG qualities of `vbench data frames`: bytes, distance from the video, accuracy.

    python benchmarks/frame_quality.py FOLDER > benchmarks/frame_quality.md      # some minutes

FOLDER holds video files, such as a few clips of Kinetics. Their first frames are written at short side 240 and read
back: mean difference from the decoded frames in grey levels, and the largest change of a class probability of a 3D
ResNet-18 (fixed random weights, 16 frames at 112). `accuracy` is the top-1 of a small C3D that was trained on the
videos of `motions` and is evaluated on its validation set as frames of each quality. `ffmpeg's default` is its mjpeg
encoder at 200 kbit/s, which `generate_video_jpgs` of 3D-ResNets uses.
"""

import argparse
import tempfile
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from turns import environment_line

from bench.core.errors import VideoError
from bench.core.schema import clip_from_text
from bench.data.clip_batches import train_batches, view_batches
from bench.data.collection import VideoSet, open_dataset
from bench.data.decode import read_frames
from bench.data.geometry import Covering, resize, upright_size
from bench.data.index import videos_under
from bench.data.prepare import every_frame, prepare_frames
from bench.data.transforms import Augmentation, normalise, spatial_views
from bench.models.base import inputs_of
from bench.models.factory import create_model

QUALITIES = (50, 75, 85, 92, 97)
FFMPEG = "ffmpeg"
FRAMES = 32
MEAN, STD = (0.45,) * 3, (0.225,) * 3
CLIP = clip_from_text("16x1x64")
Frames = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        clips = _first_frames(options.folder)
        motions = Path(scratch, "motions")
        open_dataset("motions", root=motions, split="train")
        model = _trained(open_dataset("folder", root=motions, split="train"), epochs=options.epochs)
        print(f"{environment_line()}\n")
        print(f"{len(clips)} clips of {FRAMES} frames at short side 240; `motions` at its size, 64\n")
        print("| quality | kB per frame | grey levels from the video | change of a probability | accuracy |")
        print("|---|---|---|---|---|")
        video_top1 = _top1(model, open_dataset("folder", root=motions, split="val"))
        print(f"| the video itself | | 0.00 | 0 | {video_top1:.1%} |")
        for quality in (*QUALITIES, FFMPEG):
            print(_row(quality, clips, motions, model, Path(scratch, f"q{quality}")), flush=True)


def _first_frames(folder: Path) -> dict[str, Frames]:
    """Return frames (T, H, W, 3) at short side 240 by video name, without videos that are too short."""
    found = {}
    for name in videos_under(folder):
        try:
            found[name] = read_frames(folder / name, range(FRAMES), size=240)
        except VideoError:
            continue
    return found


def _row(quality: int | str, clips: dict[str, Frames], motions: Path, model: nn.Module, scratch: Path) -> str:
    differences, changes, sizes = [], [], []
    model_400 = create_model("resnet3d_18", num_classes=400).eval()
    for number, frames_THWC in enumerate(clips.values()):
        folder = scratch / "clips" / str(number)
        _write(folder, frames_THWC, quality)
        read_THWC = read_frames(folder, range(len(frames_THWC)))
        differences.append(float(np.abs(read_THWC.astype(int) - frames_THWC).mean()))
        sizes += [file.stat().st_size for file in folder.iterdir()]
        changes.append(float((_scores(model_400, read_THWC) - _scores(model_400, frames_THWC)).abs().max()))
    val = scratch / "motions"
    if quality == FFMPEG:
        for name in videos_under(motions / "val"):
            _write(
                val / "val" / name.removesuffix(".mp4"),
                np.stack([*every_frame(motions / "val" / name, short_side=None)]),
                quality,
            )
    else:
        prepare_frames(motions / "val", val / "val", short_side=64, quality=int(quality))
    accuracy = _top1(model, open_dataset("folder", root=val, split="val"))
    name = "ffmpeg's default" if quality == FFMPEG else quality
    return (
        f"| {name} | {np.mean(sizes) / 1e3:.1f} | {np.mean(differences):.2f} | {np.max(changes):.1e} | {accuracy:.1%} |"
    )


def _write(folder: Path, frames_THWC: Frames, quality: int | str) -> None:
    folder.mkdir(parents=True)
    if quality == FFMPEG:
        _write_as_ffmpeg(folder, frames_THWC)
        return
    import simplejpeg

    for number, frame_HWC in enumerate(frames_THWC, start=1):
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame_HWC), quality=int(quality), colorspace="RGB", colorsubsampling="420"
        )
        (folder / f"image_{number:05d}.jpg").write_bytes(data)


def _write_as_ffmpeg(folder: Path, frames_THWC: Frames) -> None:
    """Write as `ffmpeg -i video image_%05d.jpg` does: with its encoder at its default bit rate."""
    with av.open(str(folder / "image_%05d.jpg"), "w", format="image2") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuvj420p", 200_000
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")))
        container.mux(stream.encode(None))


def _scores(model: nn.Module, frames_THWC: Frames) -> torch.Tensor:
    size = upright_size(frames_THWC.shape[1:3], Covering(height=112, width=112))
    scaled_THWC = np.stack([resize(frame, size) for frame in frames_THWC[:16]])
    (clip_CTHW,) = spatial_views(scaled_THWC, height=112, width=112, views=1)
    with torch.no_grad():
        return model(normalise(clip_CTHW, mean=MEAN, std=STD)[None]).softmax(-1)[0]


def _trained(videos: VideoSet, *, epochs: int) -> nn.Module:
    model = create_model("c3d_search", num_classes=len(videos.classes), width=0.25)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for epoch in range(epochs):
        batches = train_batches(
            videos,
            clip=CLIP,
            inputs=inputs_of(model),
            augmentation=Augmentation(),
            mean=MEAN,
            std=STD,
            batch=16,
            seed=0,
            epoch=epoch,
            cache_bytes=1 << 30,
        )
        for batch in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*batch.clips), batch.labels).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def _top1(model: nn.Module, videos: VideoSet) -> float:
    batches = view_batches(videos, clip=CLIP, inputs=inputs_of(model), mean=MEAN, std=STD, batch=16)
    with torch.no_grad():
        hits = [model(*batch.clips).argmax(-1) == batch.labels for batch in batches]
    return float(torch.cat(hits).float().mean())


if __name__ == "__main__":
    main()
