"""One scaler for decoded images, FFmpeg's, so that frames from files and from folders are resized alike."""

import av
import numpy as np
from numpy.typing import NDArray


def resize_image(image_HWC: NDArray[np.uint8], target: tuple[int, ...]) -> NDArray[np.uint8]:
    """The RGB image at `target` (H, W), bilinear with the filter as wide as the reduction."""
    if image_HWC.shape[:2] == target:
        return image_HWC
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")
    return np.asarray(frame.reformat(width=target[1], height=target[0], threads=1).to_ndarray(), dtype=np.uint8)
