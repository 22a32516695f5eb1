"""Profile of one model: counts, memory estimate, published costs, other counters, and speed on request."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.catalog.catalog import PACKAGED, catalog_source
from bench.core.doubts import timing_doubts
from bench.core.errors import InputError
from bench.core.files import cache_folder, write_cache
from bench.core.model_name import is_registered_name
from bench.core.schema import Case, Clip, Frozen, Json, Metric, Point, Record, digest
from bench.reference.published_speeds import speeds_of

if TYPE_CHECKING:
    from torch import nn

    from bench.measure.counting.model_count import Count
    from bench.measure.counting.operator_log import OperatorRow
    from bench.measure.counting.peak_memory import MemoryEstimate
    from bench.measure.counting.published_costs import KnownCount

SPEED_S = 2.0
MOST_ELEMENTS = 10**12  # of one input, 4 TB; torch overflows above
CONVENTION = (
    "1 MAC = 2 FLOPs. MACs are the products of convolutions, linear layers, matrix products, attention and RNN gates; "
    "no bias, normalisation, activation or pooling. One forward pass of the input shown."
)
DIMENSIONS = "BxCxTxHxW"


class Layer(Frozen):
    """One module, its submodules included."""

    path: str
    type: str
    macs: int
    share: float
    params: int
    activation_bytes: int
    bytes_moved: int
    flops_per_byte: float | None


class Profile(Frozen):
    """What one model costs at one input. Unknown values are None, and `notes` say why."""

    model: str
    inputs: tuple[tuple[int, ...], ...]
    convention: str = CONVENTION
    params: int | None
    params_trainable: int
    buffers: int
    never_called: dict[str, int] = Field(default_factory=dict)
    macs: int
    macs_train_step: int | None
    macs_per_video: int
    views: str
    activation_bytes: int
    bytes_moved: int
    memory_inference_bytes: int | None
    memory_training_bytes: int | None
    counted_on: str
    uncounted_operators: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    counter_reports: tuple[dict[str, Json], ...] = ()
    published: tuple[dict[str, Json], ...] = ()
    speed: tuple[Metric, ...] = ()
    speed_doubts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    speed_notes: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def as_dict(self, *, with_layers: bool = True) -> dict[str, Any]:
        """Return plain data; every count is a whole number."""
        values = self.model_dump(mode="json", exclude=None if with_layers else {"layers"})
        return {**values, "flops": self.flops, "is_complete": not self.uncounted_operators}


def profile(
    model: str,
    input: str | Sequence[int] | Sequence[Sequence[int]] | None = None,  # noqa: A002  # the flag's name
    *,
    num_classes: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights: str | PathLike[str] | None = None,
    entry: str | None = None,
    device: str | None = None,
    counters: Sequence[str] = ("torch",),
    views: str = "1x1",
    with_speed: bool = False,
    wait_idle_s: float | None = None,
    on_wait: Callable[[str], None] = lambda text: None,
) -> Profile:
    """Count `model`, a name as in `create_model`, at `input`: `"1x3x16x112x112"`, a shape, or several.

    `input` None is the model's default clip at batch 1. `views` (temporal x spatial) multiplies the cost of a clip to
    that of a video. `counters` besides `torch` also run fvcore, thop or ptflops. `with_speed` also times the model on
    `device` in its own process, for about 20 seconds. `entry` names the weights in a file that holds several.
    With `wait_idle_s`, the timing waits for an idle machine, at most so long, and `on_wait` gets one line about it.
    Results are cached by a hash of all sources. Raises InputError for an invalid name, shape or argument.
    """
    if wait_idle_s is not None and not with_speed:
        raise InputError("--wait-idle waits before a timing, and nothing is timed; give --speed as well")
    shapes = None if input is None else _shapes(input)
    _views(views)
    _check_device(device)
    arguments = dict(arguments or {})
    if "num_classes" in arguments:
        if num_classes is not None:
            raise InputError(f"num_classes is given twice, as {num_classes} and {arguments['num_classes']!r}")
        num_classes = arguments.pop("num_classes")
    request = {
        "model": model,
        "shapes": shapes,
        "num_classes": num_classes,
        "arguments": arguments,
        "device": device or "meta",
        "counters": list(counters),
        "views": views,
    }
    found = _cached(request) if weights is None else None
    if found is None:
        found = _counted(request, weights=None if weights is None else str(weights), entry=entry)
        if weights is None and _can_cache(model):
            write_cache(_cache_file(request), found.model_dump(mode="json"))
    if not with_speed:
        return found
    from bench.runner.idle import wait_until_idle  # late: counts need nothing of the runner

    wait = None
    if wait_idle_s is not None:
        wait = wait_until_idle(wait_idle_s, device=None if device == "meta" else device, on_wait=on_wait)
    timed = _timed(found, request, weights, entry=entry)
    timed = timed if wait is None else wait.noted_in(timed)
    doubts = {metric.key: each for metric in timed.metrics if (each := timing_doubts(timed, metric))}
    speed = {
        "speed": timed.metrics,
        "speed_doubts": doubts,
        "speed_notes": (*_speed_notes(timed), *_published_speed_notes(timed)),
    }
    return found.model_copy(update=speed)


def _check_device(device: str | None) -> None:
    if device is not None and not re.fullmatch(r"meta|cpu|cuda(:\d+)?", device):
        raise InputError(f"unknown device {device!r}; allowed: meta, cpu, cuda, cuda:N")
    if device is not None and device.startswith("cuda"):
        import torch  # late: a cached answer must not wait for torch

        present = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= present:
            raise InputError(f"there is no device {device!r} here; CUDA devices: {present}; allowed: meta, cpu")


def _shapes(given: str | Sequence[Any]) -> list[list[int]]:
    """Return the shapes of all inputs; raises InputError unless each is five whole numbers of at least 1."""
    if isinstance(given, str):
        parts = given.split(",")
        bad = next((part for part in parts if not re.fullmatch(r"\s*\d+(x\d+){4}\s*", part, re.IGNORECASE)), None)
        if bad is not None:
            raise InputError(_not_a_shape(bad.strip()))
        shapes = [[int(n) for n in part.lower().split("x")] for part in parts]
    else:
        nested: list[Any] = [given] if given and isinstance(given[0], int) else list(given)
        shapes = [list(shape) for shape in nested]
    for shape in shapes:
        if len(shape) != 5 or any(not isinstance(n, int) or n < 1 for n in shape):
            raise InputError(_not_a_shape("x".join(map(str, shape))))
        if math.prod(shape) > MOST_ELEMENTS:
            raise InputError(f"an input of {'x'.join(map(str, shape))} has more than {MOST_ELEMENTS:.0e} elements")
    if len({shape[0] for shape in shapes}) > 1:
        raise InputError("all inputs of a model have the same batch, found " + ", ".join(str(s[0]) for s in shapes))
    return shapes


def _not_a_shape(found: str) -> str:
    dimensions = found.count("x") + 1
    return (
        f"input {found!r} is not a shape of five numbers of at least 1, {DIMENSIONS} "
        f"(batch, channels, frames, height, width), such as 1x3x16x112x112; found {dimensions}"
    )


def _counted(request: Mapping[str, Any], *, weights: str | None, entry: str | None) -> Profile:
    import torch

    from bench.measure.counting.model_count import count
    from bench.measure.counting.published_costs import published_costs

    model = _built(request, weights=weights, entry=entry)
    shapes = [tuple(shape) for shape in request["shapes"] or _default_shapes(request["model"], model)]
    with torch.device("meta"):
        inputs = tuple(torch.empty(shape) for shape in shapes)
    is_meta = request["device"] == "meta"
    forward = count(model, inputs, device="auto" if is_meta else "cpu", with_peak_memory=is_meta)
    step, step_note = _train_step(model, inputs)
    memory = _memory(model, inputs, forward, step)
    return Profile(
        model=request["model"],
        inputs=tuple(shapes),
        params=forward.params,
        params_trainable=forward.trainable,
        buffers=forward.buffers,
        never_called=forward.never_called,
        macs=forward.macs,
        macs_train_step=None if step is None else step.macs,
        macs_per_video=forward.macs * _views(request["views"]),
        views=request["views"],
        activation_bytes=forward.activation_bytes,
        bytes_moved=forward.bytes_moved,
        memory_inference_bytes=memory.inference_bytes,
        memory_training_bytes=memory.training_bytes,
        counted_on=forward.device_used,
        uncounted_operators=forward.uncounted_ops,
        notes=tuple(note for note in (forward.fallback_reason, *forward.notes, step_note, *memory.notes) if note),
        layers=tuple(_layers(forward)),
        counter_reports=tuple(_counter_reports(request, shapes)),
        published=tuple(
            row.as_dict()
            for row in published_costs(
                request["model"], request["arguments"], counted=_known_count(request, shapes, forward)
            )
        ),
    )


def _known_count(
    request: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], forward: "Count"
) -> "KnownCount | None":
    """Return the count of the profile for comparison with published costs; None if it is of another kind of input."""
    from bench.measure.counting.published_costs import KnownCount
    from bench.models.factory import find_model

    batch, _, frames, height, width = max(shapes, key=lambda shape: shape[2])  # of the pathway with all frames
    if batch != 1 or height != width or forward.device_used != "meta":
        return None
    classes = request["num_classes"] or find_model(request["model"]).arguments.get("num_classes")
    return KnownCount(classes=classes, frames=frames, size=height, count=forward)


def _counter_reports(request: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> list[dict[str, Json]]:
    """Return how other counters agree with ours for one clip, each run in its own process."""
    from bench.measure.counting.counters.run_counters import ModelByName, run_counters

    arguments = dict(request["arguments"])
    if request["num_classes"] is not None:
        arguments["num_classes"] = request["num_classes"]
    build = ModelByName(model=request["model"], arguments=arguments)
    agreements = run_counters(build, [list(shape) for shape in shapes], counters=request["counters"])
    return [agreement.as_dict() for agreement in agreements]


def _built(request: Mapping[str, Any], *, weights: str | None, entry: str | None) -> "nn.Module":
    """Return the model in eval mode, on the meta device unless weights are loaded."""
    import torch

    from bench.models.factory import create_model

    with torch.device("cpu" if weights else "meta"):
        model = create_model(
            request["model"], num_classes=request["num_classes"], weights=weights, entry=entry, **request["arguments"]
        )
    return model.eval()


def _default_shapes(name: str, model: "nn.Module") -> list[tuple[int, ...]]:
    from bench.models.base import inputs_of
    from bench.models.factory import find_model

    clip = Clip.model_validate(find_model(name).clip)
    return [spec.shape(clip, batch=1) for spec in inputs_of(model)]


def _memory(model: "nn.Module", inputs: tuple[Any, ...], forward: "Count", step: "Count | None") -> "MemoryEstimate":
    """Return the estimate of both passes as they were counted; of passes of its own if one was not, or not on meta."""
    from bench.measure.counting.peak_memory import MemoryEstimate, peak_memory_estimate

    if forward.peak_memory is None or step is None:
        return peak_memory_estimate(model, inputs)
    return MemoryEstimate(inference=forward.peak_memory, training=step.peak_memory, notes=step.peak_notes)


def _train_step(model: "nn.Module", inputs: tuple[Any, ...]) -> "tuple[Count | None, str | None]":
    from bench.core.errors import BenchError
    from bench.measure.counting.model_count import count

    try:
        return count(model.train(), inputs, backward=True, with_peak_memory=True), None
    except BenchError as error:
        return None, f"no train step was counted: {error}"
    finally:
        model.eval()


def _layers(counted: "Count") -> list[Layer]:
    """Return every module with its totals, in the model's order; the first is the model itself."""
    macs, params = counted.by_module, counted.parameters.by_module
    written = _summed(counted, lambda row: row.bytes_written)
    moved = _summed(counted, lambda row: row.bytes_moved)
    return [
        Layer(
            path=path,
            type=kind,
            macs=macs[path],
            share=macs[path] / counted.macs if counted.macs else 0.0,
            params=params.get(path, 0),
            activation_bytes=written.get(path, 0),
            bytes_moved=moved.get(path, 0),
            flops_per_byte=2 * macs[path] / moved[path] if moved.get(path) else None,
        )
        for path, kind in counted.module_types.items()
    ]


def _summed(counted: "Count", amount: Callable[["OperatorRow"], int]) -> dict[str, int]:
    """Return the sum of an amount over the operators of each module, its submodules included."""
    from bench.measure.counting.module_paths import with_parents

    sums: dict[str, int] = {}
    for row in counted.rows:
        for path in with_parents(row.module):
            sums[path] = sums.get(path, 0) + amount(row)
    return sums


def _views(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise InputError(f"views {text!r} are not temporal x spatial, such as 10x3")
    return int(match[1]) * int(match[2])


def _can_cache(model: str) -> bool:
    """Return whether results can be cached: a user's own factory may change without our sources changing."""
    return is_registered_name(model) or model.startswith(PACKAGED)


def _cache_file(request: Mapping[str, Any]) -> Path:
    return cache_folder() / "profiles" / f"{digest([catalog_source(), request])}.json"


def _cached(request: Mapping[str, Any]) -> Profile | None:
    file = _cache_file(request)
    try:
        return Profile.model_validate_json(file.read_bytes()) if _can_cache(request["model"]) else None
    except (OSError, ValueError):
        return None


def _timed(
    found: Profile, request: Mapping[str, Any], weights: str | PathLike[str] | None, *, entry: str | None
) -> Record:
    """Return a record with latency, throughput, limits and memory on the requested device, from a fresh process."""
    from bench.runner.local import run_case
    from bench.store import RecordStore

    batch, _, frames, height, width = found.inputs[-1]
    args = {**request["arguments"], **({"num_classes": request["num_classes"]} if request["num_classes"] else {})}
    point = Point(
        model=found.model,
        args=args,
        clip=Clip(frames=frames, height=height, width=width),
        batch=batch,
        device=None if request["device"] == "meta" else request["device"],
        weights=None if weights is None else str(weights),
        entry=entry,
        precision="fp32",
    )
    timed: tuple[str, ...] = ("latency", "throughput", "limits")
    measures: dict[str, dict[str, Json]] = {**{name: {"max_s": SPEED_S} for name in timed}, "memory": {}}
    with TemporaryDirectory() as folder:
        case = Case(suite="profile", point=point, measures=measures, timeout_s=600)
        record = run_case(case, RecordStore(Path(folder)), run_index=0, freshness="")
    if record.error is not None:
        raise InputError(f"{found.model} could not be timed: {record.error.type}: {record.error.message}")
    return record


def _speed_notes(record: Record) -> Iterator[str]:
    """Yield where the times were taken, how they stopped, and what to know about them."""
    hardware, software = record.environment.hardware, record.environment.software
    threads = software.get("torch_threads")
    cpu = f"{hardware.get('cpu')}, {threads} of {hardware.get('cpu_threads_usable')} threads"
    yield f"timed on {hardware['gpu']} (host {cpu})" if "gpu" in hardware else f"timed on {cpu}"
    yield (
        f"short timings, {record.seconds['whole']:.0f} s in total: each warms up and is sampled for at most "
        f"{SPEED_S:g} s; a suite samples longer and repeats in fresh processes"
    )
    if record.status != "ok":
        yield f"these times are {record.status}"
    share = record.metric("limits.of_device")
    if share is not None and share.value is not None:
        limits = record.details.get("limits")
        bound = limits.get("bound_by") if isinstance(limits, dict) else None
        yield f"{share.value:.0f} % of what this device can do at this intensity; {bound} is the limit"
    for warning in record.warnings:
        yield f"{warning.what}; {warning.remedy}" if warning.remedy else warning.what


def _published_speed_notes(record: Record) -> Iterator[str]:
    """Yield each published speed of the model, and what keeps it from being compared with this one."""
    gpu, point = record.environment.hardware.get("gpu"), record.case.point
    for speed in speeds_of(point.model):
        differs = speed.differences(
            gpu=None if gpu is None else str(gpu), precision=point.precision or "fp32", clip=str(point.clip)
        )
        verdict = f"differs in {'; '.join(differs)}" if differs else "taken under the same conditions"
        yield f"published: {speed.printed} ({speed.conditions}) by {speed.source}; {verdict}"
