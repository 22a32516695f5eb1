"""The input protocol of a checkpoint file: stated in it by a training of vbench, else that of its zoo."""

from collections.abc import Mapping

from bench.core.errors import InputError, WeightsError
from bench.core.input_protocol import InputProtocol
from bench.models.weights.checkpoint import Checkpoint

KEY = "input_protocol"


def protocol_of_checkpoint(checkpoint: Checkpoint) -> InputProtocol:
    """Return the protocol in a checkpoint that vbench trained, marked as stored; empty for any other file.

    Raises WeightsError if the file states a protocol that cannot be read.
    """
    stated = checkpoint.metadata.get(KEY)
    if not isinstance(stated, Mapping):
        return InputProtocol()
    try:
        return InputProtocol.of(stated, mark="stored", origin=checkpoint.path.name, where=str(checkpoint.path))
    except InputError as error:
        raise WeightsError(f"the input protocol in {error}") from None
