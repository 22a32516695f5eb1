"""`report --with-frames`: from a cell of the confusion matrix to key frames of its videos."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench.cli.app import run_command
from bench.core.errors import InputError
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.reporting.contact_sheet import error_cells
from bench.reporting.site import ReportWarning, report
from bench.store import RecordStore
from bench.train.predictions import Predictions, store_predictions

FILE = "artifacts/a/predictions.parquet"
CLASSES = ("jump", "run", "sit")
# Video, label, predicted class, and its score: five errors of `jump as run`, one of `run as sit`.
VIDEOS = [
    *((f"jump/clip{number}", 0, 1, 0.5 + number / 100) for number in range(5)),
    ("run/gone", 1, 2, 0.9),
    ("sit/right", 2, 2, 0.9),
]
SHADES = {f"jump/clip{number}": 40 * number + 20 for number in range(5)}  # grey of each video's frames


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """The folder of the data set, without the video `run/gone`."""
    root = tmp_path / "videos"
    for name, shade in {**SHADES, "run/other": 128, "sit/right": 128}.items():
        file = root / "val" / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(file, np.full((8, 64, 64, 3), shade, dtype=np.uint8), fps=8, options=HISTORY_FREE)
    return root


@pytest.fixture
def results(make: SimpleNamespace, videos: Path, tmp_path: Path) -> Path:
    """Records of one model whose case names the folder of the data set."""
    scores = np.zeros((len(VIDEOS), 3), dtype=np.float32)
    for row, (_, _, predicted, score) in enumerate(VIDEOS):
        scores[row, predicted] = score
    found = Predictions(
        videos=tuple(video for video, *_ in VIDEOS), labels=np.array([label for _, label, *_ in VIDEOS]),
        scores=scores, classes=CLASSES, protocol={"dataset": "folder", "split": "val"},
    )  # fmt: skip
    file = tmp_path / "results" / FILE
    file.parent.mkdir(parents=True)
    store_predictions(file, found)
    record = make.accuracy("c3d", artifacts={"predictions": FILE})
    case = record.case.model_copy(update={"measures": {"accuracy": {"root": str(videos)}}})
    RecordStore(tmp_path / "results").append(record.model_copy(update={"case": case}))
    return tmp_path / "results"


def section(html: str, name: str) -> str:
    """The HTML of one section of a page."""
    return re.split(r"</section>", html.partition(f'<section id="{name}"')[2])[0]


def test_a_cell_leads_to_key_frames_of_its_most_confident_errors(results: Path, tmp_path: Path) -> None:
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    model = (site / "models" / "c3d.html").read_text(encoding="utf-8")
    assert re.findall(r'<a href="\.\./errors/c3d\.html#(errors-[^"]*)"', model) == ["errors-c3d-0-1", "errors-c3d-1-2"]
    assert 'href="../errors/c3d.html"' in model
    page = (site / "errors" / "c3d.html").read_text(encoding="utf-8")
    cell = section(page, "errors-c3d-0-1")
    assert "jump taken for run" in cell
    assert re.findall(r"<strong>([^<]*)</strong>", cell) == ["jump/clip4", "jump/clip3", "jump/clip2", "jump/clip1"]
    assert "5 videos, of which the 4 most confident are here" in cell
    assert "leads to their frames.\n<a href=" in model
    sources = re.findall(r'<img src="([^"]*)"', cell)
    assert len(sources) == 16
    shades = [np.asarray(Image.open(site / "errors" / source)).mean() for source in sources[::4]]
    assert np.allclose(shades, [SHADES[f"jump/clip{number}"] for number in (4, 3, 2, 1)], atol=6)
    assert "data:image" not in page


def test_a_cell_says_that_its_videos_are_gone(results: Path, videos: Path, tmp_path: Path) -> None:
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    cell = section((site / "errors" / "c3d.html").read_text(encoding="utf-8"), "errors-c3d-1-2")
    assert "none of the 1 tried can be read any more" in cell
    assert "has no such video" in cell
    shutil.rmtree(videos)
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    page = (site / "errors" / "c3d.html").read_text(encoding="utf-8")
    for name in ("errors-c3d-0-1", "errors-c3d-1-2"):
        assert "their frames cannot be shown" in section(page, name)
    assert not list(site.glob("frames/*"))


def test_a_damaged_video_is_named_and_the_others_are_shown(results: Path, videos: Path, tmp_path: Path) -> None:
    (videos / "val" / "jump" / "clip4.mp4").write_bytes(b"no video")
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    cell = section((site / "errors" / "c3d.html").read_text(encoding="utf-8"), "errors-c3d-0-1")
    assert "5 videos, of which the 4 most confident are here; 1 cannot be read any more." in cell
    assert cell.count("<img") == 12


def test_a_report_without_frames_removes_those_of_an_earlier_one_and_nothing_else(
    results: Path, tmp_path: Path
) -> None:
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    assert list(site.glob("frames/*.jpg"))
    (site / "frames" / "mine.jpg").write_bytes(b"of somebody else")
    report(results, out=site)
    assert [file.name for file in site.glob("frames/*")] == ["mine.jpg"]
    assert not (site / "errors" / "c3d.html").exists()
    assert "errors/" not in (site / "models" / "c3d.html").read_text(encoding="utf-8")


def test_a_single_file_has_its_frames_inside(results: Path, tmp_path: Path) -> None:
    file = report(results, out=tmp_path / "report.html", single_file=True, with_frames=True)
    html = file.read_text(encoding="utf-8")
    assert 'href="#errors-c3d-0-1"' in html
    sources = re.findall(r'<img src="([^"]*)"', section(html, "errors-c3d-0-1"))
    assert len(sources) == 16
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert [each.name for each in tmp_path.iterdir() if each.name == "frames"] == []


def test_moved_videos_are_found_by_the_root_that_is_given(
    results: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos.rename(tmp_path / "moved")
    out = tmp_path / "site"
    given = ["report", str(results), "--out", str(out), "--root", str(tmp_path / "moved")]
    assert run_command(given) == 2
    assert "--with-frames, which is not given" in capsys.readouterr().err
    assert run_command([*given, "--with-frames", "--watch"]) == 2
    assert "--with-frames reads videos" in capsys.readouterr().err
    assert run_command([*given, "--with-frames"]) == 0
    assert len(list(out.glob("frames/*.jpg"))) >= 4


def test_the_most_clips_are_those_of_the_largest_cells() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    predicted = [1] * 6 + [2] * 3 + [0]
    found = Predictions(
        videos=tuple("abcdefghij"), labels=labels, scores=np.eye(3, dtype=np.float32)[predicted], classes=CLASSES,
        protocol={},
    )  # fmt: skip
    assert error_cells(found, most=100) == {(0, 1): 4, (1, 2): 3, (2, 0): 1}
    assert error_cells(found, most=5) == {(0, 1): 4, (1, 2): 1}
    assert error_cells(found, most=0) == {}


def test_cells_beyond_the_most_clips_have_no_link_and_are_counted(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.reporting.site.MOST_CLIPS", 4)
    site = report(results, out=tmp_path / "site", with_frames=True).parent
    model = (site / "models" / "c3d.html").read_text(encoding="utf-8")
    assert "errors-c3d-0-1" in model
    assert "errors-c3d-1-2" not in model
    page = (site / "errors" / "c3d.html").read_text(encoding="utf-8")
    assert "6 errors in 2 cells of the confusion matrix; the 1 cell with fewest errors" in page


def test_without_predictions_there_is_a_warning(make: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.warns(ReportWarning, match="no case has stored predictions"):
        report([make.accuracy("c3d")], out=tmp_path / "site", with_frames=True)


def test_a_single_file_without_pages_of_models_refuses_frames(make: SimpleNamespace, tmp_path: Path) -> None:
    records = [make.counts(params=p, args={"width": p}) for p in range(1, 103)]
    with pytest.raises(InputError, match="write a folder instead"):
        report(records, out=tmp_path / "report.html", single_file=True, with_frames=True)
