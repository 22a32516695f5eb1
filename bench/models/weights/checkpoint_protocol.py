"""The input protocol of a checkpoint file: stated in it by a training of vbench, else that of its zoo."""

import json
from collections.abc import Mapping
from typing import Any

from bench.core.errors import InputError, WeightsError
from bench.core.input_protocol import InputProtocol
from bench.models.weights.checkpoint import Checkpoint
from bench.models.weights.recognition import notes_on_head, recognise

KEY = "input_protocol"


def is_of_vbench(checkpoint: Checkpoint) -> bool:
    """Whether vbench wrote the file: it alone states the input protocol."""
    return _stated(checkpoint) is not None


def _stated(checkpoint: Checkpoint) -> Any:
    stated, notes = checkpoint.metadata.get(KEY), checkpoint.metadata.get("notes")
    return notes.get(KEY) if stated is None and isinstance(notes, Mapping) else stated  # of an unfinished training


def protocol_of_checkpoint(checkpoint: Checkpoint) -> InputProtocol:
    """Return the protocol in a checkpoint that vbench trained, marked as stored, else that of the file's zoo.

    The parts of a zoo are marked as recognised or as assumed; empty if the file belongs to no known zoo.

    Raises WeightsError if the file states a protocol that cannot be read.
    """
    stated = _stated(checkpoint)
    if isinstance(stated, str) and checkpoint.path.suffix == ".safetensors":  # whose header holds text only
        stated = _parsed(stated)
    if not isinstance(stated, Mapping):
        match = recognise(checkpoint)
        return InputProtocol() if match is None else match.protocol
    try:
        return InputProtocol.of(stated, mark="stored", origin=checkpoint.path.name, where=str(checkpoint.path))
    except InputError as error:
        raise WeightsError(f"the input protocol in {error}") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def notes_on(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what a user must know about weights of a recognised zoo, such as its order of classes, or a detector."""
    if KEY in checkpoint.metadata:
        return ()
    match = recognise(checkpoint)
    notes = (match.note if match is not None else "", notes_on_head(checkpoint))
    return tuple(note for note in notes if note)
