"""Changes of decoded frames: noise, blur, compression, colour, and a picture without what moves."""

from typing import TYPE_CHECKING

from bench.core.registry import register_change

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]


@register_change("static_bias", stage="pixels")
def static_background(frames_THWC: "Frames", *, value: None, random: "Generator") -> "Frames":
    """Every frame is the median over the clip's frames: the background stays, and what moves is gone."""
    import numpy as np

    median = np.median(frames_THWC, axis=0, keepdims=True).astype(np.uint8)
    return np.repeat(median, len(frames_THWC), axis=0)


@register_change("noise", stage="pixels", default=0.1, between=(0, 1), severities=(0.02, 0.05, 0.1, 0.2, 0.3))
def gaussian_noise(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """Gaussian noise with a standard deviation of VALUE (1 is black to white), drawn for every frame and channel."""
    import numpy as np

    noise = random.standard_normal(frames_THWC.shape, dtype=np.float32) * (255 * value)
    return _bytes(frames_THWC + noise)


@register_change("blur", stage="pixels", default=2, between=(0, 50), severities=(0.5, 1, 2, 3, 5))
def gaussian_blur(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """Gaussian blur with a standard deviation of VALUE pixels."""
    import torch
    from torchvision.transforms.v2 import functional

    if not value:
        return frames_THWC
    height, width = frames_THWC.shape[1:3]
    # Three standard deviations a side; torchvision mirrors at the border, which needs a kernel no wider than that.
    side = min(2 * max(1, round(3 * value)) + 1, 2 * min(height, width) - 1)
    video_TCHW = torch.from_numpy(frames_THWC.copy()).permute(0, 3, 1, 2)
    blurred: Frames = functional.gaussian_blur(video_TCHW, [side, side], [value, value]).permute(0, 2, 3, 1).numpy()
    return blurred


@register_change("jpeg", stage="pixels", default=30, between=(1, 100), severities=(80, 50, 30, 15, 5))
def jpeg_compression(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """Every frame is compressed as a JPEG of quality VALUE (1 to 100), with colour at full size."""
    import numpy as np
    import simplejpeg

    encoded = [simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=int(value)) for frame in frames_THWC]
    return np.stack([simplejpeg.decode_jpeg(data) for data in encoded])


@register_change("brightness", stage="pixels", default=0.5, between=(0, 10), severities=(0.8, 0.6, 0.4, 0.25, 0.1))
def brightness(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """All values are multiplied by VALUE and clipped."""
    import numpy as np

    return _bytes(frames_THWC.astype(np.float32) * value)


@register_change("contrast", stage="pixels", default=0.5, between=(0, 10), severities=(0.8, 0.6, 0.4, 0.25, 0.1))
def contrast(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """The distance of all values from the clip's mean is multiplied by VALUE."""
    import numpy as np

    mean = frames_THWC.mean(dtype=np.float64)
    return _bytes((frames_THWC.astype(np.float32) - mean) * value + mean)


@register_change("gamma", stage="pixels", default=2, between=(0.1, 10), severities=(1.2, 1.5, 2, 3, 4))
def gamma(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """All values from 0 to 1 are raised to the power VALUE; above 1 the picture is darker."""
    import numpy as np

    return _bytes(255 * (np.arange(256) / 255) ** value)[frames_THWC]


@register_change("grayscale", stage="pixels")
def grayscale(frames_THWC: "Frames", *, value: None, random: "Generator") -> "Frames":
    """All channels are the luma of ITU-R BT.601."""
    import numpy as np

    luma = _bytes(frames_THWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    return np.repeat(luma[..., None], 3, axis=-1)


@register_change("rgb_to_bgr", stage="pixels")
def swapped_channels(frames_THWC: "Frames", *, value: None, random: "Generator") -> "Frames":
    """Red and blue are swapped."""
    return frames_THWC[..., ::-1]


@register_change("mirrored", stage="pixels")
def mirrored(frames_THWC: "Frames", *, value: None, random: "Generator") -> "Frames":
    """Left and right are swapped."""
    return frames_THWC[:, :, ::-1]


@register_change("occluded", stage="pixels", default=0.25, between=(0, 1), severities=(0.05, 0.1, 0.25, 0.5, 0.75))
def occluded(frames_THWC: "Frames", *, value: float, random: "Generator") -> "Frames":
    """A grey box hides VALUE of the picture, at one random place for the whole clip."""
    height, width = frames_THWC.shape[1:3]
    rows, columns = round(height * value**0.5), round(width * value**0.5)
    top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    hidden = frames_THWC.copy()
    hidden[:, top : top + rows, left : left + columns] = 127
    return hidden


def _bytes(values: "NDArray[np.floating]") -> "Frames":
    """Values rounded to whole numbers from 0 to 255."""
    import numpy as np

    rounded: Frames = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded
