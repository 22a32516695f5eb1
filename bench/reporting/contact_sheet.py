"""Contact sheets: key frames of wrongly predicted clips, alone on a page or behind the cells of a confusion matrix."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError, InputError, VideoError
from bench.core.privacy import anonymous_text
from bench.core.schema import Json
from bench.core.units import plural
from bench.reporting.links import Links
from bench.reporting.rendering import DrawnSection, render

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.data.collection import VideoSet
    from bench.train.predictions import Predictions
    from bench.train.suspicious import Suspect

SIDE = 160  # short side of a frame, in pixels
QUALITY = 80
CLIPS_OF_CELL = 4
FRAMES_OF_CLIP = 4
# Clips of a whole report: its pages stay below 3 MB, and a single file fits into a mail (7 kB a frame with base64).
MOST_CLIPS = 2000
MOST_CLIPS_IN_SINGLE_FILE = 200
SHEET = """
<p>{{ summary }}</p>
<div class="sheet">
{% for clip in clips %}
<figure>
<div class="strip">{% for source in clip.frames %}<img src="{{ source }}" loading="lazy"
alt="frame {{ loop.index }} of {{ clip.video }}">
{% endfor %}</div>
<figcaption><strong>{{ clip.video }}</strong>: labelled {{ clip.label }} ({{ clip.label_score }}), predicted
{{ clip.predicted }} ({{ clip.predicted_score }}){% if clip.problem %}; {{ clip.problem }}{% endif %}</figcaption>
</figure>
{% endfor %}
</div>
"""
OVERVIEW = """
<p>{{ summary }}{% if page %} Back to <a href="{{ page }}">the model</a>.{% endif %}</p>
"""


@dataclass(frozen=True, kw_only=True)
class SheetClip:
    """One clip of a contact sheet; `frames` (T, H, W, 3), or none with the `problem`."""

    video: str
    label: str
    predicted: str
    label_score: float
    predicted_score: float
    frames: "NDArray[np.uint8] | None"
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class VideoSource:
    """Where the videos of stored predictions are: the folder of the data set, and the data set's own options."""

    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, protocol: Mapping[str, Json]) -> "VideoSet":
        """The data set that `protocol` names; raises InputError if it names none, else as `open_dataset` does."""
        from bench.data.collection import open_dataset

        dataset, split = protocol.get("dataset"), protocol.get("split")
        if not isinstance(dataset, str) or not isinstance(split, str):
            raise InputError("the predictions do not say of which data set their videos are, so no frame can be read")
        return open_dataset(dataset, root=self.root, split=split, **self.options)


def read_clips(videos: "VideoSet", suspects: "Sequence[Suspect]", *, frames: int) -> list[SheetClip]:
    """The suspects with `frames` key frames each; a video that cannot be read has its problem instead."""
    from bench.data.clips import key_frames

    by_id = {video.id: video for video in videos.videos}
    clips = []
    for each in suspects:
        pictures, problem = None, ""
        try:
            if each.video not in by_id:
                raise VideoError(f"the data set in {videos.root} has no such video")
            pictures = key_frames(by_id[each.video], count=frames, size=SIDE, backend=videos.backend)
        except VideoError as error:
            problem = str(error)
        clips.append(SheetClip(**asdict(each), frames=pictures, problem=problem))
    return clips


def sheet_html(clips: Sequence[SheetClip], *, summary: str, address: Callable[[bytes], str] | None = None) -> Any:
    """A strip of key frames for each clip; `address` gives that of a JPEG, by default the JPEG itself as `data:`."""
    address = address or embedded
    shown = [
        {
            "video": clip.video,
            "label": clip.label,
            "predicted": clip.predicted,
            "label_score": f"{clip.label_score:.2f}",
            "predicted_score": f"{clip.predicted_score:.2f}",
            "frames": [] if clip.frames is None else [address(jpeg(frame)) for frame in clip.frames],
            "problem": clip.problem,
        }
        for clip in clips
    ]
    return render(SHEET, summary=summary, clips=shown)


def error_sections(
    found: "Predictions", source: VideoSource, *, name: str, links: Links, model_page: str, most: int
) -> list[DrawnSection]:
    """A contact sheet for each cell of the confusion matrix that has errors, the cell with most errors first.

    A cell shows its `CLIPS_OF_CELL` most confident errors, all cells together at most `most`. A section's name is
    `cell_name` of its cell. `name` is that of the model in addresses.
    """
    from bench.train.suspicious import confident_errors

    cells, errors = error_cells(found, most=most), confident_errors(found)
    by_cell: dict[tuple[str, str], list[Suspect]] = {}
    for each in errors:
        by_cell.setdefault((each.label, each.predicted), []).append(each)
    videos, problem = None, ""
    try:
        videos = source.open(found.protocol) if cells else None
    except BenchError as error:
        problem = anonymous_text(str(error))
    left_out = len(by_cell) - len(cells)
    summary = f"{plural(len(errors), 'error')} in {plural(len(by_cell), 'cell')} of the confusion matrix" + (
        f"; the {plural(left_out, 'cell')} with fewest errors are listed by vbench predictions show."
        if left_out
        else "."
    )
    drawn = [
        DrawnSection(name=f"errors-{name}", title="Errors", html=render(OVERVIEW, summary=summary, page=model_page))
    ]
    for (row, column), shown in cells.items():
        label, predicted = found.class_names[row], found.class_names[column]
        suspects = by_cell[label, predicted]
        clips = [] if videos is None else read_clips(videos, suspects[:shown], frames=FRAMES_OF_CLIP)
        images: dict[str, bytes] = {}

        def address(data: bytes, images: dict[str, bytes] = images) -> str:
            file = f"frames/{image_name(data)}"
            images[file] = data
            return f"{links.prefix}{file}"

        html = sheet_html(
            [_anonymous(clip) for clip in clips],
            summary=_cell_summary(clips, len(suspects), problem=problem),
            address=None if links.is_single_file else address,
        )
        title = f"{label} taken for {predicted}"
        drawn.append(DrawnSection(name=cell_name(name, row, column), title=title, html=html, images=images))
    return drawn


def error_cells(found: "Predictions", *, most: int) -> dict[tuple[int, int], int]:
    """How many clips are shown of each (true, predicted) pair of classes with errors; at most `most` of all pairs."""
    counts = found.confusion.tolist()
    errors = [
        (-count, row, column)
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if count and row != column
    ]
    cells: dict[tuple[int, int], int] = {}
    for count, row, column in sorted(errors):
        if shown := min(-count, CLIPS_OF_CELL, most - sum(cells.values())):
            cells[row, column] = shown
    return cells


def cell_name(name: str, row: int, column: int) -> str:
    """The name of the section of one cell."""
    return f"errors-{name}-{row}-{column}"


def _cell_summary(clips: Sequence[SheetClip], errors: int, *, problem: str) -> str:
    """How many errors the cell has, how many are shown, and what cannot be read."""
    whole = plural(errors, "video")
    if problem:
        return f"{whole}; their frames cannot be shown: {problem}"
    unread = sum(clip.frames is None for clip in clips)
    if unread == len(clips):
        return f"{whole}; none of the {unread} tried can be read any more."
    more = f", of which the {len(clips)} most confident are here" if errors > len(clips) else ""
    return f"{whole}{more}{f'; {unread} cannot be read any more' if unread else ''}."


def _anonymous(clip: SheetClip) -> SheetClip:
    """The clip without home folders in its problem: a report is published, a page of the command line is not."""
    return replace(clip, problem=anonymous_text(clip.problem)) if clip.problem else clip


def image_name(data: bytes) -> str:
    """A file name by content, which tells images of a report from files of others."""
    return f"{hashlib.sha256(data).hexdigest()[:16]}.jpg"


def jpeg(frame_HWC: "NDArray[np.uint8]") -> bytes:  # the shape suffix is meant
    """The frame as a JPEG."""
    import numpy as np
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(frame_HWC), quality=QUALITY)
    return data


def embedded(data: bytes) -> str:
    """A JPEG as a `data:` address."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
