"""Takes the pictures of the how-to pages from a run of the suite in docs/changed-input.md.

It takes 3 minutes on two quiet cores, and took 19 on two busy ones.

    python docs/images/take_how_to_pictures.py

The trained model is then evaluated with a wrong value range, for a diagnosis, and asked what decides one video.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from take_picture import take_picture

from bench import open_dataset

DOCS = Path(__file__).resolve().parents[1]
HEIGHTS = {"changed-input": 900, "calibration": 900, "diagnosis": 1000, "explanation": 860}
WRONG = "scale=255"  # the model was trained on values from 0 to 1


def main() -> None:
    """Measure, write the pages into a temporary folder, and replace the pictures in docs/images."""
    text = (DOCS / "changed-input.md").read_text(encoding="utf-8")
    [suite] = re.findall(r"^```yaml\n(suite: use_of_time\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "use_of_time.yaml").write_text(suite, encoding="utf-8")
        vbench("run", "use_of_time.yaml", folder=folder)
        results = folder / "results" / "use_of_time"
        # Relative names, because pages show them.
        weights = str((results / trained_weights(results, kernel_depth=3)).relative_to(folder))
        model = ["c3d_search", "--arg", "kernel_depth=3", "--arg", "width=0.125"]
        data = ["--dataset", "motions", "--preprocess", WRONG, "--published", "99"]
        vbench("diagnose", *model, "--weights", weights, *data, "--out", ".", folder=folder)
        shutil.copyfile(open_dataset("motions", split="val").videos[2].path, folder / "video.mp4")
        vbench("explain", *model, "video.mp4", "--weights", weights, "--out", "explanation.html", folder=folder)
        pages = {name: folder / f"{name}.html" for name in ("diagnosis", "explanation")}
        pages |= {name: results / "report" / f"{name}.html" for name in ("changed-input", "calibration")}
        for name, page in pages.items():
            take_small_picture(page, name)


def take_small_picture(page: Path, name: str) -> None:
    """Take the picture of a how-to page, with 256 colours, which need a third of the bytes."""
    picture = DOCS / "images" / f"{name}.png"
    take_picture(page, picture, width=1100, height=HEIGHTS[name], scale=1)
    with Image.open(picture) as full:
        small = full.convert("RGB").quantize(256)
    small.save(picture, optimize=True)


def vbench(*arguments: str, folder: Path) -> None:
    """Run a command of vbench in `folder`."""
    subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=folder, check=True)


def trained_weights(results: Path, *, kernel_depth: int) -> str:
    """The path of the trained weights of one model, below the results folder."""
    for line in (results / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["case"]["point"]["args"].get("kernel_depth") == kernel_depth and "weights" in record["artifacts"]:
            return str(record["artifacts"]["weights"])
    raise SystemExit(f"no training of kernel depth {kernel_depth} in {results}")


if __name__ == "__main__":
    main()
