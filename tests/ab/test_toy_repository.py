"""A real git repository whose last commit holds ten planted changes, and what `vbench ab` and `compare` print of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

PLUGIN = '''
import random

import torch
from torch import nn
from bench.core.registry import register_model


class Net(nn.Module):
    def __init__(self, num_classes, *, layers=1, hidden=8):
        super().__init__()
        middle = [nn.Conv3d(8, 8, 3, padding=1) for _ in range(layers)]
        self.layers = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), *middle)
        self.hidden = nn.Linear(8, hidden)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, clips):
        return self.fc(self.hidden(self.layers(clips).mean((2, 3, 4))))


class Small(nn.Module):
    """One operator more or less in `forward`, which no count of a layer shows."""

    def __init__(self, num_classes, *, sines=0, held_mib=0, fault=""):
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3)
        self.fc = nn.Linear(8, num_classes)
        self.sines, self.held_mib, self.fault = sines, held_mib, fault

    def forward(self, clips):
        held = torch.ones(self.held_mib, 2**18)
        if self.fault and not clips.is_meta:
            raise RuntimeError(self.fault)
        for _ in range(self.sines):
            clips = clips.sin()
        return self.fc(self.conv(clips).mean((2, 3, 4))) * (1 + 0 * held.sum())


class Bright(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(1, num_classes)

    def forward(self, clips):
        return self.fc(SIGN * clips.mean((1, 2, 3, 4)).unsqueeze(1))


@register_model("deep", clip="8x1x32")
def deep(num_classes: int = 5) -> Net:
    """Gets a layer."""
    return Net(num_classes, layers=LAYERS)


@register_model("wide", clip="8x1x32")
def wide(num_classes: int = 5) -> Net:
    """Gets a wider head."""
    return Net(num_classes, hidden=HIDDEN)


@register_model("NAMED", clip="8x1x32")
def named(num_classes: int = 5) -> Net:
    """Gets another name."""
    return Net(num_classes, layers=3)


@register_model("ALONE", clip="8x1x32")
def alone(num_classes: int = 5) -> Net:
    """One model is removed and another one is new."""
    return Net(num_classes, layers=ALONE_DEPTH)


@register_model("sluggish", clip="8x1x32")
def sluggish(num_classes: int = 5) -> Small:
    """Gets a slower operator."""
    return Small(num_classes, sines=SINES)


@register_model("hungry", clip="8x1x32")
def hungry(num_classes: int = 5) -> Small:
    """Needs more memory."""
    return Small(num_classes, held_mib=HELD)


@register_model("broken", clip="8x1x32")
def broken(num_classes: int = 5) -> Small:
    """Fails."""
    return Small(num_classes, fault="FAULT")


@register_model("noisy", clip="8x1x32")
def noisy(num_classes: int = 5) -> Small:
    """Is faster in some processes than in others, at either commit."""
    return Small(num_classes, sines=random.choice([0, 30, 100, 300]))


@register_model("bright", clip="4x1x32")
def bright(num_classes: int = 2) -> Bright:
    """Tells bright videos from dark ones, and takes one for the other after the change."""
    return Bright(num_classes)
'''
BEFORE = {
    "LAYERS": "1", "HIDDEN": "8", "NAMED": "first", "ALONE_DEPTH": "5", "ALONE": "gone", "SINES": "0", "HELD": "1",
    "FAULT": "", "SIGN": "1",
}  # fmt: skip
AFTER = {
    "LAYERS": "2", "HIDDEN": "16", "NAMED": "second", "ALONE_DEPTH": "4", "ALONE": "fresh", "SINES": "100",
    "HELD": "300", "FAULT": "planted", "SIGN": "-1",
}  # fmt: skip
COUNTS = (
    "suite: counts\nplugins: [nets]\nmodels: [deep, wide, {NAMED}, {ALONE}]\nmeasure: {{params: {{}}, macs: {{}}}}\n"
)
SUITES = {
    "speed": "models: [sluggish, broken]\nmeasure: {latency: {max_s: 0.2}}\n",
    "memory": "models: [hungry]\nmeasure: {memory: {}}\ngate: {memory.peak_rss_bytes: {max_rise: 20%}}\n",
    "noise": "models: [noisy]\nmeasure: {latency: {max_s: 0.2}}\n",
    "scores": "models: [{name: bright, weights: bright.pt}]\nmeasure:\n"
    "  accuracy: {dataset: folder, split: val, views: 1x1, root: ROOT}\ngate: {accuracy.top1: {max_drop: 0.5pt}}\n",
}


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def vbench(*arguments: object) -> tuple[int, list[str]]:
    """The exit code and the lines printed, by a process of its own because the plug-in changes between two calls."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "400"})
    return done.returncode, done.stdout.splitlines() or done.stderr.splitlines()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two commits of models and suites, and twelve bright and twelve dark videos elsewhere."""
    folder, videos = tmp_path / "repository", tmp_path / "videos" / "val"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other while other tests use the cores
    for label, level in (("bright", 250), ("dark", 5)):
        for number in range(12):
            (videos / label / f"{number}").mkdir(parents=True)
            for frame in range(1, 6):
                picture = Image.new("RGB", (32, 32), (level + number % 5,) * 3)
                picture.save(videos / label / f"{number}" / f"image_{frame:05d}.jpg")
    torch.save({"fc.weight": torch.tensor([[1.0], [-1.0]]), "fc.bias": torch.zeros(2)}, folder / "bright.pt")
    for name, text in SUITES.items():
        text = text.replace("ROOT", str(videos.parent))
        (folder / f"{name}.yaml").write_text(f"suite: {name}\nplugins: [nets]\n{text}")
    git(folder, "init", "-q", "-b", "main")
    for planted in (BEFORE, AFTER):
        text = PLUGIN
        for word, value in planted.items():
            text = text.replace(word, value)
        (folder / "nets.py").write_text(text)
        (folder / "counts.yaml").write_text(COUNTS.format(**planted))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", planted["NAMED"])
    return folder


def as_one_line(printed: list[str]) -> str:
    """Return the printed words with single spaces, because a table may wrap its rows."""
    return " ".join(" ".join(printed).split())


@pytest.mark.slow
def test_planted_changes_of_counts_are_read_word_for_word(repository: Path) -> None:
    """An extra layer, a wider head, a removed case, a new one and a rename.

    By hand: a convolution of 8 x 8 x 27 weights and 8 biases over 8 x 32 x 32 places; 8 more hidden units.
    """
    lines = (repository / "nets.py").read_text().splitlines()
    places = {each: 1 + lines.index(f'@register_model("{each}", clip="8x1x32")') for each in ("deep", "wide")}
    changed = [
        f"worse: deep: layers.2 added: +14.16 MMACs, +1.736 k parameters (nets.py:{places['deep']})",
        "  deep 8x1x32: params.total +69.2 %, params.trainable +69.2 %, macs.forward +72.7 %, macs.train_step +80.0 %",
        "worse: wide: hidden changed: +64 MACs, +72 parameters; fc changed: +40 MACs, +40 parameters "
        f"(nets.py:{places['wide']})",
        "  wide 8x1x32: params.total +4.5 %, params.trainable +4.5 %, macs.forward +104 MACs, "
        "macs.train_step +312 MACs",
    ]
    code, printed = vbench("ab", "HEAD~1", "HEAD", "counts.yaml", "--counts", "--out", "out/counts")
    assert code == 3
    assert printed == [
        *changed,
        "4 metrics are the same; --json shows them",
        "Missing in head:",
        "  first 8x1x32: base has results and head has none for this case",
        "  gone 8x1x32: base has results and head has none for this case",
        "Added in head:",
        "  second 8x1x32: is not in base",
        "  fresh 8x1x32: is not in base",
        "Notes:",
        "  first is gone and second is new, with the same layers and counts: if it was renamed, add "
        "`renamed: {second: first}` to the suite, which compares them and keeps the history",
        f"  records of both sides: {repository / 'out' / 'counts'}",
        "8 worse, 4 same; 2 missing, 2 added",
    ]

    (repository / "counts.yaml").write_text(COUNTS.format(**AFTER) + "renamed: {second: first}\n")
    code, printed = vbench("ab", "HEAD~1", "HEAD", "counts.yaml", "--counts", "--out", "out/renamed")
    assert code == 3
    assert printed == [
        *changed,
        "10 metrics are the same; --json shows them",
        "Missing in head:",
        "  gone 8x1x32: base has results and head has none for this case",
        "Added in head:",
        "  fresh 8x1x32: is not in base",
        "Notes:",
        f"  records of both sides: {repository / 'out' / 'renamed'}",
        "8 worse, 10 same; 1 missing, 1 added",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "budget", "code", "words", "last"),
    [
        pytest.param(
            "speed",
            "10m",
            3,
            r"worse sluggish 8x1x32 latency\.p50_ms N .s N ms \+N % \+N % \(\+N % to \+N %\), p (< )?N; 3% is allowed",
            "1 worse; 1 failed, 3 not gated",
            id="a slower operator, and a case that fails",
        ),
        pytest.param(
            "memory",
            "10m",
            1,
            r"worse hungry 8x1x32 memory\.peak_rss_bytes N MiB N MiB \+N % "
            r"\+N % \(\+N % to \+N %\), p (< )?N; rise 20% is allowed",
            "1 worse; 3 not gated",
            id="more memory",
        ),
        pytest.param(
            "scores",
            "10m",
            1,
            r"worse bright weights=bright\.pt dataset=folder split=val views=1x1 4x1x32 accuracy\.top1 100 % 0 % "
            r"-100\.0 % -100\.00 pt \(-100\.00 pt to -72\.40 pt\) on the same 24 videos: 24 right in base only, "
            r"0 in head only, one model a side, p < 0\.0001; drop 0\.5pt is allowed",
            "1 worse; 3 not gated",
            id="a lower accuracy",
        ),
        pytest.param(
            "noise",
            "20s",
            4,
            r"inconclusive noisy 8x1x32 latency\.p50_ms N .s N .s [-+]N % .*3% is allowed; .*",
            "1 inconclusive; 3 not gated",
            id="noise",
        ),
    ],
)
def test_a_planted_change_of_measured_values_is_read_word_for_word(
    repository: Path, suite: str, budget: str, code: int, words: str, last: str
) -> None:
    """In `words`, N is a measured number."""
    found, printed = vbench("ab", "HEAD~1", "HEAD", f"{suite}.yaml", "--budget", budget, "--out", "out")
    assert found == code, printed
    assert re.search(words.replace("N", r"[\d.]+"), as_one_line(printed)), printed
    assert printed[-1] == last
    if suite == "speed":
        assert printed[printed.index("Failed:") + 1] == (
            "  broken 8x1x32 in head: the run ended as error: RuntimeError: planted"
        )
    if suite == "noise":
        [said] = [line for line in printed if line.startswith("  the time budget ended")]
        assert re.fullmatch(r"  the time budget ended before all cases were decided(; try --budget .*)?", said)
