"""Folders, lists and data sets are opened as a user means them; what comes without splits is divided once."""

import csv
from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.core.errors import BenchError
from bench.data.collection import open_dataset
from bench.drafting.found_videos import FoundVideos, find_videos, write_list


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def in_classes(folder: Path, *, videos: int = 6, prefix: str = "") -> Path:
    return touch(folder, *(f"{prefix}{label}/{n}.mp4" for label in ("jump", "run") for n in range(videos)))


def rows(file: Path, lines: Iterable[str]) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


def opened_again(found: FoundVideos, list_file: Path) -> set[str]:
    """The ids of the videos of both splits, opened as the suite will open them."""
    if found.new_list:
        write_list(list_file, found.new_list)
    both = [open_dataset(found.dataset, root=found.root, split=split, **found.options) for split in found.counts]
    assert [len(each) for each in both] == list(found.counts.values())
    return {video.id for each in both for video in each.videos}


@pytest.fixture
def list_file(tmp_path: Path) -> Path:
    return tmp_path / "mine.videos.csv"


def test_folders_of_splits_with_class_folders_need_no_list(tmp_path: Path, list_file: Path) -> None:
    data = in_classes(in_classes(tmp_path / "data", prefix="train/"), videos=2, prefix="val/")
    found = find_videos(str(data), list_file=list_file)
    assert (found.dataset, found.classes, found.counts) == ("folder", ("jump", "run"), {"train": 12, "val": 4})
    assert found.root == data
    assert not found.new_list
    assert found.split is None


def test_a_test_split_is_evaluated_if_there_is_no_other(tmp_path: Path, list_file: Path) -> None:
    data = in_classes(in_classes(tmp_path / "data", prefix="train/"), videos=2, prefix="test/")
    assert find_videos(str(data), list_file=list_file).split == "test"


def test_class_folders_without_splits_are_divided_by_class(tmp_path: Path, list_file: Path) -> None:
    found = find_videos(str(in_classes(tmp_path / "data", videos=10)), list_file=list_file)
    assert (found.dataset, found.counts) == ("csv", {"train": 16, "val": 4})
    assert [label for _, label, split in found.new_list if split == "val"].count("jump") == 2
    assert len(opened_again(found, list_file)) == 20
    assert "several videos were cut from one recording" in found.remarks[0]


def test_the_division_depends_on_the_paths_alone(tmp_path: Path, list_file: Path) -> None:
    first = find_videos(str(in_classes(tmp_path / "a")), list_file=list_file)
    second = find_videos(str(in_classes(tmp_path / "b")), list_file=list_file)
    assert first.new_list == second.new_list


def test_splits_by_other_names_are_kept(tmp_path: Path, list_file: Path) -> None:
    data = in_classes(in_classes(tmp_path / "data", prefix="training/"), videos=2, prefix="Validation/")
    found = find_videos(str(data), list_file=list_file)
    assert found.counts == {"train": 12, "val": 4}
    assert len(opened_again(found, list_file)) == 16
    assert not any("no splits" in remark for remark in found.remarks)


def test_one_list_without_splits_is_divided(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path / "data", *(f"videos/{n}.mp4" for n in range(10)))
    table = rows(data / "all.csv", ["file,action", *(f"{n}.mp4,{('run', 'jump')[n % 2]}" for n in range(10))])
    found = find_videos(str(table), list_file=list_file)
    assert (found.classes, found.counts) == (("jump", "run"), {"train": 8, "val": 2})
    assert len(opened_again(found, list_file)) == 10


def test_a_list_of_absolute_paths_is_divided(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path / "data", *(f"{n}.mp4" for n in range(10)))
    (tmp_path / "lists").mkdir()
    table = rows(tmp_path / "lists" / "all.txt", (f"{data}/{n}.mp4 {n % 2}" for n in range(10)))
    found = find_videos(str(table), list_file=list_file)
    assert found.counts == {"train": 8, "val": 2}
    assert len(opened_again(found, list_file)) == 10


def test_a_training_list_leads_to_its_other_lists(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    for name, numbers in (("my_train.csv", (0, 1)), ("my_val.csv", (2, 3))):
        rows(data / name, (f"{n}.mp4,{n % 2}" for n in numbers))
    found = find_videos(str(data / "my_train.csv"), list_file=list_file)
    assert found.options == {"annotations": "my_{split}.csv"}
    assert found.counts == {"train": 2, "val": 2}


def test_a_column_of_splits_is_used(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    table = rows(
        data / "all.csv", ["path,label,split", *(f"{n}.mp4,{n % 2},{('train', 'test')[n // 2]}" for n in range(4))]
    )
    found = find_videos(str(table), list_file=list_file)
    assert (found.counts, found.split, found.options) == ({"train": 2, "test": 2}, "test", {"annotations": "all.csv"})


def test_labels_that_count_from_one_and_several_labels_are_noticed(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path, *(f"{n}.mp4" for n in range(10)))
    from_one = find_videos(
        str(rows(data / "one.csv", (f"{n}.mp4,{1 + n % 2}" for n in range(10)))), list_file=list_file
    )
    assert (from_one.options["first_label"], len(from_one.classes)) == (1, 2)
    several = rows(data / "several.csv", ["path,labels", *(f'{n}.mp4,"{n % 2},2"' for n in range(10))])
    found = find_videos(str(several), list_file=list_file)
    assert (found.options["multi_label"], len(found.classes)) == (True, 3)
    assert len(opened_again(found, list_file)) == 10


def test_a_published_data_set_is_recognised_by_its_annotation(tmp_path: Path, list_file: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{n} Class{n}\n" for n in range(1, 102)))
    for split in ("train", "test"):
        names = [f"Class{n}/v_Class{n}_g0{split == 'test':d}_c01.avi" for n in range(1, 102)]
        touch(tmp_path / "UCF-101", *names)
        (lists / f"{split}list01.txt").write_text("".join(f"{name} {n}\n" for n, name in enumerate(names, 1)))
    found = find_videos(str(tmp_path), list_file=list_file)
    assert (found.dataset, found.split, found.counts) == ("ucf101", 1, {"train1": 101, "test1": 101})


def test_missing_videos_and_rare_classes_are_remarked(tmp_path: Path, list_file: Path) -> None:
    data = touch(tmp_path, *(f"{n}.mp4" for n in range(9)))
    for split in ("train", "val"):
        rows(data / f"{split}.csv", (f"{n}.mp4,{n % 2}" for n in range(10)))
    found = find_videos(str(data), list_file=list_file)
    assert "1 of 10 videos of split train are missing" in found.remarks
    assert "class '1' has only 4 training videos" in found.remarks
    assert any("sampled videos cannot be read" in remark for remark in found.remarks)  # they are empty files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "there is no video in it"),
        ("flat", "is a video outside any class folder; put the videos into one folder per class, or write a CSV list"),
        ("datb", "datb is neither a folder, a list of videos nor a data set of vbench; did you mean: data?"),
        ("/zzzz", "among them: activitynet, csv"),
        ("ufc101", "did you mean: ucf101?"),
        ("flat/a.mp4", "is a video, not a data set; allowed: a folder of videos, or a list"),
        ("notes.md", "is not a list of videos; allowed: a folder of videos, or a list ending in .csv"),
        ("single", "no class has two videos, so that none can be kept for the evaluation"),
        ("no_val", "the list of split val is missing"),
        ("gone.csv", "2 of 2 files are missing"),
    ],
)
def test_data_that_cannot_be_used_is_one_clear_error(name: str, message: str, tmp_path: Path, list_file: Path) -> None:
    for folder in ("empty", "data"):
        (tmp_path / folder).mkdir()
    touch(tmp_path, "flat/a.mp4", "notes.md", "single/run/a.mp4", "single/jump/b.mp4", "no_val/a.mp4", "no_val/b.mp4")
    rows(tmp_path / "no_val" / "train.csv", ["a.mp4,0", "b.mp4,1"])
    rows(tmp_path / "gone.csv", ["a.mp4,0", "b.mp4,0"])
    with pytest.raises(BenchError) as error:
        find_videos(str(tmp_path / name), list_file=list_file)
    assert message in str(error.value)
    assert not list_file.exists()


def test_a_list_is_written_as_csv_that_can_be_read_again(tmp_path: Path) -> None:
    written = [('a "b", c.mp4', "run, fast", "train"), ("d.mp4", "jump", "val")]
    with write_list(tmp_path / "list.csv", written).open(newline="") as file:
        assert [tuple(row) for row in csv.reader(file)] == [("path", "label", "split"), *written]
