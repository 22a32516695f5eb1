"""CUDA graphs: one pass captured while it is launched, and replayed by a single launch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.timing.engines.work import Work

CAPTURE_ERROR_MODE = "thread_local"  # a loader that pins memory in another thread does not break the capture
WARM_UPS = 3  # cuDNN and cuBLAS choose kernels and allocate in the first passes, which a capture does not allow


def capture(work: Work) -> Callable[..., Tensor]:
    """A function that replays the captured pass. It reads the captured clips in place, and copies other clips there.

    The logits lie in the same memory at every call, so read them before the next one. Raises InputError for a model
    whose pass cannot be captured.
    """
    with torch.cuda.device(work.device), torch.inference_mode(), work.in_precision():
        current = torch.cuda.current_stream()
        _warm_up(work, current)
        graph = torch.cuda.CUDAGraph()
        # torch leaves its capture stream as the current one if a capture fails, so this puts the other one back.
        with (
            explain_capture_errors(),
            torch.cuda.stream(current),
            torch.cuda.graph(graph, capture_error_mode=CAPTURE_ERROR_MODE),
        ):
            logits: Tensor = work.model(*work.inputs)

    def replay(*inputs: Tensor) -> Tensor:
        for captured, given in zip(work.inputs, inputs, strict=True):
            if given is not captured:
                captured.copy_(given)
        graph.replay()
        return logits

    return replay


@contextmanager
def explain_capture_errors() -> Iterator[None]:
    """Raise InputError if CUDA says that it cannot capture the pass; other errors pass through."""
    try:
        yield
    except RuntimeError as error:
        if "captur" not in str(error):
            raise
        raise InputError(
            "compile cudagraphs cannot capture this model: within a pass it copies from main memory or waits for the "
            "device; run it eagerly or by torch.compile"
        ) from error


def _warm_up(work: Work, current: torch.cuda.Stream) -> None:
    """Run a few passes on a side stream, as torch requires before a capture."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work.model(*work.inputs)
    current.wait_stream(stream)
