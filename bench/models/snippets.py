"""The base of models on snippets; a snippet is one RGB frame and the stack of optical flow around it."""

from functools import partial

from torch import Tensor

from bench.core.errors import ClipError, InputError
from bench.models.backbones import Backbone, FrameModel, by_clip, frames_of
from bench.models.base import InputSpec

FLOW_STACK = 10


class SnippetModel(FrameModel):
    """Base of models that take `m(rgb, flow)`: S frames of RGB, and `flow_stack` of flow for each of them.

    Of a clip of S * `flow_stack` frames, evenly spaced RGB frames each fall within their own stack.
    """

    def __init__(self, backbone: Backbone, *, flow_stack: int) -> None:
        super().__init__(backbone)
        self.flow_stack = flow_stack
        self.smallest_clip = (flow_stack, backbone.smallest_px)
        self.inputs = (
            InputSpec(frames=partial(count_snippets, flow_stack=flow_stack)),
            InputSpec(channels=2, modality="flow", frames=partial(count_flow, flow_stack=flow_stack)),
        )

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError also if there are not `flow_stack` frames of flow for each RGB frame."""
        if any(clip.ndim == 5 and clip.shape[2] == 0 for clip in clips):
            frames, pixels = self.smallest_clip
            raise ClipError(
                f"a clip shorter than one snippet is too small for {type(self).__name__}; "
                f"the smallest that works is {frames}x{pixels}x{pixels} (frames x H x W)"
            )
        super().check(*clips)
        snippets, flow = (int(clip.shape[2]) for clip in clips)
        if flow != snippets * self.flow_stack:
            raise ClipError(
                f"{type(self).__name__} takes {self.flow_stack} frames of flow for each RGB frame, "
                f"found {flow} for {snippets}"
            )

    def stacks_of(self, flow_BCTHW: Tensor) -> Tensor:
        """Return the stacks of all clips as images `(B * S, 2 * flow_stack, H, W)`, channels x1, y1, x2, y2, …"""
        return by_clip(frames_of(flow_BCTHW), frames=self.flow_stack).flatten(1, 2)


def stack_channels(flow_stack: int) -> int:
    """Return the channels of a stack of flow, x and y of each frame; raises InputError for a stack without frames."""
    if flow_stack < 1:
        raise InputError(f"flow_stack must be at least 1 frame, found {flow_stack}")
    return 2 * flow_stack


def count_snippets(frames: int, *, flow_stack: int) -> int:
    """Return how many whole snippets a clip of `frames` holds."""
    return frames // flow_stack


def count_flow(frames: int, *, flow_stack: int) -> int:
    """Return how many frames of flow its whole snippets take."""
    return frames - frames % flow_stack
