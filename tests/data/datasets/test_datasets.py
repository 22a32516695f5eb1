"""Every data set: read from its own annotation, with wrong and hostile lines refused by file and line."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import BenchError, DatasetError, UnknownNameError
from bench.core.registry import DATASETS
from bench.data.annotations import JsonFile
from bench.data.collection import VideoSet, open_dataset
from bench.data.index import index_folder

Write = Callable[..., Path]


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


def test_a_kinetics_csv_of_several_splits_gives_each_its_rows_and_all_the_same_classes(tree: Write) -> None:
    rows = "zumba,a,0,10,train\nyoga,b,0,10,validate\narchery,c,0,10,test\nyoga,d,0,10,\nzumba,e,0,10,fold2\n"
    root = tree({"all.csv": KINETICS + rows})
    found = {
        split: open_dataset("kinetics", root=root, split=split, annotations="all.csv")
        for split in ("train", "val", "test")
    }
    assert {split: {id_[0]: label for id_, (label,) in videos.missing.items()} for split, videos in found.items()} == {
        "train": {"a": 2, "d": 1, "e": 2},
        "val": {"b": 1, "d": 1, "e": 2},
        "test": {"c": 0, "d": 1, "e": 2},
    }


def test_split_in_the_name_of_an_annotation_stands_for_the_split(tree: Write) -> None:
    lines = {"train": [("cat", "a"), ("dog", "b"), ("eel", "c")], "val": [("cat", "d"), ("eel", "e")]}
    root = tree({f"my_{s}.csv": KINETICS + "".join(f"{a},{b},0,10,\n" for a, b in of) for s, of in lines.items()})
    val, train = (open_dataset("kinetics", root=root, split=s, annotations="my_{split}.csv") for s in ("val", "train"))
    assert val.classes == train.classes == ("cat", "dog", "eel")
    assert [labels for _, labels in sorted(val.missing.items())] == [(0,), (2,)]


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


def test_numeric_class_folders_are_in_numeric_order(tree: Write) -> None:
    root = tree({f"train/{number}/x.mp4": None for number in (10, 2, 0, 1)})
    assert open_dataset("folder", root=root, split="train").classes == ("0", "1", "2", "10")
    tree({"train/b/x.mp4": None})
    assert open_dataset("folder", root=root, split="train").classes == ("0", "1", "10", "2", "b")


def test_folders_inside_class_folders_are_not_videos_but_hold_them(tree: Write) -> None:
    root = tree({"train/a/day1/x.mp4": None, "train/a/day1/cam2/y.mp4": None, "train/a/day2/frames/": None,
                 "train/b/z/": None})  # fmt: skip
    train = open_dataset("folder", root=root, split="train")
    assert labels_of(train) == {
        "a/day1/x": ("a",), "a/day1/cam2/y": ("a",), "a/day2/frames": ("a",), "b/z": ("b",),
    }  # fmt: skip


def test_links_that_lead_round_in_a_circle_end(tree: Write) -> None:
    root = tree({"train/a/x.mp4": None, "train/b/y.mp4": None})
    (root / "train/a/to_b").symlink_to(root / "train/b")
    (root / "train/b/to_a").symlink_to(root / "train/a")
    assert {v.id for v in open_dataset("folder", root=root, split="train").videos} >= {"a/x", "b/y"}


def test_kinetics_reads_lists_without_times(tree: Write) -> None:
    rows = "youtube_id,label\naaaaaaaaaaa,abseiling\nbbbbbbbbbbb,zumba\n"
    root = tree({"train.csv": rows, "train/abseiling/aaaaaaaaaaa.mp4": None, "train/bbbbbbbbbbb.mp4": None})
    train = open_dataset("kinetics", root=root, split="train")
    assert labels_of(train) == {"aaaaaaaaaaa": ("abseiling",), "bbbbbbbbbbb": ("zumba",)}
    (root / "train.csv").write_text(rows + "aaaaaaaaaaa,zumba\n")
    with pytest.raises(DatasetError, match=r"train.csv:4: clip 'aaaaaaaaaaa' occurs twice, before in line 2"):
        open_dataset("kinetics", root=root, split="train")


def test_one_file_claimed_by_two_rows_with_different_labels_is_an_error(tree: Write) -> None:
    root = tree({
        "train.csv": KINETICS + "zumba,aaaaaaaaaaa,1,11,train\nyoga,aaaaaaaaaaa,20,30,train\n",
        "train/aaaaaaaaaaa.mp4": None,
    })  # fmt: skip
    with pytest.raises(DatasetError, match=r"aaaaaaaaaaa.mp4 is the file of two .*\('zumba'\) and .*\('yoga'\)"):
        open_dataset("kinetics", root=root, split="train")


def test_one_file_claimed_by_two_rows_with_the_same_label_counts_once(tree: Write) -> None:
    root = tree({
        "train.csv": KINETICS + "zumba,aaaaaaaaaaa,1,11,train\nzumba,aaaaaaaaaaa,20,30,train\n",
        "train/zumba/aaaaaaaaaaa.mp4": None,
    })  # fmt: skip
    train = open_dataset("kinetics", root=root, split="train")
    assert (len(train), list(train.missing)) == (1, ["aaaaaaaaaaa_000020_000030"])


IN_OTHER_FOLDERS = {
    "hmdb51": ({"testTrainMulti_7030_splits/wave_test_split1.txt": "a.avi 1\n",
                "testTrainMulti_7030_splits/clap_test_split1.txt": "b.avi 1\n",
                "hmdb51/clap/a.avi": None, "hmdb51/clap/b.avi": None},
               "a is annotated as 'wave'.*folder of class 'clap'"),
    "kinetics": ({"kinetics.json": json.dumps({"labels": ["wave", "clap hands"], "database": {
                     "x": {"subset": "training", "annotations": {"label": "wave"}}}}),
                  "jpg/clap_hands/x/": None}, "x is annotated as 'wave'.*folder of class 'clap hands'"),
    "moments": ({"moments_categories.txt": "clapping,0\nboiling,1\n", "trainingSet.csv": "boiling/x.mp4,boiling,3,0\n",
                 "training/clapping/x.mp4": None}, "boiling/x is annotated as 'boiling'.*folder of class 'clapping'"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_OTHER_FOLDERS)
def test_a_clip_in_the_folder_of_another_class_is_an_error(name: str, tree: Write) -> None:
    files, message = IN_OTHER_FOLDERS[name]
    with pytest.raises(DatasetError, match=message):
        open_dataset(name, root=tree(files), split="train1" if name == "hmdb51" else "train")


def test_many_missing_videos_are_reported_in_one_sentence(tree: Write) -> None:
    rows = "".join(f"zumba,{number:011d},0,10,train\n" for number in range(10))
    files = {f"train/zumba/{number:011d}_000000_000010.mp4": None for number in range(9)}
    root = tree({"train.csv": KINETICS + rows, **files})
    assert open_dataset("kinetics", root=root, split="train").missing_warning == ""
    (root / "train/zumba/00000000000_000000_000010.mp4").unlink()
    warning = open_dataset("kinetics", root=root, split="train").missing_warning
    assert warning.startswith("2 of 10 videos (20 %) of data set kinetics, split train, are missing, the first is 0000")


def test_shards_serve_the_same_annotation(tree: Write, clip: Path, tmp_path: Path) -> None:
    root = tree({"train.csv": KINETICS + "zumba,abcdefghijk,1,11,train\n"})
    (root / "train").mkdir()
    with tarfile.open(root / "train" / "train-000000.tar", "w") as shard:
        shard.add(clip, "zumba/abcdefghijk_000001_000011.mp4")
    (video,) = open_dataset("kinetics", root=root, split="train").videos
    assert video.path == root / "train" / "train-000000.tar" / "zumba" / "abcdefghijk_000001_000011.mp4"
    from bench.data.decode import read_frames
    from bench.data.probing import probe

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
