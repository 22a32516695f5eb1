"""Pages with frames of videos: a contact sheet of errors, and the explanation of one prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.units import format_signed
from bench.reporting.contact_sheet import SheetClip, embedded, jpeg, sheet_html
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.site import write_single_page

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.train.explaining import Explanation

EXPLAINED = """
<style>
.explained .strip { display: flex; gap: 2px; overflow-x: auto; }
.explained .cell { position: relative; flex: 0 0 auto; width: 112px; }
.explained .cell img { width: 112px; height: 112px; display: block; }
.explained .cell svg { position: absolute; left: 0; top: 0; width: 112px; height: 112px; }
.explained .bar { height: 60px; display: flex; align-items: flex-end; }
.explained .bar span { display: block; width: 100%; background: var(--accent); }
.explained small { display: block; text-align: center; }
</style>
<p class="finding">{{ sentence }}</p>
<div class="explained">
<h3>Over time: what hiding a stretch of the clip costs</h3>
<div class="strip">
{% for cell in cells %}<div class="cell"><img src="{{ cell.plain }}" alt="frame {{ cell.number }}">
<div class="bar"><span style="height: {{ cell.height }}px"></span></div><small>{{ cell.drop }}</small></div>
{% endfor %}
</div>
<h3>In space: what hiding one place of the stretch costs</h3>
<div class="strip">
{% for cell in cells %}<div class="cell"><img src="{{ cell.plain }}" alt="">
<svg data-explained viewBox="0 0 {{ cell.columns }} {{ cell.rows }}" preserveAspectRatio="none" role="img"
aria-label="places that matter in frame {{ cell.number }}">
{% for place in cell.places %}<rect x="{{ place.x }}" y="{{ place.y }}" width="1" height="1" fill="{{ place.colour }}"
fill-opacity="{{ place.opacity }}"><title>{{ place.text }}</title></rect>
{% endfor %}</svg><small>{{ cell.strongest }}</small></div>
{% endfor %}
</div>
{% if layer %}
<h3>Grad-CAM of {{ layer }}</h3>
<div class="strip">
{% for cell in cells %}<div class="cell"><img src="{{ cell.cam }}" alt="Grad-CAM of frame {{ cell.number }}"></div>
{% endfor %}
</div>
{% else %}
<p class="muted">The model has no 3D convolution with a map of the frames, so there is no Grad-CAM.</p>
{% endif %}
</div>
<p class="muted">Occlusion replaces a part of the clip by its mean colour; the drop is of the probability of the class.
Red raises the probability, blue lowers it. Below each picture is its strongest place, counted from the top left of a
grid of {{ cells[0].rows }} rows and {{ cells[0].columns }} columns, and the drop in points.</p>
"""


def write_contact_sheet(file: Path, clips: Sequence[SheetClip], *, title: str, summary: str) -> Path:
    """Write a page with a strip of key frames for each clip."""
    html = sheet_html(clips, summary=summary)
    return write_single_page(file, [DrawnSection(name="clips", title=title, html=html)], title=title, description="")


def write_explanation(file: Path, found: "Explanation", *, video: str, model: str) -> Path:
    """Write the page of one explanation: a strip of frames with what decides, over time, in space, and by Grad-CAM."""
    of_frame = found.segment_of_frame
    middles = [
        [number for number, each in enumerate(of_frame) if each == segment][of_frame.count(segment) // 2]
        for segment in range(len(found.by_time))
    ]
    highest = max(float(found.by_time.max()), 1e-9)
    cells = [_cell(found, segment, frame, highest=highest) for segment, frame in enumerate(middles)]
    decisive = int(found.by_time.argmax())
    first, last = found.spans[decisive]
    sentence = (
        f"{model} answers {found.name} with a probability of {100 * found.probability:.1f} %. Hiding frames {first} to "
        f"{last} of the clip costs most: {100 * float(found.by_time[decisive]):.1f} points."
    )
    html = render(EXPLAINED, sentence=sentence, cells=cells, layer=found.layer if found.grad_cam is not None else "")
    title = f"What decides {video}"
    return write_single_page(
        file, [DrawnSection(name="explained", title=title, html=html)], title=title, description=""
    )


def _cell(found: "Explanation", segment: int, frame: int, *, highest: float) -> dict[str, Any]:
    """One column of the strip: a frame of a segment, its drop, and its places."""
    drop, places = float(found.by_time[segment]), found.by_place[segment]
    most = max(float(abs(found.by_place).max()), 1e-9)
    rows, columns = places.shape
    row, column = divmod(int(abs(places).argmax()), columns)
    return {
        "number": frame,
        "plain": embedded(jpeg(found.frames[frame])),
        "drop": format_signed(100 * drop, 1),
        "height": f"{60 * max(0.0, drop) / highest:.0f}",
        "rows": rows,
        "columns": columns,
        "strongest": f"row {row + 1}, column {column + 1}: {format_signed(100 * float(places[row, column]), 1)}",
        "places": [
            {
                "x": column,
                "y": row,
                "colour": "#c0392b" if places[row, column] > 0 else "#2c5aa0",
                "opacity": f"{0.7 * abs(float(places[row, column])) / most:.2f}",
                "text": f"{format_signed(100 * float(places[row, column]), 1)} points",
            }
            for row in range(rows)
            for column in range(columns)
        ],
        "cam": "" if found.grad_cam is None else embedded(jpeg(_heated(found.frames[frame], found.grad_cam[frame]))),
    }


def _heated(frame_HWC: "NDArray[np.uint8]", cam_HW: "NDArray[np.float32]") -> "NDArray[np.uint8]":  # shape suffixes
    """The frame in grey, with red where the map is high."""
    import numpy as np

    grey = frame_HWC.mean(axis=2, keepdims=True) * 0.6
    red = np.array([255.0, 40.0, 0.0])
    mixed = grey * (1 - 0.7 * cam_HW[..., None]) + red * 0.7 * cam_HW[..., None]
    heated: NDArray[np.uint8] = mixed.clip(0, 255).astype(np.uint8)
    return heated
