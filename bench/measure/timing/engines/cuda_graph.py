"""CUDA graphs: one pass recorded as it is launched, and replayed by a single launch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.timing.engines.work import Work

THIS_THREAD = "thread_local"  # a loader that pins memory in another thread does not break the recording
WARM_UPS = 3  # cuDNN and cuBLAS choose and allocate in the first passes, which must not happen while recording


def record(work: Work) -> Callable[..., Tensor]:
    """A replay of the recorded pass. It reads the recorded clips where they lie, and copies other clips over them.

    The logits are the same memory at every call: read them before the next one. InputError for a network whose pass
    cannot be recorded.
    """
    with torch.cuda.device(work.device), torch.inference_mode(), work.in_precision():
        _warm_up(work)
        graph = torch.cuda.CUDAGraph()
        with said_of_recording(), torch.cuda.graph(graph, capture_error_mode=THIS_THREAD):
            logits: Tensor = work.model(*work.inputs)

    def replay(*inputs: Tensor) -> Tensor:
        for recorded, given in zip(work.inputs, inputs, strict=True):
            if given is not recorded:
                recorded.copy_(given)
        graph.replay()
        return logits

    return replay


@contextmanager
def said_of_recording() -> Iterator[None]:
    """What CUDA says of a pass that it cannot record, as an InputError; everything else as it is."""
    try:
        yield
    except RuntimeError as error:
        if "captur" not in str(error):
            raise
        raise InputError(
            "compile cudagraphs cannot record this network: within a pass it copies from main memory or waits for the "
            "device; run it eagerly or by torch.compile"
        ) from error


def _warm_up(work: Work) -> None:
    """On a stream of its own, as recording wants it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work.model(*work.inputs)
    torch.cuda.current_stream().wait_stream(stream)
