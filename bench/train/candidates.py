"""Candidates for a diagnosis: one for each way in which an evaluation may differ from how its weights were trained."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from bench.core.input_change import InputChange
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip, Json, Views, views_text
from bench.data.clips import Reading
from bench.data.shared_views import ViewSetting
from bench.data.view_rule import ViewRule
from bench.reference.zoo_protocols import class_list, zoo_protocols
from bench.train.preprocessing import sampling_of, scaling_of, short_of

STRIDES, FRAMES = (1, 2, 4, 5, 8), (8, 16, 32, 64)
SHORT_SIDES = (112, 128, 171, 182, 224, 256, 320)
SIZES = ("128x171",)  # height x width regardless of the aspect, as C3D was trained
MORE_VIEWS: tuple[Views, ...] = ((3, 1), (1, 3))
DIFFERENT_RANGE = 20.0  # a ratio of deviations from which on the range of the values differs, not only their spread


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that an evaluation does to a video before and after the model.

    `relabelling` maps each output, in the order of the protocol's classes, to the class that it stands for.
    """

    protocol: InputProtocol
    clip: Clip
    views: Views = (1, 1)
    change: InputChange = field(default_factory=InputChange)
    relabelling: tuple[int, ...] | None = None

    @property
    def averaging(self) -> str:
        return self.protocol.averaging or "softmax"

    @property
    def forward_key(self) -> str:
        """Equal for two settings with the same outputs of the model: only labels and averages differ."""
        parts = {k: v for k, v in self.protocol.parts.items() if k not in ("averaging", "classes", "clip", "crop")}
        return f"{sorted(parts.items())} {self.clip} {self.views} {self.change}"

    def view_setting(self, backend: str) -> ViewSetting:
        """Which views this setting takes, and how their frames are read: by `backend`, or the one of its change."""
        protocol = self.protocol
        rule = ViewRule(
            clip=self.clip,
            views=self.views,
            crop_rounding=protocol.crop_rounding or "floor",
            sampling=sampling_of(protocol),
            placement=protocol.placement or "ends",
            short=short_of(protocol),
            changes=(self.change,),
        )
        reading = Reading(size=scaling_of(protocol, self.clip), backend=backend)
        return ViewSetting(rule=rule, reading=rule.changed_reading(reading))

    def with_parts(self, **parts: Any) -> "Setting":
        """This setting with other parts of the input protocol."""
        return replace(self, protocol=InputProtocol.of(parts, mark="given").over(self.protocol))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A possible mistake of the evaluation. `lines` are the keys of a suite that correct it.

    `parts` is the number of things it changes: of equally good candidates the one that changes least is the cause.
    """

    topic: str
    what: str
    setting: Setting
    lines: Mapping[str, Json]
    parts: int = 1


def candidates(setting: Setting, *, stored: InputProtocol, classes: Sequence[str]) -> list[Candidate]:
    """Every candidate that differs from `setting`, one mistake each; `stored` is the protocol of the checkpoint.

    `classes` are those of the data set. The order in which classes are best renumbered is found from the outputs, not
    here.
    """
    makers: tuple[Callable[[], Iterator[Candidate]], ...] = (
        lambda: _pixels(setting, stored),
        lambda: _scaling(setting, stored),
        lambda: _clips(setting, stored),
        lambda: _sampling(setting),
        lambda: _reading(setting),
        lambda: _class_orders(setting, stored, classes),
    )
    found: dict[str, Candidate] = {}
    for make in makers:
        for each in make():
            key = f"{each.setting.forward_key} {each.setting.averaging} {each.setting.protocol.classes}"
            if each.setting != setting and key not in found:
                found[key] = each
    return list(found.values())


def _of_parts(setting: Setting, topic: str, *, count: int = 1, **parts: Any) -> Candidate:
    """A candidate that changes parts of the protocol."""
    changes = ", ".join(
        f"{name} {_text(getattr(setting.protocol, name))} → {_text(value)}" for name, value in parts.items()
    )
    lines: dict[str, Json] = {
        "preprocess": {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}
    }
    return Candidate(topic=topic, what=changes, setting=setting.with_parts(**parts), lines=lines, parts=count)


def _pixels(setting: Setting, stored: InputProtocol) -> Iterator[Candidate]:
    """Order of the channels, range of the values, and the mean and deviation of every zoo."""
    p = setting.protocol
    yield _of_parts(setting, "channel order", channels="bgr" if p.channels != "bgr" else "rgb")
    scale = p.scale or 1
    yield _of_parts(setting, "value range", scale=1 if scale == 255 else 255)
    own = _normalisation(scale, p.mean, p.std)
    for mean, std in dict.fromkeys([*_stored_normalisation(stored), *zoo_normalisations()]):
        if all(
            math.isclose(new, old, rel_tol=0.01, abs_tol=0.002)
            for new, old in zip((*mean, *std), (*own[0], *own[1]), strict=True)
        ):
            continue  # what the evaluation does already, but for rounding
        is_range = not 1 / DIFFERENT_RANGE < std[0] / own[1][0] < DIFFERENT_RANGE
        topic = "value range, mean and deviation" if is_range else "mean and deviation"
        in_scale = {"mean": _scaled(mean, scale), "std": _scaled(std, scale)}
        yield _of_parts(setting, topic, count=3 if is_range else 2, **in_scale)


def _stored_normalisation(stored: InputProtocol) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    known = stored.mean is not None and stored.std is not None
    return [_normalisation(stored.scale or 1, stored.mean, stored.std)] if known else []


@cache
def zoo_normalisations() -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Mean and deviation of each zoo for values of 0 to 1, without those that are the same to three digits."""
    found: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    for zoo in zoo_protocols().values():
        parts = zoo.parts
        if "mean" in parts and "std" in parts:
            mean, std = _normalisation(parts.get("scale", 1), parts["mean"], parts["std"])
            found.setdefault(" ".join(f"{value:.2g}" for value in (*mean, *std)), (mean, std))
    return tuple(found.values())


def _normalisation(
    scale: float, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel for values of 0 to 1."""
    three = [tuple(values) * 3 if len(values) == 1 else tuple(values) for values in (mean or (0.0,), std or (1.0,))]
    return tuple(round(value / scale, 7) for value in three[0]), tuple(round(value / scale, 7) for value in three[1])


def _scaled(values: Sequence[float], scale: float) -> tuple[float, ...]:
    return tuple(float(f"{value * scale:.6g}") for value in values)


def _scaling(setting: Setting, stored: InputProtocol) -> Iterator[Candidate]:
    """Short side, size, filter, rounding, and place of the crop."""
    p, clip = setting.protocol, setting.clip
    sides = [f"short:{side}" for side in SHORT_SIDES if clip.height <= side <= 2.5 * clip.height]
    sizes = [
        size
        for size in SIZES
        if all(c <= int(s) for c, s in zip((clip.height, clip.width), size.split("x"), strict=True))
    ]
    for rule in dict.fromkeys([*([stored.resize] if stored.resize else []), "cover", *sides, *sizes]):
        if rule != p.resize:
            yield _of_parts(setting, "size of the frames", resize=rule)
    for interpolation in ("bilinear", "bicubic", "nearest", "area"):
        if interpolation != (p.interpolation or "bilinear"):
            yield _of_parts(setting, "filter of the scaling", interpolation=interpolation)
    yield _of_parts(setting, "filter of the scaling", antialias=p.antialias is False)
    yield _of_parts(setting, "rounding of the size", rounding="floor" if p.rounding == "round" else "round")
    yield _of_parts(setting, "place of the crop", crop_rounding="ceil" if p.crop_rounding != "ceil" else "floor")


def _clips(setting: Setting, stored: InputProtocol) -> Iterator[Candidate]:
    """Stride and number of frames; the stored clip first, which differs in both if it has to."""
    clip = setting.clip
    if stored.clip is not None or stored.crop is not None:
        yield _of_clip(setting, "clip", stored.clip_over(clip), count=2)
    for stride in STRIDES if clip.fps is None else ():
        if stride != clip.stride:
            yield _of_clip(setting, "stride", clip.model_copy(update={"stride": stride}))
    for frames in FRAMES:
        if frames != clip.frames:
            yield _of_clip(setting, "clip length", clip.model_copy(update={"frames": frames}))


def _of_clip(setting: Setting, topic: str, clip: Clip, *, count: int = 1) -> Candidate:
    found = replace(setting, clip=clip)
    return Candidate(
        topic=topic, what=f"clip {setting.clip} → {clip}", setting=found, lines={"clip": str(clip)}, parts=count
    )


def _sampling(setting: Setting) -> Iterator[Candidate]:
    """How clips are taken and filled, how many views there are, and how they are averaged."""
    p = setting.protocol
    yield _of_parts(setting, "sampling", sampling="sections" if (p.sampling or "blocks") == "blocks" else "blocks")
    yield _of_parts(setting, "filling of short videos", short="clamp" if (p.short or "loop") == "loop" else "loop")
    yield _of_parts(setting, "place of the clips", placement="starts" if p.placement != "starts" else "ends")
    if setting.views == (1, 1):
        for views in MORE_VIEWS:
            text = views_text(views)
            found = replace(setting, views=views)
            yield Candidate(topic="views", what=f"views 1x1 → {text}", setting=found, lines={"views": text})
        return
    for averaging in ("softmax", "score", "max", "sigmoid"):
        if averaging != setting.averaging:
            yield _of_parts(setting, "averaging", averaging=averaging)


def _reading(setting: Setting) -> Iterator[Candidate]:
    """Another decoder, and frames that were stored as JPEGs."""
    texts = ["jpeg:75"]
    if has_torchcodec():
        texts.append("decoder:torchcodec")
    for text in texts if setting.change.entry is None else []:
        topic = "decoder" if text.startswith("decoder") else "JPEG frames"
        what, lines = f"input {text}", {"accuracy": {"change": [text]}}
        yield Candidate(topic=topic, what=what, setting=replace(setting, change=InputChange.parse(text)), lines=lines)


@cache
def has_torchcodec() -> bool:
    """Whether torchcodec can be used here."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def _class_orders(setting: Setting, stored: InputProtocol, classes: Sequence[str]) -> Iterator[Candidate]:
    """The outputs in the order of the checkpoint's names, of the zoos' lists, or of the names sorted in usual ways."""
    orders: dict[str, Sequence[str]] = {
        "sorted by their bytes": sorted(classes),
        "sorted without regard to case": sorted(classes, key=str.casefold),
        "sorted with numbers by their value": sorted(classes, key=_natural),
    }
    if stored.classes is not None:
        orders["of the checkpoint"] = stored.classes
    for zoo in zoo_protocols():
        names = class_list(zoo, len(classes))
        if names is not None:
            orders.setdefault(f"of {zoo}", names)
    current = list(setting.protocol.classes or classes)
    for source, order in orders.items():
        if set(order) == set(classes) and list(order) != current:
            lines: dict[str, Json] = {"labels": f"classes.txt, one name a line: {', '.join(order)}"}
            found = setting.with_parts(classes=tuple(order))
            yield Candidate(topic="class order", what=f"class names {source}", setting=found, lines=lines)


def renumbered(setting: Setting, mapping: tuple[int, ...], *, classes: Sequence[str]) -> Candidate:
    """A candidate in which output i stands for class `mapping[i]`, an order that was found from the outputs."""
    names = ", ".join(classes[number] for number in mapping if number < len(classes))
    return Candidate(
        topic="class order",
        what="classes renumbered as fits the outputs best",
        setting=replace(setting, relabelling=mapping),
        lines={"labels": f"classes.txt, one name a line: {names}"},
    )


def _natural(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{each:.4g}" for each in value)
    return "default" if value is None else str(value)
