"""First measurements of a GPU in eight minutes: stages in order of value, each with a time limit, taken up where cut.

    python -m benchmarks.gpu_run [--device cuda] [--out results/gpu_run] [--minutes 8] [--tiny] [--plan]

Each finished item is written at once: cases as records in `records.jsonl`, which every vbench command reads, checks as
lines of `checks.jsonl`, and a table of both in `summary.md`. A second call with the same `--out` measures what is
missing. One process runs all items, so that torch is imported once; if it dies or an item exceeds its limit, the others
go to a fresh one.

Needs torch, numpy, pydantic, ruamel.yaml, psutil and nvidia-ml-py, and no network. Items that need more name it, and
are skipped with that name if it is missing. `--plan` prints the planned seconds, `--tiny` runs every stage on models
of a few kilobytes, which shows that the script works and says nothing about a device.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.core.files import write_atomically
from bench.core.process import ChildProcess, ChildTimeoutError
from bench.core.schema import Case, Clip, Failure, Json, Metric, Point, Precision, Record
from bench.measure.execution_mode import ExecutionMode, refusal
from bench.reference.peaks import PRECISIONS, Peak, peak_of
from bench.runner.environment import describe_environment
from bench.store import RecordStore, latest_runs, read_records

SUITE = "gpu_run"
CHECKS, SUMMARY = "checks.jsonl", "summary.md"
WORKER = "benchmarks.gpu_worker:reply_with_outcomes"
START_S, START_LIMIT_S = 10.0, 60.0  # import of torch and start of CUDA: planned, and at most
BUILD_S = 1.5  # a model on the CPU, its copy to the device, and both again for the parity check
COMPILE_S = 30.0  # torch.compile of one model, with the processes that a search starts for it
OVERRUN_S = 10.0  # that the last item of a stage may take beyond its end: to stop it would waste all of it
SAMPLES = 13  # the fewest of a timing: one window of warm-up and three samples
ACHIEVED = 0.15  # share of the data-sheet peak that planning assumes; more only makes a stage shorter
BATCH_FLOPS = 1e12  # work of a throughput batch: long against launching its kernels, short against a stage


@dataclass(frozen=True, kw_only=True)
class BenchmarkedModel:
    """A model of the published tables. `gmacs` is vbench's own count of one clip, which a test holds against it."""

    name: str
    clip: str
    gmacs: float
    args: Mapping[str, Json] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """The power of two, 8 to 64, whose work is nearest to `BATCH_FLOPS` from below."""
        return 1 << max(3, min(6, math.floor(math.log2(BATCH_FLOPS / (2e9 * self.gmacs)))))


C3D = BenchmarkedModel(name="c3d", clip="16x1x112", gmacs=38.55)
R3D_18 = BenchmarkedModel(name="resnet3d_18", clip="16x1x112", gmacs=8.31)
R3D_50 = BenchmarkedModel(name="resnet3d_50", clip="16x1x112", gmacs=10.07)
SLOWFAST = BenchmarkedModel(name="slowfast_r50", clip="32x2x224", gmacs=50.31)
X3D_M = BenchmarkedModel(name="x3d_m", clip="16x5x224", gmacs=4.73)
MVITV2_S = BenchmarkedModel(name="mvitv2_s_16x4", clip="16x4x224", gmacs=64.22)
VIDEOMAE_B = BenchmarkedModel(name="videomae_b", clip="16x4x224", gmacs=180.34)
MODELS = (
    C3D,
    R3D_18,
    R3D_50,
    BenchmarkedModel(name="r2plus1d_18", clip="16x1x112", gmacs=8.48),
    SLOWFAST,
    X3D_M,
    BenchmarkedModel(name="i3d", clip="64x1x224", gmacs=111.15),
    BenchmarkedModel(name="tsm_r50", clip="8x8x224", gmacs=32.70, needs=("torchvision",)),
    MVITV2_S,
    BenchmarkedModel(name="torchvision:swin3d_t", clip="32x2x224", gmacs=87.76, needs=("torchvision",)),
    VIDEOMAE_B,
)
ASKED_FOR_MOST = (C3D, R3D_50, SLOWFAST, X3D_M, MVITV2_S, VIDEOMAE_B)
TINY = (
    BenchmarkedModel(name="c3d_search", clip="4x1x32", gmacs=0.003, args={"width": 0.05, "num_classes": 16}),
    BenchmarkedModel(
        name="resnet3d", clip="4x1x32", gmacs=0.003, args={"depth": 10, "widen_factor": 0.125, "num_classes": 16}
    ),
)
EAGER = ExecutionMode()
FAST = ExecutionMode(precision="bf16_weights", memory_format="channels_last_3d")
MODES = (EAGER, FAST, FAST.model_copy(update={"compile": "cudagraphs"}), ExecutionMode(precision="tf32"))
# Checks of every CUDA path with their planned seconds, those that compile last.
PATHS = {
    **dict.fromkeys(("clocks", "events", "parts", "streams", "cuda_graph", "autocast", "fp8", "memory", "canary"), 1.0),
    **dict.fromkeys(("energy", "throttle", "oom"), 2.0),
    **{"nvdec": 5.0, "max_batch": 12.0, "compile": 20.0, "aotinductor": 20.0},
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A case, or a check by its name (`benchmarks.gpu_worker`), with the seconds planned for it."""

    stage: str
    key: str
    planned_s: float
    case: Case | None = None
    needs: tuple[str, ...] = ()

    @property
    def absent(self) -> tuple[str, ...]:
        """The packages that it needs and that are not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)

    @property
    def limit_s(self) -> float:
        """Time limit in seconds: far beyond the plan, since it is for items that hang."""
        return 30.0 + 4 * self.planned_s

    def as_request(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "has_canary": self.stage != "models",  # a second each, which for forty short cases is too much
            "case": None if self.case is None else self.case.model_dump(mode="json"),
        }


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Items in order of value, which may take `limit_s` together; None is all that is left of the run."""

    name: str
    limit_s: float | None
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes the stages for one device. `peak` is its data-sheet peak; an unknown device is planned as the slowest."""

    device: str
    is_tiny: bool
    peak: Peak | None

    def stages(self) -> tuple[Stage, ...]:
        models = TINY if self.is_tiny else MODELS
        asked, driven = (TINY[:1], TINY[:1]) if self.is_tiny else (ASKED_FOR_MOST, (C3D, R3D_50))
        small = TINY[0] if self.is_tiny else R3D_18
        return (
            Stage(name="paths", limit_s=60.0, items=tuple(self._paths())),
            Stage(name="models", limit_s=120.0, items=tuple(self._models(models))),
            Stage(name="fastest", limit_s=150.0, items=tuple(self._fastest(asked))),
            Stage(name="training", limit_s=60.0, items=tuple(self._training(small))),
            Stage(name="depth", limit_s=None, items=tuple(self._depth(driven, small))),
        )

    def _paths(self) -> Iterator[Item]:
        for name, planned_s in PATHS.items():
            needs = ("torchcodec", "av") if name == "nvdec" else ()
            yield self._check("paths", name, planned_s, needs=needs)

    def _models(self, models: Sequence[BenchmarkedModel]) -> Iterator[Item]:
        yield self._check("models", "ceilings", 12.0)
        for mode in MODES:
            for model in models:
                measures: dict[str, dict[str, Json]] = {
                    "latency": {"max_s": self._max_s(0.3)},
                    "throughput": {"batch": model.batch, "max_s": self._max_s(0.4)},
                }
                yield from self._case("models", model, mode, measures, timings=((0.3, 1), (0.4, model.batch)))

    def _fastest(self, models: Sequence[BenchmarkedModel]) -> Iterator[Item]:
        space: dict[str, Json] = {
            "precision": [FAST.precision],
            "memory_format": [FAST.memory_format],
            "compile": ["off" if self.is_tiny else "default"],
            "budget_s": 90.0,
        }
        for model in models:
            options: dict[str, Json] = {"batch": model.batch, "search": space, "max_s": self._max_s(0.5)}
            measures = {"throughput": options}
            timings = ((0.5, model.batch), (0.5, model.batch))
            yield from self._case("fastest", model, EAGER, measures, timings=timings, more_s=COMPILE_S)

    def _training(self, model: BenchmarkedModel) -> Iterator[Item]:
        mode = ExecutionMode(precision="bf16", memory_format="channels_last_3d")
        batch = 4 if self.is_tiny else 32
        step: dict[str, dict[str, Json]] = {"train_step": {"max_s": self._max_s(2.0)}}
        yield from self._case("training", model, mode, step, timings=((2.0, 3 * batch),), batch=batch)
        files = ("av", "torchvision")
        yield self._check("training", "short_training", 25.0, needs=files)
        yield self._check("training", "end_to_end", 15.0, needs=files)

    def _depth(self, driven: Sequence[BenchmarkedModel], small: BenchmarkedModel) -> Iterator[Item]:
        for batch in (4,) if self.is_tiny else (64, 256):
            for model in driven:
                limits: dict[str, dict[str, Json]] = {"limits": {"max_s": self._max_s(1.0)}}
                yield from self._case("depth", model, FAST, limits, timings=((1.0, 5 * batch),), batch=batch)
        yield self._check("depth", "agreement", 15.0, needs=("packaging",))  # of torch.utils.benchmark
        seconds = 0.2 if self.is_tiny else 5.0
        for model in driven:
            energy: dict[str, dict[str, Json]] = {"energy": {"seconds": seconds}}
            timings = ((seconds, model.batch),)
            yield from self._case("depth", model, FAST, energy, timings=timings, batch=model.batch)
        streams: dict[str, dict[str, Json]] = {"concurrent": {"streams": [1, 2, 4], "max_s": self._max_s(1.0)}}
        yield from self._case("depth", small, FAST, streams, timings=((1.0, 1),) * 3)
        for model in driven:
            compiled = FAST.model_copy(update={"compile": "off" if self.is_tiny else "max-autotune-no-cudagraphs"})
            measures: dict[str, dict[str, Json]] = {"limits": {"max_s": self._max_s(1.0)}, "memory": {}}
            yield from self._case(
                "depth", model, compiled, measures, timings=((1.0, 5 * 64),), batch=64, more_s=2 * COMPILE_S
            )

    def _check(self, stage: str, name: str, planned_s: float, *, needs: tuple[str, ...] = ()) -> Item:
        return Item(stage=stage, key=name, planned_s=1.0 if self.is_tiny else planned_s, needs=needs)

    def _case(
        self,
        stage: str,
        model: BenchmarkedModel,
        mode: ExecutionMode,
        measures: dict[str, dict[str, Json]],
        *,
        timings: Sequence[tuple[float, int]],
        batch: int | None = None,
        more_s: float = 0.0,
    ) -> Iterator[Item]:
        """One case, or none if this device does not support its mode. `timings` are (seconds, clips of one sample)."""
        if refusal(mode, self.device) is not None:
            return
        point = Point(
            model=model.name,
            args=dict(model.args),
            clip=Clip.model_validate(model.clip),
            precision=mode.precision,
            memory_format=mode.memory_format,
            compile=mode.compile,
            device=self.device,
            batch=batch,
        )
        clip_s = 2e9 * model.gmacs / self._flops_per_s(mode.precision)
        planned_s = BUILD_S + more_s + sum(2 * seconds + SAMPLES * clips * clip_s for seconds, clips in timings)
        case = Case(suite=SUITE, point=point, measures=measures)
        yield Item(
            stage=stage,
            key=case.id,
            planned_s=1.0 if self.is_tiny else round(planned_s, 1),
            case=case,
            needs=model.needs,
        )

    def _flops_per_s(self, precision: Precision) -> float:
        """What planning expects of the device: a share of its data-sheet peak, 1.5 TFLOP/s if that is not known."""
        peaks = self.peak.flops_per_s if self.peak else {}
        name = precision.removesuffix("_weights")
        return ACHIEVED * (peaks.get(name) or peaks.get(PRECISIONS[0]) or 1e13)

    def _max_s(self, seconds: float) -> float:
        return 0.05 if self.is_tiny else seconds


class Results:
    """The folder of one run: what is done in it, and where the next outcome goes."""

    def __init__(self, folder: Path) -> None:
        self.store = RecordStore(folder)
        self.checks_file = folder / CHECKS
        folder.mkdir(parents=True, exist_ok=True)

    def checks(self) -> list[dict[str, Any]]:
        """The last outcome of every check."""
        if not self.checks_file.is_file():
            return []
        return [json.loads(line) for line in self.checks_file.read_text(encoding="utf-8").splitlines()]

    def records(self) -> list[Record]:
        return latest_runs(read_records(self.store.file)) if self.store.file.is_file() else []

    def write(self, outcome: Mapping[str, Any]) -> None:
        """Store the record of a case or the outcome of a check, so that a run may be cut at any time."""
        if "record" in outcome:
            self.store.append(Record.model_validate(outcome["record"]))
            return
        checks = [check for check in self.checks() if check["key"] != outcome["key"]]
        write_atomically(self.checks_file, "".join(json.dumps(check) + "\n" for check in (*checks, outcome)))

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """The items that can run here and have no good result: those never tried first, then those that failed."""
        done = {run.case_id for run in self.store.runs() if run.is_good}
        tried = {run.case_id for run in self.store.runs()}
        for check in self.checks():
            tried.add(check["key"])
            if check["outcome"] != "failed":
                done.add(check["key"])
        found = [item for item in items if item.key not in done and not item.absent]
        return sorted(found, key=lambda item: item.key in tried)


class Worker:
    """The process that runs items one by one; started for the first, and replaced after one that killed or hung it."""

    def __init__(self, settings: Mapping[str, Any], log: Path) -> None:
        self._settings, self._log = settings, log
        self._child: ChildProcess | None = None

    @property
    def start_s(self) -> float:
        """Planned seconds until it can run an item."""
        return START_S if self._child is None else 0.0

    def run(self, item: Item, *, left_s: float) -> dict[str, Any] | None:
        """The outcome of `item`, a failure if its process dies or hangs; None if it is not done after `left_s`."""
        if self._child is None:
            request = dict(self._settings)
            self._child = ChildProcess(WORKER, request, log=self._log, takes_more=True)
        limit_s = START_LIMIT_S + item.limit_s
        try:
            outcome = self._child.ask(item.as_request(), timeout_s=min(limit_s, left_s))
        except ChildTimeoutError:
            self.close()
            return _failure(item, "TimeoutError", f"no result within {limit_s:.0f} s") if limit_s < left_s else None
        if outcome is None:
            message = self._child.last_error() or "its process ended without a result"
            self.close()
            return _failure(item, "Crash", message)
        return outcome

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def run(
    stages: Sequence[Stage],
    results: Results,
    *,
    minutes: float,
    worker: Worker,
    clock_s: Callable[[], float] = time.monotonic,
) -> None:
    """Run the missing items of each stage within its limit, then, in the time left, those that were cut."""
    ends_s = clock_s() + 60 * minutes
    try:
        for stage in stages:
            stage_ends_s = ends_s if stage.limit_s is None else min(ends_s, clock_s() + stage.limit_s)
            run_items(stage.items, results, ends_s=stage_ends_s, worker=worker, clock_s=clock_s)
        left = [item for stage in stages for item in stage.items]
        run_items(left, results, ends_s=ends_s, worker=worker, clock_s=clock_s)
    finally:
        worker.close()


def run_items(
    items: Iterable[Item], results: Results, *, ends_s: float, worker: Worker, clock_s: Callable[[], float]
) -> None:
    """Run those of the missing `items` that fit into the time until `ends_s`, and write each outcome at once."""
    for item in results.missing(items):
        left_s = ends_s - clock_s()
        if worker.start_s + item.planned_s > left_s:
            continue
        outcome = worker.run(item, left_s=left_s + OVERRUN_S)
        if outcome is not None:
            results.write(outcome)
            print(f"{item.stage:9} {title_of(item)}: {_in_short(outcome)}", flush=True)


def _failure(item: Item, kind: str, message: str) -> dict[str, Any]:
    if item.case is None:
        return outcome_of(item, "failed", f"{kind}: {message}")
    record = Record(
        case=item.case,
        case_id=item.case.id,
        run_index=0,
        freshness="",
        status="timeout" if kind == "TimeoutError" else "error",
        error=Failure(type=kind, message=message),
        environment=describe_environment(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return {"record": record.model_dump(mode="json")}


def outcome_of(item: Item, outcome: str, text: str, **details: Any) -> dict[str, Any]:
    """A line of `checks.jsonl`."""
    return {"key": item.key, "title": title_of(item), "outcome": outcome, "text": text, "details": details}


def title_of(item: Item) -> str:
    return item.key if item.case is None else f"{item.case.title} {'+'.join(item.case.measures)}"


def _in_short(outcome: Mapping[str, Any]) -> str:
    record = outcome.get("record")
    if record is None:
        return f"{outcome['outcome']}{': ' if outcome['text'] else ''}{outcome['text']}"
    if record["error"]:
        return f"{record['status']}: {record['error']['message']}"
    rates = [f"{m['name']} {m['value']:.4g}" for m in record["metrics"] if m["value"] is not None]
    return f"{record['status']}: {', '.join(rates[:3])}"


def summary(stages: Sequence[Stage], results: Results) -> str:
    """Markdown: the environment, what is done of each stage, every check, and the metrics of every case."""
    records = {record.case_id: record for record in results.records()}
    lines = ["# GPU run", "", *_environment_lines(records.values()), "", "| stage | items | done |", "|---|---|---|"]
    counts = [(stage.name, len(stage.items), len(results.missing(stage.items))) for stage in stages]
    lines += [f"| {name} | {items} | {items - missing} |" for name, items, missing in counts]
    lines += ["", "| check | outcome | found |", "|---|---|---|"]
    for check in results.checks():
        found = ", ".join(f"{name} {_short(value)}" for name, value in check["details"].items())
        lines.append(f"| {check['title']} | {check['outcome']} | {'; '.join(filter(None, (check['text'], found)))} |")
    lines += [
        f"| {title_of(item)} | skipped | needs {', '.join(item.absent)} |"
        for stage in stages
        for item in stage.items
        if item.absent
    ]
    lines += ["", "| case | status | metric | value | 95 % interval | clock MHz | power W | slowed by |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for item in (item for stage in stages for item in stage.items if item.key in records):
        lines += _record_lines(records[item.key])
    return "\n".join(lines) + "\n"


def _environment_lines(records: Iterable[Record]) -> list[str]:
    found = next((record.environment for record in records if record.environment.software.get("torch")), None)
    if found is None:
        return ["Nothing was measured yet."]
    names = ("gpu", "gpu_driver", "gpu_power_limit_w", "gpu_clock_max_mhz", "cpu", "torch", "cuda", "cudnn", "vbench")
    facts = {**found.hardware, **found.software}
    return [", ".join(f"{name} {facts[name]}" for name in names if facts.get(name) is not None) + "."]


def _record_lines(record: Record) -> Iterator[str]:
    gpu: dict[str, Any] = next(
        (d["gpu"] for d in record.details.values() if isinstance(d, dict) and isinstance(d.get("gpu"), dict)), {}
    )
    slowed = ", ".join(f"{name} {share:.0%}" for name, share in (gpu.get("reasons") or {}).items())
    watched = f"{_range(gpu.get('clock_mhz'))} | {_range(gpu.get('power_w'))} | {slowed}"
    if record.error is not None:
        yield f"| {record.case.title} | {record.status} | {record.error.message.splitlines()[0][:120]} | | | | | |"
    for metric in record.metrics:
        yield f"| {record.case.title} | {record.status} | {_metric_cells(metric)} | {watched} |"


def _metric_cells(metric: Metric) -> str:
    value = f"unknown: {metric.note}" if metric.value is None else f"{metric.value:.5g} {metric.unit}"
    interval = "" if metric.interval is None else " to ".join(f"{end:.5g}" for end in metric.interval)
    return f"{metric.key} | {value} | {interval}"


def _range(ends: Sequence[float] | None) -> str:
    return "" if not ends else " to ".join(f"{end:.0f}" for end in ends)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plan_table(stages: Sequence[Stage]) -> str:
    """Markdown: planned seconds of every stage and item."""
    lines = ["| stage | limit s | planned s | items |", "|---|---|---|---|"]
    for stage in stages:
        planned_s = (START_S if stage is stages[0] else 0.0) + sum(item.planned_s for item in stage.items)
        limit = "the rest" if stage.limit_s is None else f"{stage.limit_s:.0f}"
        lines.append(f"| {stage.name} | {limit} | {planned_s:.0f} | {len(stage.items)} |")
    lines += ["", "| stage | item | planned s |", "|---|---|---|"]
    lines += [f"| {item.stage} | {title_of(item)} | {item.planned_s:.1f} |" for stage in stages for item in stage.items]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--out", type=Path, default=Path("results/gpu_run"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--plan", action="store_true", help="print the planned seconds and end")
    parser.add_argument("--gpu", help="with --plan: plan for this GPU, by its name in bench/reference/peaks.csv")
    given = parser.parse_args(arguments)
    hardware = describe_environment(device=given.device).hardware
    stages = Planner(
        device=given.device, is_tiny=given.tiny, peak=peak_of(given.gpu or str(hardware.get("gpu")))
    ).stages()
    if given.plan:
        print(plan_table(stages))
        return
    if given.device.startswith("cuda") and "gpu" not in hardware:
        parser.error(f"NVML finds no GPU for --device {given.device}; a dry run is --device cpu --tiny")
    results = Results(given.out)
    settings = {"device": given.device, "is_tiny": given.tiny, "folder": str(given.out.absolute())}
    worker = Worker(settings, given.out / "logs" / "worker.log")
    with results.store.lock():
        results.store.repair()
        try:
            run(stages, results, minutes=given.minutes, worker=worker)
        finally:
            write_atomically(given.out / SUMMARY, summary(stages, results))
    print(f"{len(results.missing(i for s in stages for i in s.items))} items are missing; see {given.out / SUMMARY}")


if __name__ == "__main__":
    main()
