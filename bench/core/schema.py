"""The types that cross a process or a file: `Clip`, `Case`, `Metric`, `Environment`, `Record`. Frozen and versioned."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.core.errors import InputError
from bench.core.validation import plain_message

SCHEMA_VERSION = 1

Json = None | bool | int | float | str | list[Any] | dict[str, Any]
Status = Literal["ok", "unsteady", "drifting", "throttled", "oom", "timeout", "interrupted", "error", "skipped"]
Better = Literal["lower", "higher"]
Task = Literal["classification", "features", "head"]  # of a model: clips to classes, clips to tokens, tokens to classes
Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp16_weights", "bf16_weights", "fp8"]
MemoryFormat = Literal["contiguous", "channels_last_3d"]
TorchCompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Engine = Literal["cudagraphs", "aotinductor", "onnxruntime", "tensorrt"]
CompileMode = Literal[TorchCompileMode, Engine]
Batch = Annotated[int, Field(ge=1)]

# The execution mode of a timed case if the suite gives none; left out of titles.
DEFAULT_AXES: dict[str, Json] = {"precision": "fp32", "memory_format": "contiguous", "compile": "off"}
GOOD_STATUSES: frozenset[str] = frozenset({"ok", "unsteady", "drifting", "throttled"})
METRIC_NAME_PATTERN = r"^[a-z0-9_]+\.[a-z0-9_]+$"
SHARE_MEASURES = frozenset({"accuracy", "frozen"})  # their metrics in % are shares of videos
COUNT_UNITS = frozenset({"MACs", "elements"})  # units of counts of a model, complete or not


@dataclass(frozen=True)
class SlidingWindows:
    """Clips that begin every `every` frames of a clip from the first frame on, until one reaches the end of the video.

    The last clip is filled from its own frames, as in 3D-ResNets-PyTorch.
    """

    every: int

    def __str__(self) -> str:
        return f"sliding:{self.every}"


# Clips per video (or sliding windows), and crops per frame or `full` for whole frames.
Views = tuple[int | SlidingWindows, int | Literal["full"]]


class Frozen(BaseModel):
    """Base of all types here: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, ser_json_inf_nan="null")


class Clip(Frozen):
    """A clip of video: `frames` frames, every `stride`-th or at `fps` per second, of `height x width` pixels.

    Written `frames x stride x size` (`16x1x112`) or `frames x stride x H x W` (`16x1x128x171`), or as a mapping
    `{seconds: 2, fps: 15, size: 112}`, which gives `round(seconds * fps)` frames.
    """

    frames: int = Field(ge=1, description="Number of frames.")
    stride: int | None = Field(default=1, ge=1, description="Every how many frames one is taken; null with `fps`.")
    fps: float | None = Field(default=None, gt=0, description="Frames per second, in place of a stride.")
    height: int = Field(ge=1, description="Height in pixels.")
    width: int = Field(ge=1, description="Width in pixels.")

    @model_validator(mode="before")
    @classmethod
    def _from_short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _clip_from_text(value)
        if isinstance(value, dict) and "size" in value:
            return _clip_from_mapping(value)
        return value

    def __str__(self) -> str:
        pixels = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        step = f"{self.stride}" if self.fps is None else f"@{self.fps:g}fps"
        return f"{self.frames}x{step}x{pixels}"


def clip_from_text(text: str) -> Clip:
    """Parse a clip such as `16x1x112`; raises InputError for anything else."""
    try:
        return Clip.model_validate(text)
    except ValidationError as error:
        first = error.errors()[0]
        message = plain_message({**first})
        raise InputError(f"clip {text!r}: {first['loc'][0]}: {message}" if first["loc"] else message) from None


def _clip_from_text(text: str) -> dict[str, Any]:
    parts = text.lower().split("x")
    if len(parts) not in (3, 4) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"clip {text!r} is not 'frames x stride x size' such as 16x1x112 (or 16x1x128x171)")
    frames, stride, *pixels = (int(part) for part in parts)
    return {"frames": frames, "stride": stride, "height": pixels[0], "width": pixels[-1]}


def _clip_from_mapping(value: dict[str, Any]) -> dict[str, Any]:
    rest = {k: v for k, v in value.items() if k not in ("size", "seconds")}
    size = value["size"]
    if isinstance(size, list) and len(size) != 2:
        raise ValueError(f"size is a number of pixels, or [height, width], found {size}")
    rest["height"], rest["width"] = size if isinstance(size, list) else (size, size)
    if value.get("fps") is not None and value.get("stride") not in (None, 1):
        raise ValueError(f"a clip has a stride or fps, found stride {value['stride']} and fps {value['fps']}")
    if "seconds" in value:
        if "frames" in value:
            raise ValueError(f"a clip has frames or seconds, found both, {value['frames']} and {value['seconds']}")
        if "fps" not in value:
            raise ValueError("a clip given in seconds needs fps as well, such as {seconds: 2, fps: 15, size: 112}")
        seconds, fps = (_positive(name, value[name]) for name in ("seconds", "fps"))
        rest["frames"], rest["stride"] = max(1, round(seconds * fps)), None
    return rest


def _positive(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1e6:
        raise ValueError(f"{name} should be a number above 0 and below a million, found {value!r}")
    return float(value)


class Pretraining(Frozen):
    """Weights that are trained before the case, on another data set with its own recipe: `trained:motions/quick`.

    `inflated:stills/quick` trains the model on single frames, where it is a 2D model, and inflates its weights to 3D.
    """

    dataset: str
    recipe: str
    is_inflated: bool = False

    @classmethod
    def of(cls, weights: str | None) -> "Pretraining | None":
        """The pretraining that `weights` names; None for a file or None. Raises ValueError for an incomplete name."""
        how, colon, what = (weights or "").partition(":")
        if not colon or how not in ("trained", "inflated"):
            return None
        found = re.fullmatch(r"(?P<dataset>\w+)/(?P<recipe>\w+)", what)
        if found is None:
            raise ValueError(f"weights {weights!r} are not '{how}:<data set>/<recipe>' such as {how}:motions/quick")
        return cls(**found.groupdict(), is_inflated=how == "inflated")


def _checked_views(views: str) -> str:
    views_from_text(views)
    return views


def _checked_weights(weights: str) -> str:
    Pretraining.of(weights)
    return weights


def _axis(description: str, **limits: Any) -> Any:
    """An axis: its meaning, for the reference page, and the limits of its value."""
    return Field(description=description, **limits)


class Point(Frozen):
    """One point of the axes. An axis that no measure of the case depends on is None and not part of the id.

    `weights` is a file, or `trained:<data set>/<recipe>` (or `inflated:`) for weights that are trained first. `entry`
    is the place of the weights in a file that holds several.
    `preprocess` holds the parts of the input protocol that the user gives (`bench.core.input_protocol`).
    """

    model: Annotated[str, _axis("Name of the model, `module:factory` or `file.py:factory`.")]
    args: Annotated[dict[str, Json], _axis("Arguments of the model.")] = Field(default_factory=dict)
    clip: Annotated[Clip, _axis("Frames x stride x size of a clip.")]
    weights: Annotated[
        Annotated[str, AfterValidator(_checked_weights)] | None,
        _axis("A checkpoint, `trained:DATASET/RECIPE` or `inflated:DATASET/RECIPE`."),
    ] = None
    entry: Annotated[str | None, _axis("The place of the weights in a file that holds several.")] = None
    precision: Annotated[Precision | None, _axis("Number format of weights and arithmetic.")] = None
    memory_format: Annotated[MemoryFormat | None, _axis("Order of a tensor's dimensions in memory.")] = None
    compile: Annotated[CompileMode | None, _axis("The compiler or engine that executes the model.")] = None
    device: Annotated[str | None, _axis("Where the model runs: `cpu`, `cuda`, `cuda:1`.")] = None
    threads: Annotated[int | None, _axis("Number of threads on a CPU.", ge=1)] = None
    batch: Annotated[Batch | None, _axis("Number of clips of one forward pass.")] = None
    dataset: Annotated[str | None, _axis("Name of the data set.")] = None
    split: Annotated[int | str | None, _axis("The evaluated part of the data set.")] = None
    recipe: Annotated[str | None, _axis("How the model is trained: a name or a file, with changes.")] = None
    seed: Annotated[int | None, _axis("Seed of a training, or of a draw of videos.", ge=0)] = None
    views: Annotated[
        Annotated[str, AfterValidator(_checked_views)] | None, _axis("Clips x crops of each video, such as `10x3`.")
    ] = None
    preprocess: Annotated[dict[str, Json] | None, _axis("Parts of the input protocol that the user gives.")] = None

    def named(self) -> dict[str, Json]:
        """The axes that are set, as one flat mapping with the arguments of the model; the clip is text."""
        axes = {k: v for k, v in self.model_dump(mode="json").items() if v is not None and k not in ("args", "clip")}
        if self.preprocess is not None:
            axes["preprocess"] = ",".join(f"{part}:{_short_text(value)}" for part, value in self.preprocess.items())
        return {**axes, "clip": str(self.clip), **self.args}


def title_of(axes: Mapping[str, Json]) -> str:
    """A short title of a point, from its axes as `Point.named` gives them; execution modes by default are left out."""
    rest = {k: v for k, v in axes.items() if k not in ("model", "clip") and v != DEFAULT_AXES.get(k)}
    return " ".join([str(axes["model"]), *(f"{k}={v}" for k, v in rest.items()), str(axes["clip"])])


def _short_text(value: Json) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


class Case(Frozen):
    """One point and the measures taken there, each with its options: one process, one record per run of it."""

    suite: str = Field(description="Name of the suite.")
    point: Point = Field(description="The value of each axis.")
    measures: dict[str, dict[str, Json]] = Field(description="The measures taken here, with their options.")
    runs: int = Field(default=1, ge=1, description="How often the case is run, each time in a new process.")
    timeout_s: float = Field(
        default=3600.0, gt=0, allow_inf_nan=False, description="Time limit of one run, in seconds."
    )
    plugins: tuple[str, ...] = Field(default=(), description="Modules to import first.")

    @cached_property  # a plan asks for the id of every case again and again
    def id(self) -> str:
        """Hash of the point and of the names of its measures, 12 hex digits."""
        return digest({"point": self.point.model_dump(mode="json", exclude_none=True), "at": sorted(self.measures)})

    @property
    def title(self) -> str:
        """A short title: `c3d_search kernel_depth=3 16x1x112 seed=1`."""
        return title_of(self.point.named())


class Metric(Frozen):
    """One value with name (`measure.quantity_unit`), unit and better direction. Unknown is None with a `note`.

    A value that is not finite becomes None, as does an interval with such an end; such samples are left out. JSON
    cannot hold them. The note says so, unless it gave a reason before.
    `samples` are the raw values of a sampled metric, in `unit`; `interval` is its 95 % interval. If two runs took
    turns, `turns` has the number of the turn of each sample; turns of both sides with one number are neighbours.
    """

    name: str = Field(pattern=METRIC_NAME_PATTERN, description="`measure.quantity_unit`.")
    value: int | float | None = Field(description="The value; null if unknown.")
    unit: str = Field(description="Unit of value, interval and samples.")
    better: Better | None = Field(default=None, description="Which direction is better; null if neither.")
    is_exact: bool = Field(default=False, description="Whether every run gives this value, such as a complete count.")
    labels: dict[str, str] = Field(default_factory=dict, description="What tells values of one name apart: `batch: 8`.")
    interval: tuple[float, float] | None = Field(default=None, description="The 95 % interval of the value.")
    samples: tuple[float, ...] = Field(default=(), description="The raw values of a sampled metric.")
    turns: tuple[int, ...] = Field(default=(), description="The turn of each sample, if two runs took turns.")
    stopped_because: str | None = Field(default=None, description="Why sampling ended.")
    note: str | None = Field(default=None, description="What a reader must know, such as why the value is unknown.")

    @model_validator(mode="before")
    @classmethod
    def _only_finite(cls, given: Any) -> Any:
        return _made_finite(given) if isinstance(given, dict) else given

    @property
    def is_share(self) -> bool:
        """Whether this is a share of videos, whose number gives the uncertainty of a single run."""
        return self.name.partition(".")[0] in SHARE_MEASURES and self.unit == "%"

    @property
    def is_of_machine(self) -> bool:
        """Whether this depends on the machine: neither a count nor a share of videos."""
        return not self.is_count and not self.is_share

    @property
    def is_count(self) -> bool:
        """Whether this is the same in every run: exact, or counted as far as the operators are known."""
        return self.is_exact or self.unit in COUNT_UNITS

    @property
    def can_drift(self) -> bool:
        """Whether clocks, temperature and load of the machine change this; they do not change bytes or instructions."""
        return self.is_of_machine and self.unit not in ("B", "bytes", "instructions")

    @property
    def key(self) -> str:
        """`throughput.clips_per_s{batch=8}`."""
        labels = ",".join(f"{k}={v}" for k, v in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


def _made_finite(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a metric without values that are not finite, for which older files hold null.

    Fields of a wrong type are left to validation.
    """
    interval, samples, turns = (_sequence(given.get(name)) for name in ("interval", "samples", "turns"))
    if not isinstance(given.get("note") or "", str):
        return given
    mended: dict[str, Any] = {}
    lost = []
    if given.get("value") is not None and not _is_finite(given["value"]):
        mended["value"] = None
        lost += [] if given.get("note") else ["the value is not a finite number"]
    if not all(map(_is_finite, interval)):
        mended["interval"] = None
        lost.append("the interval is not finite")
    if not all(map(_is_finite, samples)):
        kept = [place for place, sample in enumerate(samples) if _is_finite(sample)]
        mended["samples"] = [samples[place] for place in kept]
        if turns:
            mended["turns"] = [turns[place] for place in kept if place < len(turns)]
        lost.append(f"{len(samples) - len(kept)} of {len(samples)} samples are not finite")
    if not mended:
        return given
    notes = [given["note"], *lost] if given.get("note") else lost
    return {**given, **mended, "note": "; ".join(notes)}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _is_finite(value: Any) -> bool:
    """Whether a float can hold this number; a wrong type is left to validation."""
    try:
        return value is not None and math.isfinite(value)
    except OverflowError:
        return False
    except TypeError:
        return True


class RecordWarning(Frozen):
    """A warning in a record: what the reader must know, and what can be done about it."""

    what: str = Field(description="What was seen.")
    remedy: str = Field(default="", description="What can be done about it.")


class Failure(Frozen):
    """Why a case has no result: type and message of the exception, and the end of its traceback."""

    type: str = Field(description="Class of the exception.")
    message: str = Field(description="Its message.")
    traceback: str = Field(default="", description="The end of its traceback.")


class Environment(Frozen):
    """Hardware and software that a record was measured on. Unknown facts are None.

    `hardware` and `software` decide whether two records may be compared; `state` varies from run to run.
    """

    hardware: dict[str, Json] = Field(default_factory=dict, description="GPU, CPU, memory.")
    software: dict[str, Json] = Field(default_factory=dict, description="Libraries, driver, system, settings of torch.")
    state: dict[str, Json] = Field(default_factory=dict, description="Load, clocks, commits, variables: what varies.")


class Record(Frozen):
    """Everything known about one run of one case: a line of `records.jsonl`."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this format.")
    case: Case = Field(description="What was measured.")
    case_id: str = Field(description="Hash of the point and the names of the measures.")
    run_index: int = Field(ge=0, description="Number of this run of the case, from 0.")
    freshness: str = Field(description="One hash of the fingerprint.")
    fingerprint: dict[str, str] = Field(
        default_factory=dict, description="Hash of each part that the result depends on: model source, recipe, data, …"
    )
    status: Status = Field(description="How the run ended.")
    metrics: tuple[Metric, ...] = Field(default=(), description="The values.")
    details: dict[str, Json] = Field(
        default_factory=dict, description="Facts of measures that are no metrics: protocol, training, layers, session."
    )
    uncounted_operators: dict[str, int] = Field(
        default_factory=dict, description="Operators that a count leaves out, with their numbers of calls."
    )
    environment: Environment = Field(default_factory=Environment, description="Where it was measured.")
    warnings: tuple[RecordWarning, ...] = Field(default=(), description="What a reader must know.")
    error: Failure | None = Field(default=None, description="Why the run has no result.")
    artifacts: dict[str, str] = Field(
        default_factory=dict, description="Files of the run by what they hold, as paths below the results folder."
    )
    started_at: str = Field(description="Start of the run, in UTC, ISO 8601.")
    seconds: dict[str, float] = Field(
        default_factory=dict, description="Seconds of each measure, and of the whole run."
    )

    @property
    def is_good(self) -> bool:
        return self.status in GOOD_STATUSES

    @property
    def session(self) -> Json:
        """An id that is the same for all runs of one invocation of vbench; None in old records."""
        return self.details.get("session")

    @property
    def in_turns(self) -> Json:
        """How the run took turns with a run of the other side, by `steps` or `processes`; None if it ran alone."""
        return self.details.get("in_turns")

    def metric(self, key: str) -> Metric | None:
        """The metric with this key (`latency.p50_ms`, `throughput.clips_per_s{batch=8}`), or None."""
        return next((m for m in self.metrics if m.key == key), None)

    def left_out_of(self, metric: Metric) -> dict[str, int]:
        """Operators that `metric`, a count of this record, leaves out, with their numbers of calls."""
        return self.uncounted_operators if metric.is_count and not metric.is_exact else {}


class ModelInfo(Frozen):
    """What planning and listing know of a model; a child process with torch finds it, and it is cached."""

    name: str
    family: str
    clip: Clip
    arguments: dict[str, Json]
    summary: str = ""
    source: str = ""
    former_source: str = ""
    paper: str = ""
    task: Task = "classification"


class ModelCheck(Frozen):
    """Result of building a model on the meta device and running one clip through it.

    `is_local` marks a model of the user's own code, whose answer is not cached, because that code may change at any
    time. `modules` are the hashes of the user's modules that the build imported, by name.
    """

    params: int | None = None
    macs: int | None = None
    problem: str | None = None
    note: str | None = None
    is_local: bool = False
    modules: dict[str, str] = Field(default_factory=dict)


def views_from_text(text: str) -> Views:
    """Parse views such as `10x3` (ten clips of three crops), `10xfull` (whole frames), `sliding:16` or `sliding:16x3`.

    Raises ValueError for anything else.
    """
    found = re.fullmatch(r"(?:([1-9]\d*)x|sliding:([1-9]\d*)(?:x|$))([1-9]\d*|full|(?<!x)$)", text)
    if found is None:
        raise ValueError(
            "should be temporal x spatial, such as 10x3, or 10xfull for whole frames, or sliding:16 for a clip every "
            "16 frames"
        )
    clips, every, crops = found.groups()
    return SlidingWindows(int(every)) if every else int(clips), "full" if crops == "full" else int(crops or 1)


def views_text(views: Views) -> str:
    """Return the text that `views_from_text` parses; sliding windows of one crop are written without it."""
    temporal, spatial = views
    is_short = isinstance(temporal, SlidingWindows) and spatial == 1
    return str(temporal) if is_short else f"{temporal}x{spatial}"


def views_per_video(views: Views) -> int | None:
    """Return how many clips of each video go through the model; None if that depends on the length of the video."""
    temporal, spatial = views
    if isinstance(temporal, SlidingWindows):
        return None
    return temporal if spatial == "full" else temporal * spatial


def is_weights_argument(argument: str) -> bool:
    """Whether an argument of a model names a weights file, which does not change how the model is built."""
    return argument == "inflated_from" or argument.endswith("_weights")


def model_files(name: str) -> list[Path]:
    """The local files that a model `hf:<folder>` consists of: settings and weights in the format of Hugging Face.

    As in transformers, a file `config.json` stands for its folder.
    """
    named = Path(name.removeprefix("hf:")).expanduser()
    if not name.startswith("hf:") or not named.exists():
        return []
    folder = named if named.is_dir() else named.parent
    kinds = ("config.json", "preprocessor_config.json", "*.safetensors", "pytorch_model*.bin")
    return sorted({*([] if named.is_dir() else [named]), *(file for kind in kinds for file in folder.glob(kind))})


def digest(value: Any) -> str:
    """12 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
