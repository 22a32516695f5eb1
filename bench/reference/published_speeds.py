"""Published speeds of models (`speeds.csv`), with the device, precision, batch and clip that they were taken at.

Every row was read at its source, whose commit it names. What a source does not say is None and is never assumed.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, kw_only=True)
class PublishedSpeed:
    """One published speed. `value` is in `unit`: clips, or videos of `views` (temporal x spatial), per second.

    `device` is a kind of GPU such as A100. `includes_decoding` is whether reading videos was part of it. `clip` is
    frames x stride of the clips and `crop` their pixels.
    """

    model: str
    value: float
    unit: str
    views: str
    device: str | None
    precision: str | None
    batch: int | None
    backend: str
    includes_decoding: bool | None
    clip: str
    crop: int
    source: str
    commit: str
    url: str
    note: str

    @property
    def clips_per_s(self) -> float:
        """The speed in clips per second: every view of a video is one clip."""
        if self.unit == "clips/s":
            return self.value
        temporal, spatial = (int(part) for part in self.views.split("x"))
        return self.value * temporal * spatial

    @property
    def printed(self) -> str:
        """The value as its source prints it: `2.3 videos/s of 10x3 views`."""
        return f"{self.value:g} {self.unit}" + (f" of {self.views} views" if self.views else "")

    @property
    def conditions(self) -> str:
        """One line: device, precision, batch, clip and whether decoding is included."""
        parts = [
            self.device or "device not stated",
            self.precision or "precision not stated",
            f"batch {self.batch}" if self.batch is not None else "batch not stated",
            f"{self.clip}x{self.crop}",
        ]
        if self.includes_decoding is not None:
            parts.append("decoding included" if self.includes_decoding else "without decoding")
        return ", ".join(parts)

    def differences(self, *, gpu: str | None, precision: str, clip: str) -> list[str]:
        """Return what keeps a measured speed from being compared with this one, published v measured.

        `gpu` is the full name of the GPU, None on a CPU; `clip` is frames x stride x pixels.
        """
        found = []
        if self.device is None:
            found.append("device not stated")
        elif gpu is None or not re.search(rf"\b{re.escape(self.device)}\b", gpu):
            found.append(f"{self.device} v {gpu or 'CPU'}")
        if self.precision is None:
            found.append("precision not stated")
        elif self.precision != precision:
            found.append(f"{self.precision} v {precision}")
        frames, _, crop = clip.split("x", maxsplit=2)
        if (self.clip.partition("x")[0], str(self.crop)) != (frames, crop):
            found.append(f"clip {self.clip}x{self.crop} v {clip}")
        return found


@cache
def published_speeds() -> tuple[PublishedSpeed, ...]:
    """Return every row of the table, in its order."""
    text = files("bench.reference").joinpath("speeds.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedSpeed(
            model=line["zoo"],
            value=float(line["value"]),
            unit=line["unit"],
            views=line["views"],
            device=line["device"] or None,
            precision=line["precision"] or None,
            batch=int(line["batch"]) if line["batch"] else None,
            backend=line["backend"],
            includes_decoding={"yes": True, "no": False}.get(line["decode"]),
            clip=line["clip"],
            crop=int(line["crop"]),
            source=line["source"],
            commit=line["commit"],
            url=line["url"],
            note=line["note"],
        )
        for line in csv.DictReader(text.splitlines())
    )


def speeds_of(model: str) -> list[PublishedSpeed]:
    """Return the published speeds of a model; empty if there are none."""
    return [speed for speed in published_speeds() if speed.model == model]
