"""The process that runs the items of `benchmarks.gpu_run`: cases by vbench's own measures, and checks.

A check touches one CUDA path once and raises AssertionError if it does not do what vbench relies on. The tests marked
`gpu` run the same checks.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.core.errors import InputError, MissingPackageError, is_out_of_memory
from bench.core.nvml import read_gpu_state
from bench.core.process import ReplyPipe, read_requests
from bench.core.registry import MEASURES
from bench.core.schema import Case, Clip, Json, Point, Record
from bench.measure.context import CaseContext
from bench.measure.energy_counter import counter_of
from bench.measure.execution_mode import ExecutionMode, refusal
from bench.measure.timing.batch_search import BatchTrials
from bench.measure.timing.canary import compare_canary, time_canary
from bench.measure.timing.ceilings import ceilings_of
from bench.measure.timing.clocks import synchronize, time_parts, time_work
from bench.measure.timing.forward import forward_of, free_device_memory, prepare_model
from bench.measure.timing.sampling import SamplingRule, take_samples
from bench.measure.timing.throttling import watch_throttling
from bench.runner.worker import measure_case

SMALL = {"width": 0.25, "num_classes": 16}  # every linear layer has sides in multiples of 16, as float8 needs
CLIP = "16x1x112"
AGREE = 0.05  # of two independent timers of one model
TIMER_S = 0.5


class NotHereError(Exception):
    """This device or machine does not have what the check is about."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The device under test, a folder for files, and whether the small models are shrunk for a dry run."""

    device: str
    folder: Path
    is_tiny: bool = False

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def case(
        self, model: str = "c3d_search", *, measures: Mapping[str, dict[str, Json]] | None = None, **axes: Any
    ) -> CaseContext:
        """A case of a small model on the device; `axes` are those of a point."""
        small = {"width": 0.05, "num_classes": 16} if self.is_tiny else SMALL
        axes = {
            "args": small if model == "c3d_search" else {},
            "clip": "4x1x32" if self.is_tiny else CLIP,
            **axes,
        }
        point = Point(model=model, device=self.device, **{**axes, "clip": Clip.model_validate(axes["clip"])})
        refused = refusal(ExecutionMode(**{k: axes[k] for k in ("precision", "compile") if k in axes}), self.device)
        if refused is not None:
            raise NotHereError(refused)
        case = Case(suite="gpu_run", point=point, measures={})
        return CaseContext(case, artifacts=self.folder / "artifacts" / case.id, session=str(os.getppid()))

    def measured(
        self, name: str, axes: Mapping[str, Any], options: Mapping[str, Json]
    ) -> tuple[dict[str, Any], CaseContext]:
        """The metrics of one of vbench's measures on the small model, by key, and the case they were taken of."""
        case = self.case(**axes)
        return {m.key: m.value for m in MEASURES.get(name).function(case, **options)}, case


Details = dict[str, Any]
Check = Callable[[Target], Details]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


@check
def clocks(on: Target) -> Details:
    """NVML returns clock, temperature, power and the reasons for a low clock."""
    state = read_gpu_state(on.device)
    if state is None:
        raise NotHereError("NVML knows no such device")
    assert state.clock_mhz, f"NVML returned no SM clock: {state}"
    assert state.temperature_c, f"NVML returned no temperature: {state}"
    assert state.power_w, f"NVML returned no power: {state}"
    assert state.reasons is not None, f"NVML returned no reasons for a low clock: {state}"
    return vars(state) | {"reasons": ", ".join(state.reasons)}


@check
def events(on: Target) -> Details:
    """The device's clock lies within the wall clock, and agrees with events that torch's documentation describes."""
    device, work = torch.device(on.device), _matmul(on)
    samples = [time_work(work, device) for _ in range(20)][5:]
    wall_s = statistics.median(sample.wall_s for sample in samples)
    if not on.is_cuda:
        return {"wall_ms": 1000 * wall_s}
    device_s = statistics.median(sample.device_s or 0.0 for sample in samples)
    own_s = statistics.median(_between_events(work, device) for _ in range(15))
    assert 0 < device_s <= 1.02 * wall_s, f"device {device_s} s, wall {wall_s} s"
    assert abs(device_s / own_s - 1) < AGREE, f"device {device_s} s by vbench, {own_s} s by plain events"
    return {"wall_ms": 1000 * wall_s, "device_ms": 1000 * device_s, "plain_events_ms": 1000 * own_s}


@check
def parts(on: Target) -> Details:
    """The parts of a step add up to no more than the time of the whole; the second one does twice the work."""
    work = _matmul(on)
    steps = (lambda: work(), lambda: (work(), work()))
    sample = [time_parts(steps, torch.device(on.device)) for _ in range(10)][-1]
    whole = sample.device_s or sample.wall_s
    assert sum(sample.parts_s) <= 1.05 * whole, f"parts {sample.parts_s} s, whole {whole} s"
    return {"parts_ms": [round(1000 * part, 4) for part in sample.parts_s], "whole_ms": 1000 * whole}


@check
def streams(on: Target) -> Details:
    """Two streams of one process run at a time, each waited for alone."""
    found, case = on.measured("concurrent", {}, {"streams": 2, "max_s": 0.3})
    details: Any = case.details["concurrent at 2 streams"]
    served = details["requests_by_stream"]
    assert min(served) > 0, f"one stream was never served: {served}"
    return {"clips_per_s": found["concurrent.clips_per_s{streams=2}"], "requests_by_stream": served}


@check
def cuda_graph(on: Target) -> Details:
    """A recorded pass computes what the eager one does, and reads other clips when they are copied in."""
    details = _parity(on, compile="cudagraphs", batch=2)
    prepared = prepare_model(on.case(compile="cudagraphs", batch=2))
    first, other = (prepared.forward(2, seed=seed)().clone() for seed in (0, 1))
    assert not torch.equal(first, other), "the graph returned the same logits for other clips"
    return details


@check
def autocast(on: Target) -> Details:
    """Mixed precision stays within its tolerance, and differs from fp32: it was switched on."""
    found = _parity(on, precision="bf16", batch=2)
    assert found["max_difference"], "bf16 gave the very logits of fp32"
    return found


@check
def fp8(on: Target) -> Details:
    """Linear layers in float8 stay within their tolerance."""
    return _parity(on, precision="fp8", batch=2)


@check
def memory(on: Target) -> Details:
    """Peak memory of a pass holds at least the weights and the clips."""
    found, case = on.measured("memory", {"batch": 2}, {})
    allocated = found["memory.peak_allocated_bytes"]
    weights = sum(p.numel() * p.element_size() for p in case.build_model("cpu").parameters())
    if on.is_cuda:
        assert allocated >= weights, f"{allocated} bytes allocated, weights alone take {weights}"
        assert found["memory.peak_reserved_bytes"] >= allocated, "less was reserved than allocated"
    return {"peak_allocated_bytes": allocated, "weights_bytes": weights}


@check
def energy(on: Target) -> Details:
    """The counter of joules rises under load, by a power that lies between 10 W and 2 kW."""
    counter, work = counter_of(on.device), _matmul(on)
    if counter is None:
        raise NotHereError("no energy counter of this device can be read")
    before_j, started_s = counter.joules(), time.perf_counter()
    while time.perf_counter() - started_s < 1.0:
        time_work(work, torch.device(on.device))
    after_j, seconds = counter.joules(), time.perf_counter() - started_s
    assert before_j is not None, "the counter could be read once only"
    assert after_j is not None, "the counter could be read once only"
    watts = (after_j - before_j) / seconds
    assert 10 < watts < 2000, f"{watts} W: is the counter in another unit?"
    return {"source": counter.name, "watts": watts}


@check
def canary(on: Target) -> Details:
    """Two canaries of an undisturbed device agree within 5 %; a disturbed one is reported, not failed."""
    device = torch.device(on.device)
    compared = compare_canary(time_canary(device), time_canary(device))
    return {name: round(times["ratio"], 4) for name, times in compared.items()} | {
        f"{name} before": times["before"] for name, times in compared.items()
    }


@check
def throttle(on: Target) -> Details:
    """A second of load is watched: ranges of clock, temperature and power, and what held the clock back."""
    watch, work, started_s = watch_throttling(on.device), _matmul(on), time.perf_counter()
    while time.perf_counter() - started_s < 1.0:
        time_work(work, torch.device(on.device))
        watch.is_throttled()
    found = watch.summary()
    if found is None:
        raise NotHereError("NVML knows no such device")
    assert found["clock_mhz"], f"no clock was read: {found}"
    return found


@check
def oom(on: Target) -> Details:
    """Exhausted memory is recognised as such, and the device works afterwards."""
    try:
        torch.empty(1 << 45, dtype=torch.uint8, device=on.device)
    except Exception as error:  # whatever class this build of torch raises is the question
        assert is_out_of_memory(error), f"{type(error).__name__} was not recognised: {error}"
        assert float(torch.ones(2, device=on.device).sum()) == 2
        return {"raised": type(error).__name__}
    raise AssertionError("32 TiB could be allocated")


@check
def max_batch(on: Target) -> Details:
    """A process of its own tries batches: a small one fits and has a rate, one beyond the device's memory does not."""
    with BatchTrials(on.case()) as trials:
        rate = trials.rate(2)
        assert rate, f"batch 2 did not run: {trials.broken}"
        if on.is_cuda:
            total = torch.cuda.get_device_properties(torch.device(on.device)).total_memory
            clip_bytes = 3 * 16 * 112 * 112 * 4
            assert not trials.fits(2 * total // clip_bytes), "twice the device's memory was said to fit"
            assert trials.fits(2), f"after a batch that did not fit none fits: {trials.broken}"
    return {"clips_per_s": rate, "broken": dict(trials.broken)}


@check
def nvdec(on: Target) -> Details:
    """NVDEC decodes a file of `motions` to the frames that PyAV decodes."""
    if not on.is_cuda:
        raise NotHereError("NVDEC is a part of NVIDIA GPUs")
    from bench.data.pyav_reader import read_file
    from bench.data.torchcodec_reader import read_file_with_torchcodec

    file, places = next(_motions(on).rglob("*.mp4")), [0, 5, 11]
    try:
        on_gpu = read_file_with_torchcodec(file, places, size=None, device="cuda").astype("int16")
    except MissingPackageError as error:
        raise NotHereError(str(error)) from error
    on_cpu = read_file(file, places, size=None).astype("int16")
    difference = float(abs(on_gpu - on_cpu).mean())
    assert difference < 3, f"frames differ by {difference:.1f} grey levels on average"
    return {"mean_difference": difference}


@check
def compile(on: Target) -> Details:  # noqa: A001  # the name of the axis
    """torch.compile computes what eager does."""
    return _compiled(on, "default")


@check
def aotinductor(on: Target) -> Details:
    """A library compiled ahead computes what eager does, its casts inside."""
    return _compiled(on, "aotinductor", precision="bf16")


def _compiled(on: Target, mode: str, **axes: Any) -> Details:
    if on.is_tiny:
        raise NotHereError("compiles for half a minute; left out of the tiny run")
    return _parity(on, compile=mode, batch=2, **axes)


@check
def ceilings(on: Target) -> Details:
    """TFLOP/s of matrix products by precision and of a 3x3x3 convolution, GB/s of a copy."""
    found: Details = {}
    for precision in ("fp32", "tf32", "bf16_weights", "fp16_weights", "fp8"):
        try:
            case = on.case(precision=precision)
            prepare_model(case)  # switches TF32 as this precision wants it
            measured = ceilings_of(case)
        except (NotHereError, InputError) as error:
            found[f"{precision} matmul"] = str(error)
            continue
        found[f"{precision} matmul_tflops"] = measured.flops_per_s / 1e12
        found["copy_gb_per_s"] = measured.bytes_per_s / 1e9
        free_device_memory()
    return found | {"bf16 conv3d_tflops": _conv3d_flops_per_s(on) / 1e12}


@check
def short_training(on: Target) -> Details:
    """Trains R3D-18 on H.264 files of eight motions in bf16: seconds, clips/s, and accuracy on other files."""
    from bench.data.collection import open_dataset
    from bench.train.curves import read_curves
    from bench.train.fitting import fit
    from bench.train.recipe import Recipe

    model = on.case("resnet3d_18", args=_resnet_args(on)).build_model()
    recipe = Recipe.model_validate(
        {
            "recipe": "gpu_run",
            "source": "chosen here: `quick` in mixed precision",
            "epochs": 1 if on.is_tiny else 6,
            "batch": 8 if on.is_tiny else 32,
            "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.01},
            "schedule": {"name": "cosine"},
            "amp": "bf16" if on.is_cuda else "off",  # a CPU without bf16 units takes minutes for a backward pass
            "memory_format": "channels_last_3d",
            "validate_every": 1 if on.is_tiny else 3,
            "augmentation": {"sampling": "random"},
        }
    )
    root = _motions(on)
    train, val = (open_dataset("motions", root=str(root), split=split) for split in ("train", "val"))
    started_s, clip = time.perf_counter(), Clip.model_validate("4x1x32" if on.is_tiny else "16x1x64")
    result = fit(
        model,
        recipe,
        train,
        val=val,
        clip=clip,
        seed=0,
        device=on.device,
        folder=on.folder / "training",
        workers=_workers(on),
    )
    rows = read_curves(result.curves)
    return {
        "seconds": time.perf_counter() - started_s,
        "videos": len(train),
        "clips_per_s": [round(float(row["clips_per_s"] or 0.0), 1) for row in rows],
        "val_top1": [row.get("val_top1") for row in rows],
    }


@check
def end_to_end(on: Target) -> Details:
    """From H.264 files to logits by vbench's measure: each stage alone and all together."""
    seconds, batch = (0.2, 4) if on.is_tiny else (2.0, 32)
    case = on.case(
        "resnet3d_18",
        args=_resnet_args(on),
        clip="4x1x32" if on.is_tiny else "16x1x64",
        dataset="motions",
        precision="bf16",
        memory_format="channels_last_3d",
        batch=batch,
    )
    options = {"root": str(_motions(on)), "workers": _workers(on), "lane_s": seconds}
    metrics = MEASURES.get("end_to_end").function(case, **options)
    details: Any = case.details["end_to_end"]
    return {m.name: m.value for m in metrics} | {"verdict": details["verdict"]}


@check
def agreement(on: Target) -> Details:
    """vbench's latency and throughput against torch.utils.benchmark and against plain CUDA events around the model."""
    from torch.utils.benchmark import Timer

    found: Details = {}
    device = torch.device(on.device)
    clips = {"c3d_search": "4x1x32"} if on.is_tiny else {"c3d": CLIP, "resnet3d_50": CLIP, "slowfast_r50": "32x2x224"}
    for name, clip in clips.items():
        forward = forward_of(on.case(name, clip=clip))(1)
        forward.warm()
        timed = take_samples(forward.latency, SamplingRule(max_s=TIMER_S, min_s=0.1), clock_s=time.perf_counter)
        ours_s = statistics.median(timed.samples_s)
        timer = Timer("forward(); wait(device)", globals={"forward": forward, "wait": synchronize, "device": device})
        theirs_s = timer.blocked_autorange(min_run_time=TIMER_S).median
        ratios = {"latency / torch.utils.benchmark": ours_s / theirs_s}
        if on.is_cuda:
            passes = 20
            block_s = statistics.median(forward.block(passes).wall_s for _ in range(5))
            plain_s = statistics.median(_between_events(forward, device, times=passes) for _ in range(5))
            ratios["throughput pass / plain events"] = block_s / plain_s
        found |= {f"{name} {what}": ratio for what, ratio in ratios.items()}
        assert on.is_tiny or all(abs(r - 1) < AGREE for r in ratios.values()), f"{name}: {ratios}"
        free_device_memory()
    return found


def _parity(on: Target, **axes: Any) -> Details:
    """Parity of a small model with eager fp32; AssertionError beyond the tolerance of its precision."""
    try:
        found, case = on.measured("parity", axes, {})
    except InputError as error:
        raise NotHereError(str(error)) from error
    details: Any = case.details["parity"]
    assert details["is_within_tolerance"], f"out of tolerance: {details}"
    return {"max_difference": found["parity.max_difference"], "top1_agreement": found["parity.top1_agreement"]}


def _matmul(on: Target) -> Callable[[], object]:
    size = 4096 if on.is_cuda else 128
    left, right, product = (torch.ones(size, size, device=on.device) for _ in range(3))
    return lambda: torch.matmul(left, right, out=product)


def _between_events(work: Callable[[], object], device: torch.device, *, times: int = 1) -> float:
    """Seconds of one of `times` calls, as torch's notes on CUDA time them: two events and a wait, nothing of vbench."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        first.record()
        for _ in range(times):
            work()
        last.record()
        torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000 / times


def _conv3d_flops_per_s(on: Target) -> float:
    """FLOP/s of a bf16 convolution of 3x3x3 in the middle of a network, channels last."""
    channels, side = (8, 8) if on.is_tiny else (256, 28)
    layer = nn.Conv3d(channels, channels, 3, padding=1, bias=False, device=on.device, dtype=torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last_3d)
    clips = torch.randn(8, channels, 8, side, side, device=on.device, dtype=torch.bfloat16)
    clips = clips.to(memory_format=torch.channels_last_3d)
    rule = SamplingRule(window=5, warmup_s=0.5, min_samples=10, min_s=0.1, max_s=0.5)
    with torch.inference_mode():
        timed = take_samples(
            lambda: time_work(lambda: layer(clips), torch.device(on.device)), rule, clock_s=time.perf_counter
        )
    macs = clips.numel() * channels * 27
    return 2 * macs / statistics.median(timed.work_s)


def _motions(on: Target) -> Path:
    """The folder of a small data set of H.264 files, written once."""
    from bench.data.datasets.motions import MotionsParameters, write_motions

    root = on.folder / "motions"
    if not root.is_dir():
        size = (
            {"clips_per_class": 2, "val_clips_per_class": 1}
            if on.is_tiny
            else {"clips_per_class": 32, "val_clips_per_class": 8}
        )
        write_motions(root, MotionsParameters(**size))
    return root


def _resnet_args(on: Target) -> dict[str, Json]:
    return {"num_classes": 8, **({"widen_factor": 0.125} if on.is_tiny else {})}


def _workers(on: Target) -> int:
    return 0 if on.is_tiny else max(1, min(12, len(os.sched_getaffinity(0)) - 2))


def run_check(name: str, on: Target) -> dict[str, Any]:
    """The outcome of a check: passed, skipped or failed, with what it found."""
    started_s = time.perf_counter()
    try:
        outcome, text, details = "passed", "", CHECKS[name](on)
    except NotHereError as reason:
        outcome, text, details = "skipped", str(reason), {}
    except Exception as error:  # whatever a path raises is its outcome, and the next check goes on
        outcome, text, details = "failed", f"{type(error).__name__}: {error}", {}
    seconds = round(time.perf_counter() - started_s, 2)
    return {"key": name, "title": name, "outcome": outcome, "text": text, "seconds": seconds, "details": details}


def run_case(case: Case, on: Target, *, has_canary: bool) -> Record:
    """The record of a case measured in this process, which it shares with the cases before it."""
    started_at, started_s = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    context = CaseContext(case, artifacts=on.folder / "artifacts" / case.id, session=str(os.getppid()))
    result = measure_case(context, has_canary=has_canary)
    return Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        started_at=started_at,
        status=result.status,
        metrics=result.metrics,
        details={**result.details, "session": str(os.getppid()), "shares_its_process": True},
        environment=result.environment,
        warnings=result.warnings,
        error=result.error,
        seconds={**result.seconds, "whole": round(time.perf_counter() - started_s, 3)},
    )


def reply_with_outcomes() -> None:
    """In the child: take the settings of the first request; reply to each further one, an item, with its outcome."""
    requests, reply = read_requests(), ReplyPipe()
    settings = next(requests)
    on = Target(device=settings["device"], folder=Path(settings["folder"]), is_tiny=settings["is_tiny"])
    for item in requests:
        if item["case"] is None:
            reply.send(**run_check(item["key"], on))
        else:
            record = run_case(Case.model_validate(item["case"]), on, has_canary=item["has_canary"])
            reply.send(record=record.model_dump(mode="json"))
        free_device_memory()
