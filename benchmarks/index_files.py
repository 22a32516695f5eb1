"""Measures `vbench data index` over many small files: files/s, peak memory, and resuming after a kill.

    python benchmarks/index_files.py [--workers 1] > benchmarks/index_files.md      # about three minutes

The files are copies of a few generated avi files of 8 frames at 64 x 48. Memory is the peak resident size of the
process that writes the index; each row has its own process. One run gets SIGKILL half way; the next must
decode only the rest, and the index must then hold every file once.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np

FEW, MANY = 1_000, 10_000
KINDS, FRAMES = 20, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index is not None:
        _index(options.index, workers=options.workers)
        return
    from turns import environment_line  # late, so that torch does not count as memory of the index

    print(environment_line(), end="\n\n")
    print("| run | files | decoded | s | files/s | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        kinds = [_write(Path(scratch, f"kind_{seed}.avi"), seed=seed) for seed in range(KINDS)]
        few, many = (_copies(Path(scratch, str(count)), kinds, count=count) for count in (FEW, MANY))
        peaks = [_row(name, root, options.workers) for name, root in (("all", few), ("all", many), ("again", many))]
        shutil.rmtree(many / ".vbench")
        before = _kill_half_way(many, options.workers)
        _row(f"killed after {before:,} files, then", many, options.workers)
        times = Counter(json.loads(line)["path"] for line in (many / ".vbench/index.jsonl").open(encoding="utf-8"))
    print(f"\nMemory at {MANY:,} files over that at {FEW:,}: {peaks[1] / peaks[0]:.2f}.")
    print(f"After the kill: {len(times):,} files in the index, {sum(n > 1 for n in times.values())} of them twice.")


def _write(path: Path, *, seed: int) -> Path:
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(FRAMES):
            picture = random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def _copies(root: Path, kinds: list[Path], *, count: int) -> Path:
    for number in range(count):
        folder = root / f"class_{number % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kinds[number % len(kinds)], folder / f"video_{number:05d}.avi")
    return root


def _command(root: Path, workers: int) -> list[str]:
    return [sys.executable, __file__, "--index", str(root), "--workers", str(workers)]


def _row(name: str, root: Path, workers: int) -> float:
    ran = subprocess.run(_command(root, workers), check=True, capture_output=True, text=True)
    done = json.loads(ran.stdout.splitlines()[-1])
    rate = f"{done['probed'] / done['seconds']:,.0f}" if done["probed"] else ""
    print(f"| {name} | {done['files']:,} | {done['probed']:,} | {done['seconds']:.1f} | {rate} | {done['mb']:.0f} |")
    sys.stdout.flush()
    return float(done["mb"])


def _index(root: Path, *, workers: int) -> None:
    from bench.data.index import index_folder

    done = index_folder(root, workers=workers)
    print(json.dumps({"files": done.files, "probed": done.probed, "seconds": done.seconds, "mb": _peak_mb()}))


def _peak_mb() -> float:
    """Of this program alone: what getrusage tells has the parent's memory in it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _kill_half_way(root: Path, workers: int) -> int:
    """How many files were in the index when the run was killed."""
    index = root / ".vbench/index.jsonl"
    with subprocess.Popen(_command(root, workers), stdout=subprocess.DEVNULL, start_new_session=True) as running:
        while running.poll() is None and _lines(index) < MANY // 2:
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    return _lines(index)


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


if __name__ == "__main__":
    main()
