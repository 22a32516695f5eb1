"""Lists of videos: every format that docs/data-lists.md promises, and the line of what does not fit."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import DatasetError, InputError
from bench.data.annotations import Labels
from bench.data.collection import AnnotationWarning, VideoSet, open_dataset
from bench.data.list_file import COLUMNS
from bench.data.verify import verify_videos

Write = Callable[..., Path]


def labels_of(videos: VideoSet) -> dict[str, tuple[str, ...]]:
    return {video.id: tuple(videos.classes[label] for label in video.labels) for video in videos.videos}


# Each list names a.mp4 (run) and b.mp4 (jump).
NAMES = {
    "comma": "a.mp4,run\nb.mp4,jump\n",
    "comma and space": "a.mp4, run\nb.mp4, jump\n",
    "semicolon": "a.mp4;run\nb.mp4;jump\n",
    "tab": "a.mp4\trun\nb.mp4\tjump\n",
    "space": "a.mp4 run\nb.mp4 jump\n",
    "several spaces": "a.mp4   run\nb.mp4   jump\n",
    "quoted": '"a.mp4","run"\n"b.mp4","jump"\n',
    "some quoted": '"a.mp4",run\nb.mp4,"jump"\n',
    "quoted by spaces": '"a.mp4" run\n"b.mp4" jump\n',
    "header": "path,label\na.mp4,run\nb.mp4,jump\n",
    "video_path,class": "video_path,class\na.mp4,run\nb.mp4,jump\n",
    "quoted header": '"video_path","class"\n"a.mp4","run"\n"b.mp4","jump"\n',
    "header in capitals": "Video Path;Label\na.mp4;run\nb.mp4;jump\n",
    "header in the other order": "label,filename\nrun,a.mp4\njump,b.mp4\n",
    "header of pandas with its index": ",path,label\n0,a.mp4,run\n1,b.mp4,jump\n",
    "header among other columns": "id,label,duration,path\n7,run,3.5,a.mp4\n8,jump,2.0,b.mp4\n",
    "header by tabs": "file_name\taction\na.mp4\trun\nb.mp4\tjump\n",
    "header of pandas by tabs": "\tpath\tlabel\n0\ta.mp4\trun\n1\tb.mp4\tjump\n",
    "header by spaces": "video label\na.mp4 run\nb.mp4 jump\n",
    "header behind a #": "# path,label\na.mp4,run\nb.mp4,jump\n",
    "comment": "# made by hand\na.mp4,run\nb.mp4,jump\n",
    "sep= of Excel": "sep=;\r\npath;label\r\na.mp4;run\r\nb.mp4;jump\r\n",
    "byte-order mark": "\ufeffpath,label\r\na.mp4,run\r\n\r\nb.mp4,jump\r\n",
    "split column": "path,label,split\na.mp4,run,train\nb.mp4,jump,training\nc.mp4,jump,val\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_paths_and_names_are_read_from_every_format(name: str, tree: Write) -> None:
    root = tree({"train.csv": NAMES[name], "a.mp4": None, "b.mp4": None})
    train = open_dataset("csv", root=root, split="train")
    assert train.classes == ("jump", "run")
    assert labels_of(train) == {"a.mp4": ("run",), "b.mp4": ("jump",)}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_formats_hold_in_folders_with_spaces_and_names_of_several_words(name: str, tree: Write) -> None:
    if "space" in name:
        pytest.skip("names of several words need another separator than spaces")
    text = NAMES[name].replace("a.mp4", "my clips/a 1.mp4").replace("run", "playing guitar")
    root = tree({"train.csv": text, "my clips/a 1.mp4": None, "b.mp4": None})
    assert labels_of(open_dataset("csv", root=root, split="train")) == {
        "my clips/a 1.mp4": ("playing guitar",), "b.mp4": ("jump",),
    }  # fmt: skip


NUMBERS = {
    "space": "a/x y.mp4 2\nb.mkv 0\nc.mp4 1\n",
    "comma": "a/x y.mp4,2\nb.mkv,0\nc.mp4,1\n",
    "quoted": '"a/x y.mp4","2"\n"b.mkv","0"\n"c.mp4","1"\n',
    "floats of pandas": "path,label\na/x y.mp4,2.0\nb.mkv,0.0\nc.mp4,1.0\n",
    "tab": "a/x y.mp4\t2\nb.mkv\t0\nc.mp4\t1\n",
}


@pytest.mark.parametrize("name", NUMBERS)
def test_paths_and_numbers_are_read_from_every_format(name: str, tree: Write) -> None:
    root = tree({"train.csv": NUMBERS[name], "a/x y.mp4": None, "b.mkv": None, "c.mp4": None})
    train = open_dataset("csv", root=root, split="train")
    assert train.classes == ("0", "1", "2")
    assert {video.id: video.labels for video in train.videos} == {"a/x y.mp4": (2,), "b.mkv": (0,), "c.mp4": (1,)}


def test_a_path_with_a_comma_is_read_if_quoted_or_separated_by_spaces(tree: Write) -> None:
    root = tree({"my, clip.mp4": None, "b.mp4": None, "train.csv": '"my, clip.mp4",0\nb.mp4,1\n'})
    right = {"my, clip.mp4": ("0",), "b.mp4": ("1",)}
    assert labels_of(open_dataset("csv", root=root, split="train")) == right
    tree({"train.csv": "my, clip.mp4 0\nb.mp4 1\n"})
    assert labels_of(open_dataset("csv", root=root, split="train")) == right
    tree({"train.csv": "my, clip.mp4,0\nb.mp4,1\n"})
    with pytest.raises(DatasetError, match=r"train.csv:1: "):
        open_dataset("csv", root=root, split="train")


@pytest.mark.parametrize("text", ["a.mp4 0 12\nb.mp4 1\n", "a.mp4,0,12\nb.mp4,1\n", 'a.mp4,"0,12"\nb.mp4,1\n',
                                  "path,label\na.mp4,0 12\nb.mp4,1\n", "a.mp4;0|12\nb.mp4;1\n"])  # fmt: skip
def test_several_labels_need_multi_label(text: str, tree: Write) -> None:
    root = tree({"train.csv": text, "a.mp4": None, "b.mp4": None})
    with pytest.raises(DatasetError, match=r"train.csv:\d: 2 labels, 0, 12.*multi_label"):
        open_dataset("csv", root=root, split="train")
    train = open_dataset("csv", root=root, split="train", multi_label=True)
    assert {video.id: video.labels for video in train.videos} == {"a.mp4": (0, 12), "b.mp4": (1,)}


def test_labels_that_count_from_one_are_warned_of_and_can_be_declared(tree: Write) -> None:
    root = tree({"train.csv": "a.mp4 1\nb.mp4 2\n", "a.mp4": None, "b.mp4": None})
    with pytest.warns(AnnotationWarning, match="no video of the training list has label 0.*first_label"):
        counted = open_dataset("csv", root=root, split="train")
    assert counted.classes == ("0", "1", "2")
    assert any("label 0" in note for note in verify_videos(counted).notes)
    train = open_dataset("csv", root=root, split="train", first_label=1)
    assert (train.classes, [video.labels for video in train.videos]) == (("1", "2"), [(0,), (1,)])
    tree({"classes.txt": "run\njump\n"})
    with pytest.raises(DatasetError, match=r"train.csv:2: label 2 is not from 0 to 1; .*first_label to 1"):
        open_dataset("csv", root=root, split="train")
    assert labels_of(open_dataset("csv", root=root, split="train", first_label=1)) == {
        "a.mp4": ("run",), "b.mp4": ("jump",),
    }  # fmt: skip
    with pytest.raises(InputError, match="first_label is 2; allowed: 0, 1"):
        open_dataset("csv", root=root, split="train", first_label=2)


REFUSED = {
    "columns of Kinetics": (
        "label,youtube_id,time_start,time_end,split\nrun,aaaaaaaaaaa,0,10,train\n",
        r":1: .*Kinetics",
    ),
    "unknown header": ("fichier,classe\na.mp4,run\nb.mp4,jump\n", r":1: looks like a header.*'fichier', 'classe'"),
    "a row per frame": ("original_vido_id video_id frame_id path labels\nX 0 0 a.mp4 1\n", r":1: .*frame_id"),
    "unknown split": (
        "path,label,split\na.mp4,0,train\nb.mp4,1,fold2\n",
        r":3: split 'fold2' is unknown; allowed: train",
    ),
    "no row of the split": ("path,label,split\na.mp4,0,val\n", "no row is of split train; found: val"),
    "row of other width": (
        "path,label,split\na.mp4,0,train\nb.mp4,1\n",
        r":3: 2 fields, but the header in line 1 has 3",
    ),
    "other separator later": ("a.mp4,0\nb.mp4 1\n", r":2: expected 'path label'"),
    "fraction": ("a.mp4 0\nb.mp4 1.5\n", r":2: label '1.5' is not a whole number"),
    "no label": ("path,label\na.mp4,0\nb.mp4,\n", r":3: expected 'path label'"),
    "label first": ("0,a.mp4\n1,b.mp4\n", r":1: the path stands second"),
    "open quote": ('a.mp4,"run\nb.mp4,jump\n', r":1: is not CSV: .*stray quote"),
    "twice": ("a.mp4,0\n./a.mp4,1\n", r":2: path 'a.mp4' occurs twice, before in line 1"),
    "header without rows": ("path,label\n", r":1: there is no row below"),
    "mostly missing": ("a.mp4 0\nx.mp4 1\ny.mp4 1\n", r":2: 2 of 3 files are missing, the first is 'x.mp4'"),
    "time": ("path,label,start,end\na.mp4,0,soon,2\n", r":2: time 'soon'"),
    "frames": ("path,label,num_frames\na.mp4,0,many\n", r":2: number of frames 'many'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_line(name: str, tree: Write) -> None:
    text, message = REFUSED[name]
    root = tree({"train.csv": text, "a.mp4": None, "b.mp4": None})
    with pytest.raises(DatasetError, match=message):
        open_dataset("csv", root=root, split="train")


def test_rawframes_of_mmaction2_are_read_as_they_are(tree: Write) -> None:
    root = tree({
        "train.txt": "abseiling/x1 163 0\nzumba party/y 2 97 1\n", "val.txt": "abseiling/z 40 0\n",
        "rawframes_train/abseiling/x1/": None, "rawframes_train/zumba party/y 2/": None,
        "rawframes_val/abseiling/z/": None,
    })  # fmt: skip
    train = open_dataset("csv", root=root, split="train")
    assert [(v.id, v.labels, v.frames) for v in train.videos] == [
        ("abseiling/x1", (0,), 163), ("zumba party/y 2", (1,), 97),
    ]  # fmt: skip
    assert [v.path for v in open_dataset("csv", root=root, split="val").videos] == [root / "rawframes_val/abseiling/z"]


def test_lists_of_pyslowfast_with_absolute_paths_on_several_disks_are_read(tree: Write, tmp_path: Path) -> None:
    root = tree({"disk1/a.mp4": None, "disk2/b.mp4": None})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.csv").write_text(f"{root}/disk1/a.mp4 0\n{root}/disk2/b.mp4 1\n")
    train = open_dataset("csv", root=tmp_path / "lists", split="train")
    assert [(v.path, v.labels) for v in train.videos] == [(root / "disk1/a.mp4", (0,)), (root / "disk2/b.mp4", (1,))]


def test_columns_of_times_make_parts_of_videos(tree: Write) -> None:
    root = tree({"train.csv": "path,label,start,end\na.mp4,run,0,0.5\na.mp4,jump,0.5,1\n", "a.mp4": None})
    assert [(v.id, v.start_s, v.end_s) for v in open_dataset("csv", root=root, split="train").videos] == [
        ("a.mp4#0-0.5", 0.0, 0.5), ("a.mp4#0.5-1", 0.5, 1.0),
    ]  # fmt: skip


def test_how_a_list_was_read_is_in_the_notes(tree: Write) -> None:
    root = tree({"train.csv": "video_path;class\na.mp4;run\nb.mp4;jump\n", "a.mp4": None, "b.mp4": None})
    (note,) = verify_videos(open_dataset("csv", root=root, split="train")).notes
    assert note == (
        "train.csv: separated by semicolon, header in line 1 (path: video_path, label: class), "
        "labels are names, 2 classes"
    )


PAGE = (Path(__file__).parents[3] / "docs/data-lists.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```text\n(.*?)```\n\n> (.*?)\n", PAGE, re.DOTALL)


@pytest.mark.parametrize(("text", "note"), EXAMPLES)
def test_the_examples_of_the_page_are_read_as_it_says(text: str, note: str, tree: Write) -> None:
    files = dict.fromkeys(re.findall(r"[\w /,]+\.mp4", text)) | dict.fromkeys(
        re.findall(r"\w+/video\d(?= )", text + " ")
    )
    root = tree({"train.csv": text} | {f"{name}/" if "/video" in name else name: None for name in files})
    train = open_dataset("csv", root=root, split="train")
    assert train.notes == (f"train.csv: {note}",)
    assert not train.missing
    assert set(train.classes) == {label for labels in labels_of(train).values() for label in labels}


def test_the_page_names_every_column_that_is_read() -> None:
    assert len(EXAMPLES) == 6
    for role, names in COLUMNS.items():
        (row,) = re.findall(rf"^\| {role} \| (.*) \|$", PAGE, re.MULTILINE)
        assert tuple(re.findall(r"`(\w+)`", row)) == names


def test_split_in_the_name_of_a_list_stands_for_the_split(tree: Write) -> None:
    root = tree({"my_train.csv": "a.mp4 cat\nb.mp4 dog\n", "my_val.csv": "c.mp4 dog\n", **dict.fromkeys(
        ("a.mp4", "b.mp4", "c.mp4"))})  # fmt: skip
    val, train = (open_dataset("csv", root=root, split=s, annotations="my_{split}.csv") for s in ("val", "train"))
    assert val.classes == train.classes == ("cat", "dog")
    assert [video.labels for video in val.videos] == [(1,)]


def test_csv_takes_names_several_labels_and_absolute_paths_inside(tree: Write) -> None:
    root = tree({"classes.txt": "run\nhop\n", "a.mp4": None, "val.txt": "a.mp4 hop\n"})
    (root / "train.txt").write_text(f"{root.absolute()}/a.mp4 0 1\n")
    assert labels_of(open_dataset("csv", root=root, split="val")) == {"a.mp4": ("hop",)}
    train = open_dataset("csv", root=root, split="train", multi_label=True)
    assert labels_of(train) == {"a.mp4": ("run", "hop")}


def test_names_in_a_list_of_any_other_name_need_their_numbers(tree: Write) -> None:
    root = tree({"tr.txt": "a.mp4 cat\nb.mp4 dog\nc.mp4 eel\n", "va.txt": "a.mp4 cat\nc.mp4 eel\n", "a.mp4": None})
    for split, name in (("train", "tr.txt"), ("val", "va.txt")):
        with pytest.raises(DatasetError, match=rf"{name}: its labels are names.*classes.txt"):
            open_dataset("csv", root=root, split=split, annotations=name)
    tree({"classes.txt": "cat\ndog\neel\n"})
    assert open_dataset("csv", root=root, split="val", annotations="va.txt").missing == {"c.mp4": (2,)}
    with pytest.raises(DatasetError, match="class 'b' has two numbers, the first is 1"):
        Labels(["a", "b", "b"])
