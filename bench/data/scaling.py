"""One way to scale decoded images, Pillow's bilinear, so that frames of all backends are resized alike."""

import numpy as np
from numpy.typing import NDArray


def resize(image_HWC: NDArray[np.uint8], target: tuple[int, ...]) -> NDArray[np.uint8]:
    """The image at `target` (H, W), averaging over what a pixel covers: within one grey level of Pillow's BILINEAR."""
    if image_HWC.shape[:2] == target:
        return image_HWC
    import torch
    from torch.nn import functional

    # unsqueeze before permute: torch scales bytes quickly only where strides say that channels lie innermost.
    image_1CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).unsqueeze(0).permute(0, 3, 1, 2)
    scaled_1CHW = functional.interpolate(image_1CHW, size=target, mode="bilinear", antialias=True)
    scaled_HWC: NDArray[np.uint8] = scaled_1CHW[0].permute(1, 2, 0).numpy()
    return scaled_HWC
