"""Peak memory of a pass, estimated from the tensors alone: a lower bound for what any device needs.

The bytes of all live tensors are followed operator by operator on the meta device. Not included, because not known
there: kernel workspaces, padding and fragmentation of the allocator, the device context and the optimizer state.
Gradients of parameters count from the moment they are made.
"""

import weakref
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor, nn

from bench.core.errors import InputError
from bench.measure.counting.dispatch import OperatorObserver, name_of, tensors_in
from bench.measure.counting.model_copy import copies_for
from bench.measure.counting.run_conditions import gradients_as, on_meta_or_cpu, plain_kernels, quietly, sum_of

Kind = Literal["weights", "inputs", "activations", "temporaries", "gradients"]
UNFUSED = "attention in training is estimated as unfused; a fused kernel needs less"


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Bytes alive at the peak of a pass, by kind.

    `weights` are parameters and buffers, `activations` come from the forward pass, `temporaries` from the backward
    pass, `gradients` are those of parameters.
    """

    weights: int
    inputs: int
    activations: int
    temporaries: int
    gradients: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """A lower bound of peak memory for a forward pass without gradients, and for a forward and a backward pass.

    `training` is None if the model cannot be trained; `notes` then say why. All values are bytes.
    """

    inference: PeakMemory
    training: PeakMemory | None
    notes: tuple[str, ...] = ()

    @property
    def inference_bytes(self) -> int:
        return self.inference.total

    @property
    def training_bytes(self) -> int | None:
        return None if self.training is None else self.training.total


def peak_memory_estimate(model: nn.Module, inputs: Any) -> MemoryEstimate:
    """Estimate both peaks for `inputs` as `bench.count` takes them; `model` stays as it is.

    Inference is estimated in eval mode, training in train mode. Raises InputError if the model
    cannot run on the inputs.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    notes: list[str] = []
    inference = _peak(model, arguments, is_training=False, notes=notes)
    try:
        training = _peak(model, arguments, is_training=True, notes=notes)
    except InputError as error:
        training = None
        notes.append(f"no training memory: {error}")
    return MemoryEstimate(inference=inference, training=training, notes=tuple(notes))


def _peak(model: nn.Module, arguments: tuple[Any, ...], *, is_training: bool, notes: list[str]) -> PeakMemory:
    live = on_meta_or_cpu(lambda device, _: _live(device, model, arguments, is_training=is_training), model, arguments)
    notes += live.notes if is_training else ()
    return PeakMemory(**live.peak)


def _live(device: str, model: nn.Module, arguments: tuple[Any, ...], *, is_training: bool) -> "LiveTensors":
    copied, inputs = copies_for(model, arguments, device)
    copied.train(is_training)
    live = LiveTensors(device)
    live.watch(copied, inputs)
    with quietly(), plain_kernels(), gradients_as(device, wanted=is_training):
        with live:
            outputs = copied(*inputs)
        if is_training:
            loss = sum_of(outputs)
            del outputs
            live.makes = "temporaries"
            with live:
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return live


class LiveTensors(OperatorObserver):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Context manager that follows which storages are alive and keeps their bytes at the peak."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.peak: dict[Kind, int] = {}
        self.makes: Kind = "activations"
        self.notes: tuple[str, ...] = ()
        self._alive: dict[Kind, int] = dict.fromkeys(
            ("weights", "inputs", "activations", "temporaries", "gradients"), 0
        )
        self._alive_bytes = self._peak_bytes = 0
        self._kinds: dict[int, Kind] = {}
        self._ends: dict[int, weakref.ref[Any]] = {}

    def watch(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count weights and inputs from now on, and the gradient of each weight once it is made."""
        for tensor in [*model.parameters(), *model.buffers()]:
            self.add(tensor, "weights")
        for tensor in tensors_in(inputs):
            self.add(tensor, "inputs")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self.add_gradient)  # type: ignore[no-untyped-call]

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if name_of(func) == "aten::_safe_softmax":
            self.notes = (UNFUSED,)
        for tensor in tensors_in(out):
            self.add(tensor, self.makes)

    def add(self, tensor: Tensor, kind: Kind) -> None:
        """Count the storage of `tensor` as `kind` from now on, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._kinds.get(key)
        if known == kind or (known is not None and kind != "gradients"):
            return
        if known is None:
            # Not `weakref.finalize`, which takes several times as long, for every tensor of a pass.
            self._ends[key] = weakref.ref(storage, lambda _: self._release(key, size))
            self._alive_bytes += size
        else:
            self._alive[known] -= size
        self._kinds[key] = kind
        self._alive[kind] += size
        if self._alive_bytes > self._peak_bytes:
            self.peak, self._peak_bytes = dict(self._alive), self._alive_bytes

    def add_gradient(self, parameter: Tensor) -> None:
        """Count the gradient that `parameter` has just received."""
        if parameter.grad is not None:
            self.add(parameter.grad, "gradients")

    def _release(self, key: int, size: int) -> None:
        del self._ends[key]
        self._alive[self._kinds.pop(key)] -= size
        self._alive_bytes -= size
