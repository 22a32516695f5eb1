"""How the passes of one network are executed: by torch as they come, compiled, or by an engine made for some shapes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.core.schema import CompileMode, Engine
from bench.measure.timing.engines.aot_inductor import compile_ahead
from bench.measure.timing.engines.cuda_graph import record
from bench.measure.timing.engines.onnx_session import open_session
from bench.measure.timing.engines.tensor_rt import build
from bench.measure.timing.engines.work import Work

Run = Callable[..., Tensor]
ENGINES: Mapping[Engine, Callable[[Work], Run]] = {
    "cudagraphs": record,
    "aotinductor": compile_ahead,
    "onnxruntime": open_session,
    "tensorrt": build,
}


class Execution:
    """Makes work ready, and keeps what was made until other shapes are wanted: it holds memory, and takes minutes.

    `inputs` is where what was made reads its clips: a CUDA graph reads those that it was recorded with, and nothing
    else has a place of its own.
    """

    def __init__(self, mode: CompileMode) -> None:
        self.mode = mode
        self._shapes: list[torch.Size] = []
        self._run: Run | None = None
        self.inputs: tuple[Tensor, ...] = ()

    def of(self, work: Work) -> Run:
        """What runs this work: logits of clips of its shapes, those of `work` placed where it reads them."""
        shapes = [clip.shape for clip in work.inputs]
        if self._run is None or shapes != self._shapes:
            self._run, self.inputs = None, ()
            self._run, self._shapes = self._made_ready(work), shapes
            self.inputs = work.inputs if self.mode == "cudagraphs" else ()
        for place, clip in zip(self.inputs, work.inputs, strict=False):
            place.copy_(clip)
        return self._run

    def _made_ready(self, work: Work) -> Run:
        if self.mode == "off":
            return work.model
        for engine, make_ready in ENGINES.items():
            if engine == self.mode:
                return make_ready(work)
        # Beyond eight shapes of one network the compiler would give up and leave it eager.
        torch.compiler.reset()
        return torch.compile(work.model, mode=self.mode, dynamic=False)
