"""The index: every file once, again only when it changed, and whole after a kill."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import DatasetError, VideoError
from bench.data import probing
from bench.data.collection import Video, VideoSet, open_dataset, video_set
from bench.data.facts import VideoFacts, evenly
from bench.data.index import IndexSummary, index_folder, read_facts, videos_under
from bench.data.leakage import find_leaks, guard_leakage
from bench.data.parallel import Progress, for_each_task
from bench.data.prepare import prepare_frames
from bench.data.probing import probe
from bench.data.verify import verify_videos

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_video: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sound videos, a cut one and a text under `train`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "root"
    for name in ("a/x.mp4", "b/y.mp4"):
        (root / "train" / name).parent.mkdir(parents=True)
        write_video(root / "train" / name, frames=6, size=(16, 16), seed=len(name))
    (root / "train/a/text.mp4").write_bytes(b"no video")
    return root


def test_facts_survive_json_and_take_little_room(tmp_path: Path, write_video: Write) -> None:
    facts = probe(write_video(tmp_path / "x.mp4", frames=30, options={"g": "10"}))
    assert isinstance(facts.pts, range)
    text = json.dumps(facts.to_json())
    assert len(text) < 800
    assert VideoFacts.from_json(json.loads(text)) == facts
    uneven = replace(facts, pts=evenly([0, 5, 6]))
    assert VideoFacts.from_json(json.loads(json.dumps(uneven.to_json()))) == uneven


def test_an_index_holds_the_facts_of_every_file(folder: Path) -> None:
    told: list[Progress] = []
    summary = index_folder(folder, on_progress=told.append)
    assert (summary.files, summary.probed, summary.verdicts) == (3, 3, {"ok": 2, "unreadable": 1})
    assert [failed.what for failed in summary.failed] == ["train/a/text.mp4"]
    assert [(progress.done, progress.total) for progress in told] == [(1, 3), (2, 3), (3, 3)]
    path = folder / "train/a/x.mp4"
    assert read_facts(folder, [path]) == {path: probe(path)}
    assert read_facts(folder / "train", [path]) == {path: probe(path)}


def test_a_second_run_decodes_only_what_is_new_or_changed(folder: Path) -> None:
    index_folder(folder)
    assert index_folder(folder).probed == 0
    shutil.copy(folder / "train/a/x.mp4", folder / "train/b/new.mp4")
    os.utime(folder / "train/b/y.mp4", ns=(1, 1))
    summary = index_folder(folder)
    assert (summary.probed, summary.files) == (2, 4)
    assert index_folder(folder, again=True).probed == 4


def test_facts_of_a_changed_file_are_not_used(folder: Path) -> None:
    index_folder(folder)
    path = folder / "train/a/x.mp4"
    path.write_bytes(path.read_bytes() + b"\0")
    assert read_facts(folder, [path]) == {}


def test_indexes_of_folders_inside_and_elsewhere_are_found(folder: Path, tmp_path: Path) -> None:
    inside, plain = folder / "train/a/x.mp4", folder / "train/b/y.mp4"
    elsewhere = tmp_path / "elsewhere" / "deep" / "z.mp4"
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(inside, elsewhere)
    assert index_folder(folder / "train/a").files == 2
    index_folder(tmp_path / "elsewhere")
    assert set(read_facts(folder, [inside, plain, elsewhere])) == {inside, elsewhere}
    videos = open_dataset("folder", root=folder, split="train")
    assert {video.id for video in videos.videos if video.facts} == {"a/x", "a/text"}


def test_an_outer_index_fills_gaps_of_an_inner_one(folder: Path) -> None:
    path = folder / "train/a/x.mp4"
    index_folder(folder / "train/a")
    path.write_bytes(path.read_bytes() + b"\0")
    assert read_facts(folder, [path]) == {}
    index_folder(folder)
    assert read_facts(folder, [path]) == {path: probe(path)}


def test_a_torn_last_line_costs_one_file(folder: Path) -> None:
    index = index_folder(folder).path
    index.write_bytes(index.read_bytes()[:-40])
    summary = index_folder(folder)
    assert (summary.probed, summary.verdicts) == (1, {"ok": 2, "unreadable": 1})
    assert len(read_facts(folder, list((folder / "train").rglob("*.mp4")))) == 3


def test_a_folder_that_cannot_be_written_is_indexed_in_the_cache(folder: Path, tmp_path: Path) -> None:
    (folder / ".vbench").write_bytes(b"in the way of the index's folder")
    summary = index_folder(folder)
    assert summary.path.is_relative_to(tmp_path / "cache")
    assert len(read_facts(folder, [folder / "train/a/x.mp4"])) == 1


def test_frame_folders_count_as_videos_and_hidden_things_do_not(tmp_path: Path) -> None:
    for name in ("c/v/image_00001.jpg", "c/.hidden/x.mp4", "c/notes.txt", "c/w.MP4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert sorted(videos_under(tmp_path)) == ["c/v", "c/w.MP4"]


def test_folders_of_flow_are_no_videos(tmp_path: Path) -> None:
    names = ["flow/c/v/flow_x_00001.jpg", "flow/c/v/flow_y_00001.jpg", "c/v/image_00001.jpg", "c/v/flow_x_00001.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(videos_under(tmp_path)) == ["c/v"]
    assert list(videos_under(tmp_path, without=tmp_path / "c")) == []


def test_a_frame_that_is_written_over_in_place_is_noticed(folder: Path) -> None:
    prepare_frames(folder / "train", folder / "jpg", short_side=16)
    assert index_folder(folder).verdicts == {"ok": 4, "unreadable": 1}
    assert index_folder(folder).probed == 0
    assert len(read_facts(folder, [folder / "jpg/a/x"])) == 1
    frame = folder / "jpg/a/x/image_00003.jpg"
    before = frame.stat()
    frame.write_bytes(b"")
    os.utime(frame, ns=(before.st_atime_ns, before.st_mtime_ns))
    summary = index_folder(folder)
    assert (summary.probed, summary.verdicts) == (1, {"ok": 3, "damaged": 1, "unreadable": 1})
    frame.with_name("image_00004.jpg").write_bytes(frame.with_name("image_00005.jpg").read_bytes())
    assert index_folder(folder).probed == 1


def test_verify_counts_per_class(folder: Path) -> None:
    index_folder(folder)
    videos = open_dataset("folder", root=folder, split="train")
    seen = verify_videos(replace(videos, missing={"b/gone": (1,)}))
    assert (seen.present, seen.missing, seen.unindexed, seen.hash_covers) == (3, ("b/gone",), 0, "content")
    assert [(c.name, c.present, c.missing, c.damaged) for c in seen.classes] == [("a", 2, 0, 1), ("b", 1, 1, 0)]
    assert seen.damaged[0][0] == "a/text"
    assert not seen.is_complete


def _set(split: str, videos: dict[str, str]) -> VideoSet:
    made = [Video(id=id_, path=Path(split, id_), labels=(0,), sha256=sha) for id_, sha in videos.items()]
    return video_set("ucf101", split, classes=["a"], videos=made, root=None)


def test_groups_and_equal_files_on_both_sides_are_an_error_unless_allowed_by_name() -> None:
    train = _set("train", {"v_Archery_g01_c01": "11", "v_Archery_g02_c01": "22", "other": "33"})
    test = _set("test", {"v_Archery_g01_c07": "44", "v_Biking_g02_c01": "55", "again": "33"})
    assert {leak.shared for leak in find_leaks(train, test)} == {"group v_Archery_g01", "file 33"}
    with pytest.raises(DatasetError, match="2 videos of test share material with train; the first: v_Archery_g01_c07"):
        guard_leakage(train, test)
    with pytest.raises(DatasetError, match="1 videos"):
        guard_leakage(train, test, allowed=["again"])
    assert len(guard_leakage(train, test, allowed=["group v_Archery_g01", "file 33"])) == 2


def test_empty_files_on_both_sides_are_no_leak(tmp_path: Path) -> None:
    """They have one hash, and nothing that could be learned."""
    for name in ("train/a/x.mp4", "val/a/y.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    index_folder(tmp_path)
    train, val = (open_dataset("folder", root=tmp_path, split=split) for split in ("train", "val"))
    assert train.videos[0].sha256 == val.videos[0].sha256 != ""
    assert find_leaks(train, val) == ()


def test_one_file_on_both_sides_is_an_error_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    film, other = tmp_path / "films" / "x.mp4", tmp_path / "films" / "y.mp4"
    film.write_bytes(b"one")
    other.write_bytes(b"two")
    (tmp_path / "links").symlink_to(tmp_path / "films")
    (tmp_path / "link.mp4").symlink_to(film)

    def videos(split: str, path: Path, **known: Any) -> VideoSet:
        made = Video(id=f"{split} {path.name}", path=path, labels=(0,), **known)
        return video_set("s", split, classes=["a"], videos=[made], root=None)

    train = videos("train", film, start_s=0.0, end_s=1.0)
    for path in (film, tmp_path / "links" / "x.mp4", tmp_path / "link.mp4", tmp_path / "films/../films/x.mp4"):
        test = videos("test", path, start_s=5.0, end_s=6.0)
        assert [leak.shared for leak in find_leaks(train, test)] == [f"path {film.resolve()}"]
        assert guard_leakage(train, test, allowed=[f"path {film.resolve()}"])
        with pytest.raises(DatasetError, match="1 videos of test share material"):
            guard_leakage(train, test)
    assert find_leaks(train, videos("test", other)) == ()
    sharded = [videos("x", tmp_path / "s.tar" / name, sha256=name) for name in ("x.mp4", "y.mp4")]
    assert find_leaks(*sharded) == ()


def test_parts_of_equal_files_share_them_and_one_name_allows_a_pair() -> None:
    def part(split: str, number: int, path: str) -> VideoSet:
        made = Video(
            id=f"{split}#{number}", path=Path(path), labels=(0,), start_s=number, end_s=number + 1, sha256="aa"
        )
        return video_set("activitynet", split, classes=["a"], videos=[made], root=None)

    assert [leak.shared for leak in find_leaks(part("train", 0, "a"), part("val", 7, "b"))] == ["file aa"]
    both = find_leaks(part("train", 0, "a"), part("val", 7, "a"))
    assert [leak.shared.split()[0] for leak in both] == ["file", "path"]
    assert guard_leakage(part("train", 0, "a"), part("val", 7, "a"), allowed=["file aa"]) == both


def test_nothing_is_not_complete(folder: Path) -> None:
    index_folder(folder)
    (folder / "train/a/text.mp4").unlink()
    videos = open_dataset("folder", root=folder, split="train")
    assert verify_videos(videos).is_complete
    assert not verify_videos(replace(videos, videos=())).is_complete


def test_ids_that_occur_twice_in_a_set_are_an_error() -> None:
    with pytest.raises(DatasetError, match="ids occur twice, the first is 'a'"):
        video_set("x", "train", classes=["c"], videos=[Video(id="a", path=Path(__file__))] * 2, root=None)


def _double(number: int) -> int:
    if number == 3:
        raise VideoError("three is refused")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_indexing_continues_after_errors() -> None:
    outcomes = {each.task: each for each in for_each_task([1, 2, 3, 4], _double, total=4)}
    assert [outcomes[n].result for n in (1, 2, 4)] == [2, 4, 8]
    assert str(outcomes[3].error) == "three is refused"


@pytest.mark.slow
def test_indexing_continues_after_a_dead_process() -> None:
    outcomes = {each.task: each for each in for_each_task(range(12), partial(_double), total=12, workers=2)}
    assert sorted(outcomes) == list(range(12))
    assert "died" in str(outcomes[5].error)
    assert all(outcomes[n].result == 2 * n for n in range(12) if n not in (3, 5))


@pytest.mark.slow
def test_processes_find_the_same_facts(folder: Path) -> None:
    alone: IndexSummary = index_folder(folder)
    together = index_folder(folder, again=True, workers=2)
    assert (alone.verdicts, alone.files) == (together.verdicts, together.files)


def test_a_file_that_grows_while_it_is_looked_at_is_looked_at_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded was not the file that is there at the end, whose stamp must not stand for it."""
    path, real = next(folder.rglob("*.mp4")), probing.probe

    def growing(each: Path) -> VideoFacts:
        facts = real(each)
        if each == path and path.stat().st_size < 1_000_000:
            path.write_bytes(path.read_bytes() + bytes(1_000_000))
        return facts

    monkeypatch.setattr(probing, "probe", growing)
    index_folder(folder)
    assert index_folder(folder).probed == 1
    assert index_folder(folder).probed == 0
