"""Write the optical flow of videos as pictures `flow_x_00001.jpg` and `flow_y_00001.jpg`, or one npz per video.

Flow is clipped to 20 pixels either way and stored as bytes, 0 to 255. DIS, Farneback and TV-L1 come from OpenCV
(opencv-python-headless; TV-L1 from opencv-contrib-python-headless).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import MissingPackageError, UnknownNameError, VideoError
from bench.core.files import atomic_file, atomic_folder
from bench.data.media import stem_of
from bench.data.parallel import OnProgress, no_progress
from bench.data.prepare import JPEG_QUALITY, Prepared, every_frame, prepare_all, require_side

CLIP_PX = 20.0
METHODS = ("dis", "farneback", "tvl1")
FORMS = ("jpeg", "npz")

Flow = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]


def prepare_flow(
    source: str | Path,
    target: str | Path,
    *,
    method: Literal["dis", "farneback", "tvl1"] = "dis",
    form: Literal["jpeg", "npz"] = "jpeg",
    short_side: int | None = None,
    workers: int = 0,
    on_progress: OnProgress = no_progress,
) -> Prepared:
    """Write flow between the neighbouring frames of every video under `source`, N - 1 entries for N frames."""
    for what, value, known in (("flow method", method, METHODS), ("form of flow", form, FORMS)):
        if value not in known:
            raise UnknownNameError(what, value, known)
    require_side(short_side)
    flow_method(method)
    do = partial(_write_flow, Path(source), Path(target), method, form, short_side)
    place = partial(_target, Path(target), form)
    return prepare_all(Path(source), Path(target), do, place, workers=workers, on_progress=on_progress)


def flow_method(name: str) -> Flow:
    """Return the function from two grey frames to flow (H, W, 2) in pixels; MissingPackageError without OpenCV."""
    cv2 = _opencv()
    if name == "farneback":
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    if name == "tvl1" and not hasattr(cv2, "optflow"):
        raise _missing("opencv-contrib-python-headless")
    made: Any = cv2.optflow.DualTVL1OpticalFlow_create() if name == "tvl1" else cv2.DISOpticalFlow_create(1)
    return lambda a, b: made.calc(a, b, None)


def _opencv() -> Any:
    """Return the module cv2, untyped: its stubs lack half of what is used."""
    try:
        return import_module("cv2")
    except ImportError as error:
        raise _missing("opencv-python-headless") from error


def as_bytes(flow_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels from -20 to 20 as bytes from 0 to 255, clipped."""
    scaled = (np.clip(flow_HW, -CLIP_PX, CLIP_PX) + CLIP_PX) * (255 / (2 * CLIP_PX))
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def write_flow_pictures(folder: Path, flows: Iterable[NDArray[np.uint8]]) -> int:
    """Write each flow (H, W, 2) of bytes as two pictures; returns the number of flows."""
    import simplejpeg

    number = 0
    for number, flow_HW2 in enumerate(flows, start=1):
        for axis, letter in enumerate("xy"):
            plane = np.ascontiguousarray(flow_HW2[..., axis : axis + 1])
            data = simplejpeg.encode_jpeg(plane, quality=JPEG_QUALITY, colorspace="GRAY")
            (folder / f"flow_{letter}_{number:05d}.jpg").write_bytes(data)
    return number


def _flows(path: Path, method: str, short_side: int | None) -> Iterator[NDArray[np.uint8]]:
    """Yield the flow (H, W, 2) of each pair of frames as bytes."""
    cv2 = _opencv()
    cv2.setNumThreads(1)
    flow = flow_method(method)
    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in every_frame(path, short_side=short_side))
    for before, after in pairwise(grey):
        yield as_bytes(flow(before, after))


def _write_flow(source: Path, target: Path, method: str, form: str, short_side: int | None, name: str) -> None:
    flows = _flows(source / name, method, short_side)
    place = _target(target, form, name)
    if form == "jpeg":
        with atomic_folder(place) as folder:
            if not write_flow_pictures(folder, flows):
                raise VideoError(f"{source / name}: has a single frame, so there is no flow")
        return
    stacked = list(flows)
    if not stacked:
        raise VideoError(f"{source / name}: has a single frame, so there is no flow")
    with atomic_file(place) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, flow=np.stack(stacked))


def _target(target: Path, form: str, name: str) -> Path:
    return target / (stem_of(name) if form == "jpeg" else f"{stem_of(name)}.npz")


def _missing(package: str) -> MissingPackageError:
    return MissingPackageError(package, needed_for="optical flow", install=f"pip install {package}")
