"""`vbench data`, and data sets of other commands: every option of a data set can be given."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli.app import run_command
from bench.cli.arguments import dataset_options, named_values
from bench.core.errors import InputError
from bench.core.yaml_tree import Tree
from bench.data.collection import open_dataset
from bench.runner import running

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in an empty folder of its own: exit code, standard output, standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VBENCH_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def outcome(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return outcome


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real H.264 file."""
    root = tmp_path_factory.mktemp("motions") / "m"
    sizes: dict[str, Any] = {"clips_per_class": 1, "val_clips_per_class": 1, "classes": 2, "size": 32, "frames": 16}
    return open_dataset("motions", root=root, split="train", **sizes).videos[0].path


@pytest.fixture
def kinetics(tmp_path: Path, clip: Path) -> Path:
    """Kinetics with two clips of one class, one of them in a folder that lies elsewhere."""
    root = tmp_path / "k700"
    header = "label,youtube_id,time_start,time_end,split\n"
    (root / "train" / "zumba").mkdir(parents=True)
    (root / "train.csv").write_text(f"{header}zumba,aaaaaaaaaaa,0,10,train\n")
    (root / "few.csv").write_text(f"{header}zumba,bbbbbbbbbbb,0,10,train\n")
    shutil.copy(clip, root / "train" / "zumba" / "aaaaaaaaaaa_000000_000010.mp4")
    (tmp_path / "elsewhere" / "zumba").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "elsewhere" / "zumba" / "bbbbbbbbbbb.mp4")
    return root


def test_a_data_set_is_indexed_by_name(run: Run, kinetics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("data", "index", "kinetics700", "--root", kinetics)
    assert (code, out) == (0, f"{kinetics}/.vbench/index.jsonl: 1 files (1 ok), 1 of them decoded now\n")
    assert run("data", "verify", "kinetics700", "--split", "train", "--root", kinetics)[0] == 0
    monkeypatch.setenv("VBENCH_DATA", str(kinetics.parent))
    kinetics.rename(kinetics.parent / "kinetics700")
    assert "1 files (1 ok), 0 of them" in run("data", "index", "kinetics700")[1]


def test_a_folder_is_indexed_and_comes_before_a_data_set_of_its_name(run: Run, clip: Path) -> None:
    Path("stills").mkdir()
    shutil.copy(clip, "stills/a.mp4")
    assert "stills/.vbench/index.jsonl: 1 files" in run("data", "index", "stills")[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["kinetcs700"], "neither a folder nor a data set; did you mean: kinetics700"),
        (["kinetcs700", "--root", "."], "did you mean: kinetics700"),
        (["kinetics700"], "set VBENCH_DATA"),
        (["kinetics700", "--root", "nowhere"], "there is no folder nowhere"),
        (["kinetics700", "--root", ".", "--option", "video=x"], "did you mean: videos"),
        (["kinetics700", "--root", ".", "--option", "videos=x"], "x: the folder of the videos"),
        (["kinetics700", "--root", ".", "--option", "videos"], "NAME=VALUE"),
        ([".", "--workers", "-1"], "'--workers'"),
    ],
)
def test_files_that_cannot_be_indexed_are_named(run: Run, arguments: list[str], part: str) -> None:
    code, _, err = run("data", "index", *arguments)
    assert code == 2
    assert part in err


def test_options_of_a_data_set_reach_every_command(run: Run, kinetics: Path) -> None:
    elsewhere = ["--option", "annotations=few.csv", "--option", f"videos={kinetics.parent / 'elsewhere'}"]
    of = ["--root", kinetics, *elsewhere]
    assert "2 of them" not in run("data", "index", "kinetics", *of)[1]
    code, out, _ = run("data", "verify", "kinetics", "--split", "train", "--json", *of)
    assert (code, json.loads(out)["present"], json.loads(out)["unindexed"]) == (0, 1, 0)
    assert run("data", "shard", "kinetics", "shards", "--split", "train", *of)[0] == 0
    assert Path("shards/train-000000.tar").is_file()
    assert run("data", "annotate", "kinetics", "k.json", "--split", "train", *of)[0] == 0
    assert list(json.loads(Path("k.json").read_text())["database"]) == ["bbbbbbbbbbb_000000_000010"]
    code, out, _ = run("data", "bench", "kinetics", "--clip", "4x1x16", *of)
    assert code == 0
    assert "clips/s" in out


@pytest.mark.parametrize(("command", "with_"), [("train", "--recipe=quick"), ("eval", "--weights=none.pt")])
def test_train_and_eval_pass_options_to_the_data_set(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, with_: str
) -> None:
    suites = []

    def stop(suite: Tree, **_: object) -> None:
        suites.append(suite.data)
        raise InputError("that is enough")

    monkeypatch.setattr(running, "run", stop)
    torch.save({"state_dict": {"x": torch.zeros(1)}}, "none.pt")  # `eval` looks into the file before it starts
    arguments = [command, "c3d_search", with_, "--dataset", "activitynet"]
    assert run(*arguments, "--option", "unit=segments", "--option", "videos=v")[2] == "vbench: that is enough\n"
    assert suites[0]["measure"]["accuracy"]["options"] == {"unit": "segments", "videos": "v"}
    run(*arguments, "--workers", "6", "--timeout", "60")
    assert "options" not in suites[1]["measure"]["accuracy"]
    assert [suite["measure"]["accuracy"].get("workers") for suite in suites] == [None, 6]
    assert [suite["timeout_s"] for suite in suites] == [5e6, 60], "an hour, a suite's own, is too short for a training"
    assert "use --split" in run(*arguments, "--option", "split=train")[2]


def test_features_passes_options_to_the_data_set(run: Run, kinetics: Path) -> None:
    of = ["--weights", "none.pt", "--dataset", "kinetics", "--split", "train", "--out", "f.parquet"]
    code, _, err = run("features", "c3d_search", *of, "--root", kinetics, "--option", "annotatons=few.csv")
    assert code == 2
    assert "did you mean: annotations" in err


def test_two_splits_of_one_subset_are_not_written_into_one_file(run: Run, tmp_path: Path) -> None:
    arguments = ["data", "annotate", "ucf101", "u.json", "--root", tmp_path, "--split", "train1", "--split", "train2"]
    assert run(*arguments)[0::2] == (2, "vbench: splits train1 and train2 are both train; write two files\n")


def test_an_invalid_clip_is_one_line(run: Run) -> None:
    for clip, part in (("foo", "frames x stride x size"), ("0x1x112", "greater than or equal to 1")):
        code, _, err = run("data", "bench", "motions", "--clip", clip)
        assert code == 2
        assert part in err
        assert err.count("\n") == 1


def test_the_list_of_data_sets_names_their_options(run: Run) -> None:
    listed = {each["name"]: each["options"] for each in json.loads(run("data", "list", "--json")[1])}
    assert {"unit", "annotations", "videos"} <= set(listed["activitynet"].split(", "))
    assert "split" not in listed["folder"]


def test_values_are_yaml_and_mistakes_are_one_line() -> None:
    assert named_values(["a=3", "b=x y", "c=true", "d=[1, 2]", "e=x=y", "f="], flag="--arg", example="a=1") == {
        "a": 3,
        "b": "x y",
        "c": True,
        "d": [1, 2],
        "e": "x=y",
        "f": None,
    }
    for text in ("a", "=3", "a b=3", "a=[1", "a=b: c: d", "a=@x"):
        with pytest.raises(InputError, match="--arg"):
            named_values([text], flag="--arg", example="a=1")
    with pytest.raises(InputError, match="given twice"):
        named_values(["a=1", "a=2"], flag="--arg", example="a=1")
    with pytest.raises(InputError, match="use --split"):
        dataset_options(["split=train"])


def test_options_of_a_wrong_type_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("kinetics", {"annotations": 3}, "'annotations' of data set kinetics: input should be a valid string, found 3"),
        ("activitynet", {"unit": "video"}, "did you mean: videos"),
        ("moments", {"multi_label": "yes"}, "valid boolean"),
        ("motions", {"seed": True}, "valid integer"),
    ]
    for name, options, part in wrong:
        with pytest.raises(InputError, match=part):
            open_dataset(name, root=tmp_path / "nowhere", split="train", **options)


def test_text_options_of_a_data_set_stay_text() -> None:
    """YAML would make a mapping of the braces, a number of the year and nothing of the rest."""
    typed = ["annotations={split}_list.txt", "videos=2020", "flow=#x", "multi_label=true", "fps=25"]
    assert dataset_options(typed) == {
        "annotations": "{split}_list.txt",
        "videos": "2020",
        "flow": "#x",
        "multi_label": True,
        "fps": 25,
    }


WRITERS = [("synth",), ("frames", "{source}"), ("reencode", "{source}"), ("shard", "folder"), ("annotate", "folder")]


@pytest.mark.parametrize("target", ["/proc/x", "/dev/null/x", "{source}/train/a/x.mp4/y"])
@pytest.mark.parametrize("command", WRITERS, ids=lambda command: command[0])
def test_a_target_that_cannot_be_written_is_one_line(
    command: tuple[str, ...], target: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/x.mp4").write_bytes(b"x")
    arguments = [*command, target, *(("--root", "{source}", "--split", "train") if command[-1] == "folder" else ())]
    code, out, err = run("data", *(each.format(source=tmp_path) for each in arguments))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cannot be written" in err


def test_synth_does_not_write_into_a_folder_with_other_files(tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    code, _, err = run("data", "synth", tmp_path / "full")
    assert (code, [path.name for path in (tmp_path / "full").iterdir()]) == (2, ["mine.txt"])
    assert "holds something else" in err
