"""Every data set: read from its own annotation, with wrong and hostile lines refused by file and line."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data.annotations import JsonFile, Labels
from bench.data.collection import VideoSet, open_dataset
from bench.data.index import index_folder
from bench.errors import BenchError, DatasetError, UnknownNameError
from bench.registry import DATASETS

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


def labels_of(videos: VideoSet) -> dict[str, tuple[str, ...]]:
    return {video.id: tuple(videos.classes[label] for label in video.labels) for video in videos.videos}


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_reads_its_csv_and_finds_clips_in_class_folders_flat_or_as_frames(tree: Write) -> None:
    root = tree(
        {
            "train.csv": KINETICS + "zumba,abcdefghijk,1,11,train\nair drumming,-bcdefghijk,20,30,train\n"
            "zumba,missingxxxx,0,10,train\nzumba,flatxxxxxxx,0,10,train\nair drumming,framesxxxxx,0,10,train\n",
            "validate.csv": KINETICS + "air drumming,valxxxxxxxx,7,17,val\n",
            "train/zumba/abcdefghijk_000001_000011.mp4": None,
            "train/air_drumming/-bcdefghijk_000020_000030.mkv": None,
            "train/flatxxxxxxx_000000_000010.mp4": None,
            "train/air drumming/framesxxxxx_000000_000010/": None,
            "val/air drumming/valxxxxxxxx.mp4": None,
        }
    )
    train = open_dataset("kinetics700", root=root, split="train")
    assert train.classes == ("air drumming", "zumba")
    assert labels_of(train) == {
        "abcdefghijk_000001_000011": ("zumba",),
        "-bcdefghijk_000020_000030": ("air drumming",),
        "flatxxxxxxx_000000_000010": ("zumba",),
        "framesxxxxx_000000_000010": ("air drumming",),
    }
    assert train.missing == {"missingxxxx_000000_000010": (1,)}
    assert train.counts() == {"annotated": 5, "present": 4, "missing": 1, "damaged": 0}
    val = open_dataset("kinetics", root=root, split="val")
    assert labels_of(val) == {"valxxxxxxxx_000007_000017": ("air drumming",)}
    assert val.classes == train.classes


def test_kinetics_reads_the_json_of_3d_resnets_with_its_order_of_classes(tree: Write) -> None:
    database = {
        "a_000001_000011": {"subset": "training", "annotations": {"label": "zumba", "segment": [1, 301]}},
        "b_000001_000011": {"subset": "validation", "annotations": {"label": "archery", "segment": [1, 251]}},
        "c_000001_000011": {"subset": "testing", "annotations": {"segment": [1, 11]}},
    }
    root = tree(
        {
            "kinetics.json": json.dumps({"labels": ["zumba", "archery"], "database": database}),
            "videos/zumba/a_000001_000011/": None,
            "videos/archery/b_000001_000011/": None,
            "videos/test/c_000001_000011/": None,
        }
    )
    train = open_dataset("kinetics", root=root, split="train")
    assert (train.classes, train.videos[0].frames, train.videos[0].labels) == (("zumba", "archery"), 300, (0,))
    assert labels_of(open_dataset("kinetics", root=root, split="val")) == {"b_000001_000011": ("archery",)}
    assert labels_of(open_dataset("kinetics", root=root, split="test")) == {"c_000001_000011": ()}


def test_ucf101_keeps_its_official_splits(tree: Write) -> None:
    root = tree(
        {
            "ucfTrainTestlist/classInd.txt": "1 ApplyLipstick\r\n2 Archery\r\n",
            "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g08_c01.avi 2\r\n",
            "ucfTrainTestlist/testlist01.txt": "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\n",
            "ucfTrainTestlist/trainlist02.txt": "ApplyLipstick/v_ApplyLipstick_g01_c01.avi 1\n",
            "UCF-101/Archery/v_Archery_g08_c01.avi": None,
            "UCF-101/ApplyLipstick/v_ApplyLipstick_g01_c01.avi": None,
        }
    )
    assert labels_of(open_dataset("ucf101", root=root, split="train1")) == {"v_Archery_g08_c01": ("Archery",)}
    assert labels_of(open_dataset("ucf101", root=root, split="test1")) == {
        "v_ApplyLipstick_g01_c01": ("ApplyLipstick",)
    }
    assert open_dataset("ucf101", root=root, split="train2").videos[0].labels == (0,)
    with pytest.raises(DatasetError, match="list of test2 is missing"):
        open_dataset("ucf101", root=root, split="test2")


def test_hmdb51_takes_ones_for_training_and_twos_for_testing(tree: Write) -> None:
    root = tree(
        {
            "testTrainMulti_7030_splits/wave_test_split1.txt": "a wave !.avi 1 \nb.avi 2 \nc.avi 0 \n",
            "testTrainMulti_7030_splits/brush_hair_test_split1.txt": "d.avi 1\n",
            "hmdb51/wave/a wave !.avi": None,
            "hmdb51/wave/b.avi": None,
            "hmdb51/brush_hair/d.avi": None,
        }
    )
    train = open_dataset("hmdb51", root=root, split="train1")
    assert train.classes == ("brush_hair", "wave")
    assert labels_of(train) == {"a wave !": ("wave",), "d": ("brush_hair",)}
    assert labels_of(open_dataset("hmdb51", root=root, split="test1")) == {"b": ("wave",)}


def test_moments_has_one_label_by_name_or_several_by_number(tree: Write) -> None:
    root = tree(
        {
            "moments_categories.txt": "clapping,0\nboiling,1\n",
            "trainingSet.csv": "boiling/x_1.mp4,boiling,3,0\nclapping/x_1.mp4,clapping,3,1\n",
            "training/boiling/x_1.mp4": None,
            "training/clapping/x_1.mp4": None,
        }
    )
    train = open_dataset("moments", root=root, split="train")
    assert labels_of(train) == {"boiling/x_1": ("boiling",), "clapping/x_1": ("clapping",)}
    assert [video.path.parent.name for video in train.videos] == ["boiling", "clapping"]


def test_multi_moments_has_several_labels(tree: Write) -> None:
    root = tree(
        {
            "moments_categories.txt": "clapping,0\nboiling,1\n",
            "validationSet.csv": "boiling/x.mp4,1,0\nboiling/y.mp4,1\n",
            "videos/boiling/x.mp4": None,
            "videos/boiling/y.mp4": None,
        }
    )
    val = open_dataset("moments", root=root, split="val", multi_label=True)
    assert val.is_multi_label
    assert [video.labels for video in val.videos] == [(0, 1), (1,)]


def test_stair_actions_reads_its_lists(tree: Write) -> None:
    root = tree(
        {
            "data/videolist_train.txt": "eating/a002-0001Y.mp4 2\ndrinking/a001-0001C.mp4 1\n",
            "data/videolist_val.txt": "drinking/a001-0004Y.mp4 1\n",
            "STAIR_Actions_v1.1/drinking/a001-0004Y.mp4": None,
        }
    )
    val = open_dataset("stair_actions", root=root, split="val")
    assert val.classes == ("drinking", "eating")
    assert labels_of(val) == {"drinking/a001-0004Y": ("drinking",)}
    assert len(open_dataset("stair_actions", root=root, split="train").missing) == 2


def test_activitynet_trains_on_segments_and_evaluates_whole_videos(tree: Write) -> None:
    entry = {"duration": 9.0, "annotations": [
        {"segment": [1.0, 3.5], "label": "Zumba"}, {"segment": [4, 5], "label": "Archery"},
        {"segment": [6, 8], "label": "Zumba"},
    ]}  # fmt: skip
    database = {"abc": {**entry, "subset": "training"}, "def": {**entry, "subset": "validation"}}
    root = tree(
        {
            "activity_net.v1-3.min.json": json.dumps({"database": database, "taxonomy": []}),
            "videos/v_abc.mp4": None,
            "videos/v_def.mkv": None,
        }
    )
    train = open_dataset("activitynet", root=root, split="train")
    assert [(v.id, v.start_s, v.end_s, v.labels) for v in train.videos] == [
        ("abc#0", 1.0, 3.5, (1,)), ("abc#1", 4.0, 5.0, (0,)), ("abc#2", 6.0, 8.0, (1,)),
    ]  # fmt: skip
    val = open_dataset("activitynet", root=root, split="val")
    assert val.is_multi_label
    assert [(v.id, v.start_s, v.labels) for v in val.videos] == [("def", None, (0, 1))]
    assert not open_dataset("activitynet", root=root, split="val", unit="segments").is_multi_label


def test_something_something_v2_takes_templates_without_brackets(tree: Write) -> None:
    root = tree(
        {
            "something-something-v2-labels.json": json.dumps({"Holding something": "1", "Dropping something": "0"}),
            "something-something-v2-train.json": json.dumps(
                [{"id": "78", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]}]
            ),
            "20bn-something-something-v2/78.webm": None,
        }
    )
    train = open_dataset("somethingsomething", root=root, split="train")
    assert train.classes == ("Dropping something", "Holding something")
    assert labels_of(train) == {"78": ("Holding something",)}


def test_something_something_v2_looks_for_no_line_of_a_clip_that_is_right(
    tree: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [{"id": str(number), "template": "Holding [something]"} for number in range(50_000)]
    root = tree({"labels.json": '{"Holding something": "0"}', "train.json": json.dumps(clips), "videos/1.webm": None})
    looked_for: list[str] = []

    def line_of(_: JsonFile, key: str) -> int:
        looked_for.append(key)
        return 7

    monkeypatch.setattr(JsonFile, "line_of", line_of)
    assert open_dataset("somethingsomething", root=root, split="train").annotated == 50_000
    assert looked_for == []
    (root / "train.json").write_text(json.dumps([*clips, clips[5]]))
    with pytest.raises(DatasetError, match=r"train.json:7: clip '5' occurs twice, before in line 7"):
        open_dataset("somethingsomething", root=root, split="train")


def test_something_something_v1_has_semicolons_and_frame_folders(tree: Write) -> None:
    root = tree(
        {
            "something-something-v1-labels.csv": "Holding something\nDropping, then lifting something\n",
            "something-something-v1-train.csv": "5;Dropping, then lifting something\n",
            "20bn-something-something-v1/5/00001.jpg": b"",
        }
    )
    train = open_dataset("somethingsomething", root=root, split="train")
    assert labels_of(train) == {"5": ("Dropping, then lifting something",)}


def test_folder_takes_class_folders_with_the_classes_of_training(tree: Write) -> None:
    root = tree({"train/b/x.mp4": None, "train/a/y.avi": None, "train/a/z/": None, "val/b/w.mp4": None})
    assert labels_of(open_dataset("folder", root=root, split="train")) == {"a/y": ("a",), "a/z": ("a",), "b/x": ("b",)}
    assert open_dataset("folder", root=root, split="val").videos[0].labels == (1,)


def test_folder_refuses_classes_that_training_lacks_and_names_that_clash(tree: Write) -> None:
    root = tree({"train/b/x.mp4": None, "val/c/w.mp4": None})
    with pytest.raises(DatasetError, match="'c' is not among those of"):
        open_dataset("folder", root=root, split="val")
    tree({"train/b/x.avi": None})
    with pytest.raises(DatasetError, match="same name"):
        open_dataset("folder", root=root, split="train")


def test_csv_reads_paths_and_labels_of_every_form(tree: Write) -> None:
    root = tree(
        {
            "train.csv": "\ufeffa/x y.mp4 2\r\n\r\na/z.mp4,0\r\nb/w.mkv\t1\r\nframes 1 12 1\r\n",
            "videos/a/x y.mp4": None,
            "videos/a/z.mp4": None,
            "videos/b/w.mkv": None,
            "videos/frames 1/": None,
        }
    )
    train = open_dataset("csv", root=root, split="train")
    assert train.classes == ("0", "1", "2")
    assert [(v.id, v.labels, v.frames) for v in train.videos] == [
        ("a/x y.mp4", (2,), None), ("a/z.mp4", (0,), None), ("b/w.mkv", (1,), None), ("frames 1", (1,), 12),
    ]  # fmt: skip


def test_csv_takes_names_several_labels_and_absolute_paths_inside(tree: Write) -> None:
    root = tree({"classes.txt": "run\nhop\n", "a.mp4": None, "val.txt": "a.mp4 hop\n"})
    (root / "train.txt").write_text(f"{root.absolute()}/a.mp4 0 1\n")
    assert labels_of(open_dataset("csv", root=root, split="val")) == {"a.mp4": ("hop",)}
    train = open_dataset("csv", root=root, split="train", multi_label=True)
    assert labels_of(train) == {"a.mp4": ("run", "hop")}


def test_names_in_a_csv_list_of_any_other_name_need_their_numbers(tree: Write) -> None:
    root = tree({"tr.txt": "a.mp4 cat\nb.mp4 dog\nc.mp4 eel\n", "va.txt": "a.mp4 cat\nc.mp4 eel\n", "a.mp4": None})
    for split, name in (("train", "tr.txt"), ("val", "va.txt")):
        with pytest.raises(DatasetError, match=rf"{name}: its labels are names.*classes.txt"):
            open_dataset("csv", root=root, split=split, annotations=name)
    tree({"classes.txt": "cat\ndog\neel\n"})
    assert open_dataset("csv", root=root, split="val", annotations="va.txt").missing == {"c.mp4": (2,)}
    with pytest.raises(DatasetError, match="class 'b' stands under two numbers, 1 the first"):
        Labels(["a", "b", "b"])


def test_shards_serve_the_same_annotation(tree: Write, clip: Path, tmp_path: Path) -> None:
    root = tree({"train.csv": KINETICS + "zumba,abcdefghijk,1,11,train\n"})
    (root / "train").mkdir()
    with tarfile.open(root / "train" / "train-000000.tar", "w") as shard:
        shard.add(clip, "zumba/abcdefghijk_000001_000011.mp4")
    (video,) = open_dataset("kinetics", root=root, split="train").videos
    assert video.path == root / "train" / "train-000000.tar" / "zumba" / "abcdefghijk_000001_000011.mp4"
    from bench.data.decode import probe, read_frames

    assert probe(video.path) == probe(clip)
    assert (read_frames(video.path, [9, 0]) == read_frames(clip, [9, 0])).all()


def test_an_index_gives_facts_and_a_hash_of_content(tree: Write) -> None:
    files = {
        "train.csv": KINETICS + "zumba,abcdefghijk,1,11,train\n",
        "train/zumba/abcdefghijk_000001_000011.mp4": None,
    }
    root = tree(files)  # type: ignore[arg-type]
    before = open_dataset("kinetics", root=root, split="train")
    index_folder(root)
    after = open_dataset("kinetics", root=root, split="train")
    assert (before.hash_covers, after.hash_covers) == ("sizes", "content")
    assert before.hash != after.hash
    facts = after.videos[0].facts
    assert facts is not None
    assert (facts.frames, after.videos[0].sha256) == (10, facts.sha256)


HOSTILE: dict[str, tuple[str, dict[str, str | bytes | None], str]] = {
    "traversal": ("kinetics", {"train.csv": KINETICS + "a,../../etc/passwd,0,1,train\n"}, r"train.csv:2: .*not an id"),
    "absolute": ("csv", {"train.csv": "ok.mp4 0\n/etc/passwd.mp4 0\n"}, r"train.csv:2: .*absolute path outside"),
    "upwards": ("csv", {"train.csv": "a/../../x.mp4 0\n"}, r"train.csv:1: .*not a path inside"),
    "nul": ("csv", {"train.csv": "a\0b.mp4 0\n"}, r"train.csv"),
    "twice": (
        "kinetics",
        {"train.csv": KINETICS + "a,xxxxxxxxxxx,0,1,train\r\nb,xxxxxxxxxxx,0,1,train\r\n"},
        r"train.csv:3: clip 'xxxxxxxxxxx_000000_000001' occurs twice, before in line 2",
    ),
    "unknown label": (
        "kinetics",
        {"train.csv": KINETICS + "zumba,a,0,1,train\n", "val.csv": KINETICS + "zumbq,b,0,1,val\n"},
        r"val.csv:2: unknown label 'zumbq'; did you mean: zumba",
    ),
    "no number": ("kinetics", {"train.csv": KINETICS + "a,b,x,1,train\n"}, r"train.csv:2: time_start is 'x'"),
    "endless": ("kinetics", {"train.csv": KINETICS + "a,b,0,1e400,train\n"}, r"train.csv:2: time_end"),
    "few columns": ("kinetics", {"train.csv": KINETICS + "a,b\n"}, r"train.csv:2: 2 columns"),
    "other header": ("kinetics", {"train.csv": "a,b\n"}, r"train.csv:1: no column"),
    "empty": ("kinetics", {"train.csv": ""}, r"train.csv:1: is empty"),
    "not text": ("kinetics", {"train.csv": b"\xff\xfe\x00label"}, r"train.csv:1: is not UTF-8"),
    "not text, later": ("ucf101", {"ucfTrainTestlist/classInd.txt": b"1 A\n\n2 B\xe9\n"}, r"classInd.txt:3: is not UTF"),
    "json not text": ("kinetics", {"kinetics.json": b'{\n"labels": ["\xff"]}'}, r"kinetics.json:2: is not UTF-8"),
    "json infinity": ("activitynet", {"activitynet.json": '{"database":\n{"a": Infinity}}'},
                      r"activitynet.json:2: Infinity is not a number"),
    "json endless": ("kinetics", {"kinetics.json": '{"labels":\n' + "9" * 5000 + "}"}, r"kinetics.json:2: 9{20}…"),
    "quote closed later": (
        "kinetics",
        {"train.csv": KINETICS + 'a,v1,0,10,"train\na,v2,0,10,train\na,v3,0,10,train\na,v4,0,10,train"\n'},
        r"train.csv:2: a quote is opened here and closed in line 5",
    ),
    "quote never closed": (
        "kinetics",
        {"train.csv": KINETICS + 'a,v1,0,10,train\na,v2,0,10,"train\na,v3,0,10,train\n'},
        r"train.csv:3: is not CSV: .*stray quote",
    ),
    "quote in a field": ("kinetics", {"train.csv": KINETICS + 'a,"v"1,0,10,train\n'}, r"train.csv:2: is not CSV"),
    "no rows": ("kinetics", {"train.csv": KINETICS}, r"train.csv:1: there is no row"),
    "empty list": (
        "ucf101",
        {"ucfTrainTestlist/classInd.txt": "1 A\n", "ucfTrainTestlist/trainlist01.txt": ""},
        r"trainlist01.txt:1: is empty",
    ),
    "blank list": ("csv", {"train.csv": "\n \r\n"}, r"train.csv:1: is empty"),
    "empty json": ("kinetics", {"kinetics.json": '{"labels": ["a"], "database": {}}'}, r"train: .*names no videos"),
    "no json": ("kinetics", {"kinetics.json": '{"labels": [\n1,,\n]}'}, r"kinetics.json:2: is not JSON"),
    "deep json": ("kinetics", {"kinetics.json": "[" * 100000}, r"kinetics.json"),
    "key twice": (
        "kinetics",
        {"kinetics.json": '{"labels": ["a"], "database": {\n"x": {},\n"x": {}}}'},
        r"kinetics.json:2: 'x' occurs twice",
    ),
    "json traversal": (
        "kinetics",
        {"kinetics.json": '{"labels": ["a"],\n"database": {"../x": {"subset": "training", "annotations": {}}}}'},
        r"kinetics.json:2: '../x' is not an id",
    ),
    "json label": (
        "kinetics",
        {"kinetics.json": '{"labels": [], "database": {"x": {"subset": "training", "annotations": {"label": ["a"]}}}}'},
        r"kinetics.json:1: unknown label",
    ),
    "json subset": (
        "kinetics",
        {"kinetics.json": '{"labels": ["a"], "database": {"x": {"subset": "train", "annotations": {}}}}'},
        r"kinetics.json:1: subset of 'x' is 'train'; allowed: training",
    ),
    "ucf mismatch": (
        "ucf101",
        {
            "ucfTrainTestlist/classInd.txt": "1 A\n2 B\n",
            "ucfTrainTestlist/trainlist01.txt": "A/v_A_g01_c01.avi 2\n",
        },
        r"trainlist01.txt:1: class A is number 1",
    ),
    "ucf traversal": (
        "ucf101",
        {"ucfTrainTestlist/classInd.txt": "1 A\n", "ucfTrainTestlist/trainlist01.txt": "../A/v.avi 1\n"},
        r"trainlist01.txt:1: .*not a path inside",
    ),
    "stair mismatch": (
        "stair_actions",
        {"data/videolist_train.txt": "a/x.mp4 1\n", "data/videolist_val.txt": "b/y.mp4 1\n"},
        r"videolist_.*:1: .*not 'b'",
    ),
    "moments gap": (
        "moments",
        {"moments_categories.txt": "a,0\nb,7\n", "trainingSet.csv": ""},
        r"moments_categories.txt:1: no class has number 1",
    ),
    "csv number": ("csv", {"train.csv": "x.mp4 99999999999\n"}, r"train.csv:1: label 99999999999 is beyond"),
    "csv negative": ("csv", {"train.csv": "x.mp4 0\ny.mp4 -1\n", "classes.txt": "a\n"}, r"train.csv:2: label -1"),
    "csv mixed": ("csv", {"train.csv": "".join(f"{i}.mp4 {i}\n" for i in range(12)) + "z.mp4 x\n"},
                  r"train.csv:13: unknown label 'x': '0' is a number and 'x' a name"),
    "csv mixed, the other way round": ("csv", {"train.csv": "a.mp4 x\nb.mp4 3\n"}, r"train.csv:2: unknown label '3'"),
    "csv unknown name": ("csv", {"train.csv": "a.mp4 0\nb.mp4 1\n", "val.csv": "a.mp4 1\nb.mp4 x\n"},
                         r"val.csv:2: unknown label 'x'"),
    "csv number among names": ("csv", {"train.csv": "a.mp4 cat\nb.mp4 eel\n", "val.csv": "a.mp4 1\n"},
                               r"val.csv:1: unknown label '1'"),
    "csv class twice": ("csv", {"train.csv": "x.mp4 a\n", "classes.txt": "a\nb\na\n"},
                        r"classes.txt:3: class 'a' occurs twice, before in line 1"),
    "csv classes sorted as text": ("csv", {"train.csv": "x.mp4 2\n", "classes.txt": "0\n1\n10\n2\n"},
                                   r"classes.txt:3: class '10' would have the number 2"),
    "csv names without their numbers": ("csv", {"val.csv": "a.mp4 cat\nb.mp4 eel\n"},
                                        r"val.csv: its labels are names.*classes.txt"),
    "csv endless number": ("csv", {"train.csv": "x.mp4 " + "9" * 5000}, r"train.csv:1: label 9{20} is beyond"),
    "ucf class twice": ("ucf101", {"ucfTrainTestlist/classInd.txt": "1 A\n2 A\n",
                                   "ucfTrainTestlist/trainlist01.txt": "A/v_A_g01_c01.avi\n"},
                        r"classInd.txt:2: class 'A' occurs twice"),
    "something class twice": ("somethingsomething", {"something-something-v1-labels.csv": "Hold\nHold\n",
                                                     "something-something-v1-train.csv": "1;Hold\n"},
                              r"labels.csv:2: class 'Hold' occurs twice"),
    "moments class twice": ("moments", {"moments_categories.txt": "a,0\na,1\n", "trainingSet.csv": "a/x.mp4,a\n"},
                            r"moments_categories.txt:2: class 'a' occurs twice"),
    "stair class twice": ("stair_actions", {"data/videolist_train.txt": "a/x.mp4 1\na/y.mp4 2\n",
                                            "data/videolist_val.txt": "a/y.mp4 1\n"},
                          r"videolist_train.txt:2: class 'a' has number 1 already"),
    "csv no label": ("csv", {"train.csv": "x.mp4\n"}, r"train.csv:1: expected 'path label'"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_annotations_are_refused_with_file_and_line(name: str, tree: Write) -> None:
    dataset, files, message = HOSTILE[name]
    split = "val" if "val.csv" in files or "videolist_val.txt" in str(files) else "train"
    if dataset in ("ucf101", "hmdb51"):
        split = "train1"
    with pytest.raises(DatasetError, match=message):
        open_dataset(dataset, root=tree(files), split=split)  # type: ignore[arg-type]


def test_a_million_lines_are_read(tree: Write) -> None:
    lines = "".join(f"a,{i:011d},0,10,train\n" for i in range(100_000))
    videos = open_dataset("kinetics", root=tree({"train.csv": KINETICS + lines}), split="train")
    assert (len(videos), len(videos.missing)) == (0, 100_000)


WRITTEN_BY_ITSELF = {"motions", "stills"}


@pytest.mark.parametrize("name", sorted(set(DATASETS.names()) - WRITTEN_BY_ITSELF))
def test_every_data_set_tells_what_it_expects_where(name: str, tmp_path: Path) -> None:
    split = DATASETS.get(name).splits[0]
    with pytest.raises(DatasetError) as raised:
        open_dataset(name, root=tmp_path / "nowhere", split=split)
    message = str(raised.value)
    assert str(tmp_path / "nowhere") in message
    assert DATASETS.get(name).described_at in message
    assert "vbench downloads nothing" in message
    with pytest.raises(DatasetError, match="VBENCH_DATA"):
        open_dataset(name, split=split)
    with pytest.raises(UnknownNameError, match="unknown split"):
        open_dataset(name, root=tmp_path, split="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError):
        open_dataset(name, root=tmp_path / "empty", split=split)


def test_a_data_set_is_found_under_the_folder_of_all_data(
    tree: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tree({"train/b/x.mp4": None})
    root.rename(tmp_path / "folder")
    monkeypatch.setenv("VBENCH_DATA", str(tmp_path))
    assert len(open_dataset("folder", split="train")) == 1
