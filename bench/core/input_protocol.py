"""The input protocol of a model: how its clips are prepared, and the source of each part.

Weights only give the accuracy they were trained to if clips are prepared as in training. The parts of a protocol come,
in this order, from what the user gives, from the checkpoint, from the zoo that the checkpoint was recognised as, and
from the model's default. `InputProtocol.over` merges two of them and keeps the source of every part.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from bench.core.errors import InputError, SuiteError, UnknownNameError
from bench.core.files import path_hint
from bench.core.schema import Clip, Frozen, Json
from bench.core.validation import plain_message, spelling_hint
from bench.core.yaml_tree import read_yaml

Channels = Literal["rgb", "bgr"]
Rounding = Literal["floor", "round"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "area"]
CropRounding = Literal["floor", "ceil", "half_even"]
ViewSampling = Literal["blocks", "sections"]
Placement = Literal["ends", "rounded", "offset", "starts", "middles"]
Short = Literal["loop", "clamp"]
Averaging = Literal["softmax", "sigmoid", "score", "max"]
Mark = Literal["given", "stored", "recognised", "assumed"]

# How others call the mean of raw scores.
_AVERAGING_ALIASES = {"raw": "score", "logits": "score", "scores": "score"}
_NUMBER = Annotated[float, Field(allow_inf_nan=False)]


def _numbers(value: Any) -> Any:
    """`90/98/102` as a list; a lone number as a list of one."""
    if isinstance(value, str):
        return value.split("/")
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _checked_resize(value: Any) -> Any:
    """Canonical text of a resize rule: `short:128`, `128x171`, `cover` or `none`."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"short:{value}"
    if isinstance(value, list | tuple) and len(value) == 2:
        value = "x".join(map(str, value))
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("cover", "none") or re.fullmatch(r"(short:)?[1-9]\d*|[1-9]\d*x[1-9]\d*", text):
            return f"short:{text}" if text.isdecimal() else text
    raise ValueError("should be short:128 (short side), 128x171 (H x W), cover (just cover the crop) or none")


def _checked_crop(value: Any) -> Any:
    """Canonical text of a crop: `112` or `128x171` (H x W)."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return str(value)
    if isinstance(value, list | tuple) and len(value) == 2:
        value = "x".join(map(str, value))
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("should be a number of pixels such as 112, or H x W such as 128x171")
    return found[1] if found[2] in (None, found[1]) else found[0]


def _checked_clip(value: Any) -> Any:
    """Canonical text of frames x stride: `16x1`, or `16x@15fps` for frames at a rate."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if not re.fullmatch(r"[1-9]\d*x([1-9]\d*|@\d+(\.\d+)?fps)", text) or "@0fps" in text:
        raise ValueError("should be frames x stride such as 16x1, or frames at a rate such as 16x@15fps")
    return text


def _checked_averaging(value: Any) -> Any:
    return _AVERAGING_ALIASES.get(value, value) if isinstance(value, str) else value


class Source(Frozen):
    """Who says a part: the mark, and the file, zoo or option it comes from."""

    mark: Mark
    origin: str = ""


class InputProtocol(Frozen):
    """What clips a model wants. None means that nobody says; `sources` has the source of every part that is known.

    `channels` is the order of a pixel's values and `scale` the value of white (1 or 255); `mean` and `std` are in the
    order and range of the tensor after both: `(x - mean) / std`. One number stands for all channels.
    `resize` is `short:N` (short side, aspect kept), `HxW`, `cover` (just enough for the crop) or `none`; `rounding` is
    that of the scaled long side. `crop` is the window that the model sees, `N` or `HxW`, and `crop_rounding` that of
    the centre crop's place; `clip` is frames x stride (`16x1`) or frames at a rate (`16x@15fps`). `sampling`,
    `placement` and `short` are those of `bench.data.frame_sampling.sample_views`.
    `averaging` is what the mean over a video's views is taken of; `max` takes the maximum of the probabilities instead.
    `classes` are the names of the outputs in their order.
    """

    channels: Channels | None = None
    scale: Literal[1, 255] | None = None
    mean: Annotated[tuple[_NUMBER, ...], Field(min_length=1, max_length=3), BeforeValidator(_numbers)] | None = None
    std: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=3),
        BeforeValidator(_numbers),
    ] | None = None  # fmt: skip
    resize: Annotated[str, BeforeValidator(_checked_resize)] | None = None
    rounding: Rounding | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    crop: Annotated[str, BeforeValidator(_checked_crop)] | None = None
    crop_rounding: CropRounding | None = None
    clip: Annotated[str, BeforeValidator(_checked_clip)] | None = None
    sampling: ViewSampling | None = None
    placement: Placement | None = None
    short: Short | None = None
    averaging: Annotated[Averaging, BeforeValidator(_checked_averaging)] | None = None
    classes: tuple[str, ...] | None = None
    sources: dict[str, Source] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_length(self) -> "InputProtocol":
        lengths = {len(values) for values in (self.mean, self.std) if values is not None and len(values) > 1}
        if len(lengths) > 1:
            raise ValueError(f"mean {_as_text(self.mean)} and std {_as_text(self.std)} have different lengths")
        return self

    @classmethod
    def of(cls, parts: Mapping[str, Any], *, mark: Mark, origin: str = "", where: str = "") -> "InputProtocol":
        """A protocol of `parts` that all come from one source; parts that are None are left out.

        Raises UnknownNameError for a key that is no part, and InputError for a wrong value, in one line that begins
        with `where` if it is given.
        """
        for key in parts:
            if key not in PARTS:
                raise UnknownNameError("part of an input protocol", str(key), PARTS, where=where)
        known = {key: value for key, value in parts.items() if value is not None}
        source = Source(mark=mark, origin=origin)
        try:
            return cls(**known, sources=dict.fromkeys(known, source))
        except ValidationError as error:
            raise InputError(_in_one_line(error, where=where)) from None

    def over(self, fallback: "InputProtocol") -> "InputProtocol":
        """This protocol, with the parts that it leaves open taken from `fallback`."""
        parts = {**fallback.parts, **self.parts}
        return InputProtocol(**parts, sources={**fallback.sources, **self.sources})

    def without(self, part: str) -> "InputProtocol":
        """This protocol with one part unknown."""
        kept = {name: value for name, value in self.parts.items() if name != part}
        return InputProtocol(**kept, sources={name: source for name, source in self.sources.items() if name != part})

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that are known, by name."""
        return {name: value for name in PARTS if (value := getattr(self, name)) is not None}

    @property
    def resize_size(self) -> int | tuple[int, int] | None:
        """The short side, or (H, W), that frames are scaled to; None if `resize` is `cover`, `none` or not known."""
        if self.resize is None or self.resize in ("cover", "none"):
            return None
        if self.resize.startswith("short:"):
            return int(self.resize.removeprefix("short:"))
        height, width = self.resize.split("x")
        return int(height), int(width)

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """(H, W) of the crop; None if it is not known."""
        if self.crop is None:
            return None
        height, _, width = self.crop.partition("x")
        return int(height), int(width or height)

    def clip_over(self, default: Clip) -> Clip:
        """The clip that this protocol asks for; what it leaves open is that of `default`."""
        height, width = self.crop_size or (default.height, default.width)
        if self.clip is None:
            return default.model_copy(update={"height": height, "width": width})
        frames, _, step = self.clip.partition("x")
        rate = float(step[1:-3]) if step.startswith("@") else None
        stride = None if rate is not None else int(step)
        return Clip(frames=int(frames), stride=stride, fps=rate, height=height, width=width)

    def mark(self, part: str) -> Mark | None:
        """The mark of a part; None if nobody says it."""
        source = self.sources.get(part)
        return None if source is None else source.mark

    @property
    def assumed(self) -> tuple[str, ...]:
        """The parts that decide what a model sees and that nobody but the model's default says."""
        return tuple(name for name in DECISIVE if self.mark(name) == "assumed")

    def __str__(self) -> str:
        """One line: each part with its value, grouped by source."""
        groups: dict[tuple[str, str], list[str]] = {}
        for name, value in self.parts.items():
            source = self.sources.get(name, Source(mark="assumed"))
            groups.setdefault((source.mark, source.origin), []).append(f"{name} {_as_text(value)}")
        order = get_args(Mark)
        groups_by_mark = sorted(groups.items(), key=lambda group: order.index(group[0][0]))
        return "; ".join(
            f"{', '.join(parts)} ({mark}{f': {origin}' if origin else ''})" for (mark, origin), parts in groups_by_mark
        )

    def as_detail(self) -> dict[str, Json]:
        """Plain data for a record: every known part but the class names, and the source of each part."""
        parts: dict[str, Json] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.parts.items()
            if name != "classes"
        }
        sources = {name: source.model_dump(exclude_defaults=True) for name, source in self.sources.items()}
        return {**parts, "classes": None if self.classes is None else len(self.classes), "sources": sources}

    def as_stored(self) -> dict[str, Json]:
        """Plain data for a checkpoint: every known part, class names included. `of` reads it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.parts.items()}


PARTS: tuple[str, ...] = tuple(name for name in InputProtocol.model_fields if name != "sources")
# A wrong value of these turns an accuracy into chance; the rest moves it by little.
DECISIVE = ("channels", "scale", "mean", "std", "resize", "crop", "clip")


def protocol_of_clip(clip: Clip, *, mark: Mark, origin: str = "") -> InputProtocol:
    """The parts `clip` and `crop` of a clip."""
    step = f"{clip.stride}" if clip.fps is None else f"@{clip.fps:g}fps"
    crop = f"{clip.height}x{clip.width}"
    return InputProtocol.of({"clip": f"{clip.frames}x{step}", "crop": crop}, mark=mark, origin=origin)


def parse_protocol(text: str, *, flag: str = "--preprocess") -> InputProtocol:
    """What a user gives: `channels=bgr,scale=255,mean=90/98/102,resize=short:128`, or the path of a YAML file.

    Raises InputError in one line for an unknown part (with the nearest spelling), a part given twice or a wrong value.
    """
    if "=" not in text:
        return read_protocol(Path(text))
    parts: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = (each.strip() for each in piece.partition("="))
        if not equals:
            raise InputError(f"{flag}: {piece!r} is not PART=VALUE, such as channels=bgr (several numbers: 90/98/102)")
        if name == "classes":
            raise InputError(f"{flag}: class names are given by a file, one name a line: --labels FILE")
        if name in parts:
            raise InputError(f"{flag}: {name} is given twice, with {parts[name]!r} and {value!r}")
        parts[name] = value
    return given_protocol(parts, where=flag)


def given_protocol(parts: Mapping[str, Any], *, where: str) -> InputProtocol:
    """A protocol that the user gives as a mapping, texts of a command line included; raises InputError."""
    values = {name: _VALUES.get(name, lambda each: each)(value) for name, value in parts.items()}
    return InputProtocol.of(values, mark="given", where=where)


def read_protocol(path: Path) -> InputProtocol:
    """The protocol in a YAML or JSON file, as given by the user; raises InputError or SuiteError with its place."""
    tree = read_yaml(path)
    if not isinstance(tree.data, Mapping):
        raise SuiteError(str(path), [tree.problem((), "an input protocol is a mapping, such as `channels: bgr`")])
    return given_protocol(tree.data, where=str(path))


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names of a file with one name a line, the line being the index; raises InputError if it has none."""
    if not path.is_file():
        hint = path_hint(path) or "; give a file with one class name a line"
        raise InputError(f"{path} is not a file{hint}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines also splits names at U+2028
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; give a file with one class name a line") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    empty = next((number for number, name in enumerate(names, start=1) if not name), None)
    if empty is not None or not names:
        raise InputError(f"{path}:{empty or 1}: an empty line; a line is the name of the class with its number")
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"{path}: {twice!r} stands on several lines; every class has one line")
    return tuple(names)


def _whole_number(value: Any) -> Any:
    """`255` and 255.0 as a whole number; anything else unchanged, so that the type refuses it."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


_VALUES: dict[str, Callable[[Any], Any]] = {
    "scale": _whole_number,
    "channels": _lowered,
    "rounding": _lowered,
    "interpolation": _lowered,
    "crop_rounding": _lowered,
    "sampling": _lowered,
    "placement": _lowered,
    "short": _lowered,
    "averaging": _lowered,
}


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} names" if value and isinstance(value[0], str) else "/".join(f"{each:g}" for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_one_line(error: ValidationError, *, where: str) -> str:
    problem: dict[str, Any] = {**error.errors()[0]}
    place = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
    found = f", found {problem['input']!r}" if place else ""
    text = f"{place}: {plain_message(problem)}{found}{spelling_hint(problem)}" if place else plain_message(problem)
    return f"{where}: {text}" if where else text
