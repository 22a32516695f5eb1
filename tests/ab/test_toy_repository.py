"""A real git repository whose last commit holds planted changes, and what `vbench ab` and `compare` print of it."""

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
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


@register_model("deep", clip="8x1x32")
def deep(num_classes: int = 5) -> Net:
    """Gets a layer."""
    return Net(num_classes, layers=LAYERS)


@register_model("wide", clip="8x1x32")
def wide(num_classes: int = 5) -> Net:
    """Gets a wider head."""
    return Net(num_classes, hidden=HIDDEN)


@register_model("NAME", clip="8x1x32")
def named(num_classes: int = 5) -> Net:
    """Gets another name."""
    return Net(num_classes, layers=3)
'''
SUITE = """\
suite: nets
plugins: [nets]
models: [deep, wide, {name}]
measure: {{params: {{}}, macs: {{}}}}
"""


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def vbench(*arguments: object) -> tuple[int, list[str]]:
    """The exit code and the lines printed by a process of its own, because the plug-in changes between two calls."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines() or done.stderr.splitlines()


@pytest.mark.slow
def test_planted_changes_of_a_real_commit_are_read_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a convolution of 8 x 8 x 27 weights and 8 biases over 8 x 32 x 32 places; 8 more hidden units."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    git(folder, "init", "-q", "-b", "main")
    for layers, hidden, name in ((1, 8, "first"), (2, 16, "second")):
        plugin = PLUGIN.replace("LAYERS", str(layers)).replace("HIDDEN", str(hidden)).replace("NAME", name)
        (folder / "nets.py").write_text(plugin)
        (folder / "nets.yaml").write_text(SUITE.format(name=name))
        if name == "first":
            code, printed = vbench("run", "nets.yaml", "--out", tmp_path / "base", "--quiet")
            assert code == 0, printed
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", name)
    lines = (folder / "nets.py").read_text().splitlines()
    places = {each: 1 + lines.index(f'@register_model("{each}", clip="8x1x32")') for each in ("deep", "wide")}
    layer = f"deep: layers.2 added: +14.16 MMACs, +1.736 k parameters (nets.py:{places['deep']})"
    more = "hidden changed: +64 MACs, +72 parameters; fc changed: +40 MACs, +40 parameters"
    units = f"wide: {more} (nets.py:{places['wide']})"

    # Each commit with its own suite, which has the new name of the model only: a rename is recognised by its layers.
    assert vbench("run", "nets.yaml", "--out", tmp_path / "head", "--quiet")[0] == 0
    code, printed = vbench("compare", tmp_path / "base", tmp_path / "head")
    assert code == 3
    assert f"worse: {layer}" in printed
    assert f"worse: {units}" in printed
    assert "  first 8x1x32: base has results and head has none for this case" in printed
    assert "  second 8x1x32: is not in base" in printed
    rename = (
        "  first is gone and second is new, with the same layers and counts: if it was renamed, add "
        "`renamed: {second: first}` to the suite, which compares them and keeps the history"
    )
    assert rename in printed

    # Both commits with one suite, which says that the model was renamed.
    (folder / "nets.yaml").write_text(SUITE.format(name="second") + "renamed: {second: first}\n")
    code, printed = vbench("ab", "HEAD~1", "HEAD", "nets.yaml", "--counts", "--out", tmp_path / "ab")
    assert code == 1, printed
    assert f"worse: {layer}" in printed
    assert f"worse: {units}" in printed
    assert printed[-1] == "8 worse, 10 same", "four of the six metrics of two models; the renamed one is the same"
