"""What tests of data sets share: a real clip, and trees of files around it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, write_video: Write) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=10, size=(16, 16))


@pytest.fixture(autouse=True)
def quiet_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VBENCH_DATA", raising=False)


@pytest.fixture
def tree(tmp_path: Path, clip: Path) -> Callable[[dict[str, str | bytes | None]], Path]:
    """Writes files of text under a root; None stands for a real clip, a name that ends in / for a frame folder."""

    def write(files: dict[str, str | bytes | None]) -> Path:
        root = tmp_path / "root"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
                (path / "image_00001.jpg").write_bytes(b"")
            elif content is None:
                shutil.copy(clip, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write
