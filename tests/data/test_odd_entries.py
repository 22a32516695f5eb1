"""What is odd in a folder costs its own line, never the index or the data set."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import main
from bench.core.errors import DatasetError, VideoError
from bench.data import media
from bench.data.collection import Video, open_dataset, video_set
from bench.data.decode import read_frames
from bench.data.index import index_folder, read_facts, videos_under
from bench.data.media import Media, UnreadMediaWarning
from bench.data.probing import probe

Write = Callable[..., Path]
LATIN = os.fsdecode(b"caf\xe9.mp4")
KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def root(tmp_path: Path, write_video: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one sound video `train/c/sound.mp4`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "root"
    (folder / "train/c").mkdir(parents=True)
    write_video(folder / "train/c/sound.mp4", frames=4, size=(16, 16))
    return folder


def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the permission to list `folder`, from root too."""
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(media.os, "scandir", guarded)


def verdicts(root: Path) -> dict[str, str]:
    lines = map(json.loads, index_folder(root).path.read_text().splitlines())
    return {line["path"].removeprefix("train/c/"): line["facts"]["verdict"] for line in lines}


def test_links_into_nothing_and_pipes_are_missing_and_the_rest_is_indexed(root: Path) -> None:
    (root / "train/c/link.mp4").symlink_to("nowhere.mp4")
    (root / "train/c/self.mp4").symlink_to("self.mp4")
    os.mkfifo(root / "train/c/pipe.mp4")
    expected = {"link.mp4": "missing", "self.mp4": "missing", "pipe.mp4": "missing", "sound.mp4": "ok"}
    assert verdicts(root) == expected
    assert index_folder(root).probed == 0
    assert Media([root / "train"]).names() == ["c/sound"]
    (root / "train/c/link.mp4").unlink()
    shutil.copy(root / "train/c/sound.mp4", root / "train/c/link.mp4")
    assert (index_folder(root).probed, verdicts(root)["link.mp4"]) == (1, "ok")


def test_links_back_to_a_folder_above_are_left_out(root: Path) -> None:
    for name, target in {"train/c/here": ".", "train/up": "..", "train/c/top": "../.."}.items():
        (root / name).symlink_to(target)
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "a/to_b").symlink_to("../b")
    (root / "b/to_a").symlink_to("../a")
    assert list(videos_under(root)) == ["train/c/sound.mp4"]
    assert open_dataset("folder", root=root, split="train").classes == ("c",)


def test_links_to_folders_elsewhere_are_followed(root: Path) -> None:
    (root / "train/d").symlink_to("c")
    assert sorted(videos_under(root)) == ["train/c/sound.mp4", "train/d/sound.mp4"]
    assert sorted(Media([root / "train"]).names()) == ["c/sound", "d/sound"]


def test_an_unreadable_folder_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train.csv").write_text(KINETICS + "c,sound,0,1,train\nlost,hidden,0,1,train\n")
    (root / "train/lost").mkdir()
    refuse(root / "train/lost", monkeypatch)
    assert list(videos_under(root)) == ["train/lost", "train/c/sound.mp4"]
    summary = index_folder(root)
    assert (summary.files, summary.verdicts) == (2, {"ok": 1, "unreadable": 1})
    with pytest.warns(UnreadMediaWarning, match="lost: cannot be read: Permission denied; videos there count as miss"):
        videos = open_dataset("kinetics", root=root, split="train")
    assert (len(videos), list(videos.missing)) == (1, ["hidden_000000_000001"])
    with pytest.raises(DatasetError, match="lost: cannot be read: Permission denied"):
        open_dataset("folder", root=root, split="train")
    refuse(root, monkeypatch)
    with pytest.raises(DatasetError, match="root: cannot be read"):
        index_folder(root)


def test_a_broken_shard_is_one_line(root: Path) -> None:
    (root / "train.csv").write_text(KINETICS + "c,sound,0,1,train\nlost,hidden,0,1,train\n")
    (root / "train/bad.tar").write_bytes(b"no tar" * 200)
    with tarfile.open(root / "train/good.tar", "w") as shard:
        shard.add(root / "train/c/sound.mp4", "c/other.mp4")
    summary = index_folder(root)
    assert (summary.files, summary.verdicts) == (3, {"ok": 2, "unreadable": 1})
    assert summary.failed[0].what == "train/bad.tar"
    assert "bad.tar: is not a whole tar file" in summary.failed[0].reason
    with pytest.warns(UnreadMediaWarning, match="not a whole tar file"):
        assert len(open_dataset("kinetics", root=root, split="train")) == 1
    inside = root / "train/bad.tar/x.mp4"
    assert probe(inside).verdict == "missing"
    with pytest.raises(VideoError, match="not a whole tar file"):
        read_frames(inside, [0])
    with pytest.raises(VideoError, match="no such file"):
        read_frames("/dev/null/x.mp4", [0])


def test_names_that_are_no_text_are_indexed_hashed_and_printed(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (root / "train/c/sound.mp4").rename(root / "train/c" / LATIN)
    (root / "train/c" / LATIN.replace("caf", "no")).write_bytes(b"no video")
    assert index_folder(root).verdicts == {"ok": 1, "unreadable": 1}
    assert read_facts(root, [path])[path].is_ok
    videos = open_dataset("folder", root=root, split="train")
    assert [video.id for video in videos.videos] == ["c/caf\\xe9", "c/no\\xe9"]
    assert (videos.videos[0].path, len(videos.hash)) == (path, 16)
    monkeypatch.setattr("sys.argv", ["vbench", "data", "index", str(root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "no" in capsys.readouterr().out


def test_sets_of_half_characters_have_a_hash_and_annotations_of_them_are_refused(root: Path) -> None:
    video = Video(id="\ud800", path=root / "train/c/sound.mp4", labels=(0,))
    assert len(video_set("x", "train", classes=["\udfff"], videos=[video], root=None).hash) == 16
    entry = '"x": {"subset": "training", "annotations": {}}'
    (root / "kinetics.json").write_text(f'{{"labels": ["\\ud83d\\ude00", "a\\\\ud800"],\n "database": {{{entry}}}}}')
    assert open_dataset("kinetics", root=root, split="train").classes == ("😀", "a\\ud800")
    (root / "kinetics.json").write_text('{"labels": ["a",\n "b\\uD800"], "database": {}}')
    with pytest.raises(DatasetError, match=r"kinetics\.json:2: \\ud800 is half of a surrogate pair"):
        open_dataset("kinetics", root=root, split="train")
