"""One scaler for decoded images, FFmpeg's, so that frames from files and from folders are resized alike."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray


class Scaler:
    """Resizes RGB images by averaging areas; quick for images of one size in a row."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def resize(self, image_HWC: NDArray[np.uint8], target: tuple[int, ...]) -> NDArray[np.uint8]:
        """The image at `target` (H, W)."""
        if image_HWC.shape[:2] == target:
            return image_HWC
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")
        scaled = self._reformatter.reformat(frame, width=target[1], height=target[0], threads=1, interpolation="AREA")
        return np.asarray(scaled.to_ndarray(), dtype=np.uint8)
