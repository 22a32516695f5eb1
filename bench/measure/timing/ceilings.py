"""The highest rates this device reaches: FLOP/s of a large matrix product, bytes/s of a large copy.

Measured once per session, device and precision, and stored in the results folder for later cases.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.core.files import write_atomically
from bench.core.stats import median
from bench.measure.context import CaseContext
from bench.measure.timing.clocks import time_work
from bench.measure.timing.forward import AUTOCAST, CAST
from bench.measure.timing.fp8 import product_of
from bench.measure.timing.sampling import SamplingRule, take_samples

RULE = SamplingRule(window=5, warmup_s=1.0, min_samples=10, min_s=0.3, max_s=1.0)
MATMUL_SIZES = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Measured FLOP/s of a matrix product (1 MAC = 2 FLOPs), and bytes/s read plus written by a copy."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """The achieved FLOP/s of a piece of work, its arithmetic intensity `flops_per_byte`, and the ceilings above it."""

    flops_per_s: float
    flops_per_byte: float
    ceilings: Ceilings

    @property
    def roof_flops_per_s(self) -> float:
        """The highest FLOP/s that work of this intensity can reach."""
        return min(self.ceilings.flops_per_s, self.flops_per_byte * self.ceilings.bytes_per_s)

    @property
    def is_bound_by_memory(self) -> bool:
        return self.flops_per_byte * self.ceilings.bytes_per_s < self.ceilings.flops_per_s

    @property
    def share(self) -> float:
        """Achieved FLOP/s as a share of the roof."""
        return self.flops_per_s / self.roof_flops_per_s


def ceilings_of(case: CaseContext) -> Ceilings:
    """The ceilings of this case's device in its precision: those of this session, else measured now and stored."""
    file = case.artifacts.parent / "ceilings.json"
    key = f"{case.device} {case.point.precision or 'fp32'} {case.point.threads or ''}".strip()
    known = _read(file, session=case.session)
    if key not in known:
        known[key] = asdict(_measure(torch.device(case.device), case.point.precision or "fp32"))
        write_atomically(file, json.dumps({"session": case.session, "ceilings": known}))
    return Ceilings(**known[key])


def _measure(device: torch.device, precision: str) -> Ceilings:
    """Measure both ceilings. TF32 is on or off as `prepare_model` has set it for the case."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    size = MATMUL_SIZES[kind]
    product = product_of(size, device) if precision == "fp8" else _product_of(size, device, precision)
    source = torch.zeros(COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        matmul_s = _median_s(product, device)
        copy_s = _median_s(lambda: target.copy_(source), device)
    return Ceilings(flops_per_s=2 * size**3 / matmul_s, bytes_per_s=2 * len(source) / copy_s)


def _product_of(size: int, device: torch.device, precision: str) -> Callable[[], object]:
    dtype = {**AUTOCAST, **CAST}.get(precision, torch.float32)
    left, right, product = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    return lambda: torch.matmul(left, right, out=product)


def _median_s(work: Callable[[], object], device: torch.device) -> float:
    return median(take_samples(lambda: time_work(work, device), RULE, clock_s=time.perf_counter).work_s)


def _read(file: Path, *, session: str) -> dict[str, dict[str, float]]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, dict[str, float]] = kept["ceilings"] if session and kept.get("session") == session else {}
    return found
