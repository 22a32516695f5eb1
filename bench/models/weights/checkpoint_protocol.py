"""The input protocol that a checkpoint file states: written there by a training of vbench."""

from collections.abc import Mapping

import torch

from bench.core.errors import InputError, WeightsError
from bench.core.input_protocol import InputProtocol
from bench.models.weights.checkpoint import Checkpoint

KEY = "input_protocol"


def protocol_of_checkpoint(checkpoint: Checkpoint) -> InputProtocol:
    """The protocol in a checkpoint that vbench trained, marked as stored; empty for any other file.

    Raises WeightsError if the file states a protocol that cannot be read.
    """
    if not {"identity", "steps"} <= set(checkpoint.facts):
        return InputProtocol()
    content = torch.load(checkpoint.path, map_location="cpu", weights_only=True, mmap=True)
    stated = content.get(KEY)
    if not isinstance(stated, Mapping):
        return InputProtocol()
    try:
        return InputProtocol.of(stated, mark="stored", origin=checkpoint.path.name, where=str(checkpoint.path))
    except InputError as error:
        raise WeightsError(f"the input protocol in {error}") from None
