"""Wrong and hostile annotations are refused by file and line, never read as something else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import DatasetError
from bench.data.collection import open_dataset

Write = Callable[..., Path]

KINETICS = "label,youtube_id,time_start,time_end,split\n"

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
    "not text, later": ("ucf101", {"ucfTrainTestlist/classInd.txt": b"1 A\n\n2 \xe9\n"}, r"classInd.txt:3: is not UTF"),
    "json not text": ("kinetics", {"kinetics.json": b'{\n"labels": ["\xff"]}'}, r"kinetics.json:2: is not UTF-8"),
    "json infinity": ("activitynet", {"activitynet.json": '{"database":\n{"a": Infinity}}'},
                      r"activitynet.json:2: Infinity is not a JSON number"),
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
