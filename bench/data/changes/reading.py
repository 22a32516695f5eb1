"""Changes of how videos are decoded and scaled, and of the file itself; each needs a decoding of its own."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import VideoError
from bench.core.registry import register_change

if TYPE_CHECKING:
    from bench.data.clips import Reading

FILTERS = ("nearest", "bilinear", "bicubic", "area")
SHARP = "no_antialias"
ASSUMED_FPS = 25.0  # of frame folders, which have no rate


@register_change("resize", stage="reading", choices=(*FILTERS, SHARP, "round", "floor"))
def other_resize(reading: "Reading", *, value: str) -> "Reading":
    """Frames are scaled with another filter, without smoothing (no_antialias), or with another rounding."""
    from bench.data.geometry import Scaling

    scaling = reading.size if isinstance(reading.size, Scaling) else Scaling(size=reading.size)
    if value == SHARP:
        return replace(reading, size=replace(scaling, antialias=False))
    part = "interpolation" if value in FILTERS else "rounding"
    return replace(reading, size=replace(scaling, **{part: value}))  # type: ignore[arg-type]  # one of two literals


@register_change("decoder", stage="reading", choices=("pyav", "torchcodec", "nvdec"))
def other_decoder(reading: "Reading", *, value: str) -> "Reading":
    """Videos are decoded by another library."""
    return replace(reading, backend=value)


@register_change("bitrate", stage="file", default=0.1, between=(0.001, 1), severities=(0.5, 0.25, 0.1, 0.05, 0.02))
def lower_bitrate(source: Path, target: Path, *, value: float) -> None:
    """Videos are encoded again, as H.264 at VALUE of the bit rate of their file."""
    from fractions import Fraction

    from bench.data.encode import write_mp4
    from bench.data.prepare import every_frame
    from bench.data.probing import probe
    from bench.data.shards import source_of

    if source.is_dir():
        pictures = [path.stat().st_size for path in source.iterdir() if path.is_file()]
        frames, fps, size = len(pictures), ASSUMED_FPS, sum(pictures)
    else:
        facts = probe(source)
        if not facts.is_ok:
            raise VideoError(facts.problem)
        frames, fps, size = facts.frames, facts.fps or ASSUMED_FPS, source_of(source).size
    bits_per_s = max(1000, round(8 * size * fps / max(1, frames) * value))
    options = {
        "b": str(bits_per_s),
        "maxrate": str(bits_per_s),
        "bufsize": str(2 * bits_per_s),
        "preset": "veryfast",
        "x264-params": "threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0",  # the same bytes every time
    }
    rate = Fraction(fps).limit_denominator(1001)
    write_mp4(target, every_frame(source, short_side=None, is_even=True), fps=rate, options=options)
