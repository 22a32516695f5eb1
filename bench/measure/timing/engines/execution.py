"""What executes the passes of one model: torch itself, its compiler, or an engine that is built for certain shapes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.core.schema import CompileMode, Engine
from bench.measure.timing.engines.aot_inductor import compile_ahead
from bench.measure.timing.engines.cuda_graph import capture
from bench.measure.timing.engines.onnx_session import open_session
from bench.measure.timing.engines.tensor_rt import build
from bench.measure.timing.engines.work import Work

Run = Callable[..., Tensor]
ENGINES: Mapping[Engine, Callable[[Work], Run]] = {
    "cudagraphs": capture,
    "aotinductor": compile_ahead,
    "onnxruntime": open_session,
    "tensorrt": build,
}


class Execution:
    """Builds what runs a model, and keeps it until other shapes are needed: it holds memory and may take minutes.

    `inputs` are the tensors that it reads its clips from, if it has its own: a CUDA graph reads those that it was
    captured with.
    """

    def __init__(self, mode: CompileMode) -> None:
        self.mode = mode
        self._shapes: list[torch.Size] = []
        self._run: Run | None = None
        self.inputs: tuple[Tensor, ...] = ()

    def run_of(self, work: Work) -> Run:
        """The function that runs `work`, from clips to logits; copies the clips of `work` to where it reads them."""
        shapes = [clip.shape for clip in work.inputs]
        if self._run is None or shapes != self._shapes:
            self._run, self.inputs = None, ()  # free the memory of the old one first
            self._run, self._shapes = self._build(work), shapes
            self.inputs = work.inputs if self.mode == "cudagraphs" else ()
        for own, clip in zip(self.inputs, work.inputs, strict=False):
            own.copy_(clip)
        return self._run

    def _build(self, work: Work) -> Run:
        if self.mode == "off":
            return work.model
        for engine, build_engine in ENGINES.items():
            if engine == self.mode:
                return build_engine(work)
        torch.compiler.reset()  # after eight shapes of one model the compiler would give up and run it eagerly
        return torch.compile(work.model, mode=self.mode, dynamic=False)
