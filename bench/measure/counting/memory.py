"""Peak memory of a pass, estimated from the tensors alone: a lower bound for what any device needs.

Followed are the bytes of all tensors that are alive, operator by operator, on the meta device. Not known there, and so
not included: workspaces of kernels, padding and fragmentation of the allocator, the context of the device, and the
optimizer's state. Gradients of parameters count from the moment they are made.
"""

import weakref
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor, nn

from bench.core.errors import InputError
from bench.measure.counting.operators import name_of, tensors_in
from bench.measure.counting.running import gradients_as, on_meta_or_cpu, plain_kernels, quietly, sum_of
from bench.measure.counting.twin import on_device, twin_of
from bench.measure.counting.watching import Watch

Kind = Literal["weights", "inputs", "activations", "temporaries", "gradients"]


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Bytes alive at the worst moment of a pass, by what they are.

    `weights` are parameters and buffers, `activations` what the forward pass made, `temporaries` what the backward pass
    made on its way, `gradients` those of the parameters.
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

    `training` is None, and `notes` say why, where nothing can be trained. Everything is in bytes.
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

    Inference is estimated in eval mode, training in train mode. InputError where the model cannot run on the inputs.
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
    residents = on_meta_or_cpu(
        lambda device, _: _residents(device, model, arguments, is_training=is_training), model, arguments
    )
    if is_training and "aten::_safe_softmax" in residents.operators:
        notes.append("attention is estimated unfused when training; a fused kernel keeps less")
    return PeakMemory(**residents.peak)


def _residents(device: str, model: nn.Module, arguments: tuple[Any, ...], *, is_training: bool) -> "Residents":
    twin, inputs = twin_of(model, device).train(is_training), on_device(arguments, device)
    residents = Residents(device)
    for tensor in [*twin.parameters(), *twin.buffers()]:
        residents.admit(tensor, "weights")
    for tensor in tensors_in(inputs):
        residents.admit(tensor, "inputs")
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(residents.admit_gradient)  # type: ignore[no-untyped-call]
    with quietly(), plain_kernels(), gradients_as(device, wanted=is_training):
        with residents:
            outputs = twin(*inputs)
        if is_training:
            loss = sum_of(outputs)
            del outputs
            residents.makes = "temporaries"
            with residents:
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return residents


class Residents(Watch):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Active as a context, it knows which storages are alive, and keeps their bytes at the worst moment."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.peak: dict[Kind, int] = {}
        self.makes: Kind = "activations"
        self.operators: set[str] = set()
        self._alive: dict[Kind, int] = dict.fromkeys(
            ("weights", "inputs", "activations", "temporaries", "gradients"), 0
        )
        self._kinds: dict[int, Kind] = {}

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self.operators.add(name_of(func))
        for tensor in tensors_in(out):
            self.admit(tensor, self.makes)

    def admit(self, tensor: Tensor, kind: Kind) -> None:
        """Count the storage of `tensor` as `kind` from now on, until nothing refers to it."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._kinds.get(key)
        if known is None:
            weakref.finalize(storage, self._release, key, size)
        else:
            self._alive[known] -= size
        self._kinds[key] = kind if known is None or kind == "gradients" else known
        self._alive[self._kinds[key]] += size
        if sum(self._alive.values()) > sum(self.peak.values()):
            self.peak = dict(self._alive)

    def admit_gradient(self, parameter: Tensor) -> None:
        """Count the gradient that `parameter` just got."""
        if parameter.grad is not None:
            self.admit(parameter.grad, "gradients")

    def _release(self, key: int, size: int) -> None:
        self._alive[self._kinds.pop(key)] -= size
