"""`vbench predictions` of one model, of two on the same videos, and of both fused."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli.app import run_command
from bench.cli.run_display import print_prediction_files
from bench.comparison.kept_predictions import read_ranks
from bench.data.clip_batches import UnreadVideo
from bench.data.collection import Video, VideoSet
from bench.train.evaluating import Evaluation
from bench.train.predictions import Predictions, read_predictions, store_predictions, write_predictions

CLASSES = ("run", "sit", "jump")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2]
RGB = [0, 0, 1, 1, 1, 1, 2, 2]  # 5 of 8 right: run 2 of 4, sit 2 of 3, jump 1 of 1
FLOW = [0, 0, 0, 1, 1, 2, 2, 0]  # 4 of 8 right: two of RGB's are lost, one is won, two are right in neither
PROTOCOL = {
    "dataset": "motions",
    "split": "val",
    "frames": 16,
    "stride": 2,
    "sampling": "blocks",
    "crop": [32, 32],
    "views": "3x1",
    "averaging": "softmax",
    "unread": 0,
    "unread_are": "counted as wrong",
}

Kept = Callable[..., Path]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Writes predictions into results: each video's `predicted` class has score `top`, the others share the rest."""

    def write(
        name: str, predicted: list[int], *, top: float = 0.6, case: str = "c", unread: int = 0, **protocol: Any
    ) -> Path:
        scores = np.full((8, 3), (1 - top) / 2, dtype=np.float32)
        scores[np.arange(8), predicted] = top
        videos = [Video(id=f"v{n}", path=tmp_path / f"v{n}.mp4", labels=(label,)) for n, label in enumerate(LABELS)]
        seen = Evaluation(
            positions=np.arange(8),
            labels=np.array(LABELS),
            scores=scores,
            clip_ranks=np.zeros((8, 3), dtype=np.int64),
            unread=tuple(UnreadVideo(position=8, id="v8", reason="damaged") for _ in range(unread)),
            unread_labels=np.zeros(unread, dtype=np.int64),
        )
        return write_predictions(
            tmp_path / name / "artifacts" / case / "predictions.parquet",
            {"none": seen},
            VideoSet(name="motions", split="val", classes=CLASSES, videos=tuple(videos)),
            protocol=PROTOCOL | {"unread": unread} | protocol,
            model=f"net input={name}",
        )

    return write


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["predictions", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def asked(ask: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """The answer as JSON."""

    def run(*arguments: object) -> Any:
        code, out, err = ask(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def test_metrics_of_one_model_equal_those_by_hand(kept: Kept, asked: Callable[..., Any]) -> None:
    found = asked(kept("rgb", RGB))
    top = found["top1_percent"]
    assert top["value"] == 62.5
    assert (top["low"], top["high"]) == (pytest.approx(30.57, abs=0.01), pytest.approx(86.32, abs=0.01))
    assert found["top5_percent"] is None
    assert found["mean_class_percent"] == pytest.approx(100 * (2 / 4 + 2 / 3 + 1) / 3)
    assert found["classes"] == list(CLASSES)
    assert found["confusion_matrix"] == [[2, 2, 0], [0, 2, 1], [0, 0, 1]]
    assert [(c["class"], c["taken_for"], c["videos"], c["of"]) for c in found["confusions"]] == [
        ("run", "sit", 2, 4),
        ("sit", "jump", 1, 3),
    ]
    assert (found["videos"], found["model"], found["protocol"]) == (8, "net input=rgb", PROTOCOL)


def test_one_model_is_printed_with_protocol_and_metrics(kept: Kept, ask: Callable[..., tuple[int, str, str]]) -> None:
    file = kept("rgb", RGB)
    _, out, _ = ask(file.parents[2])
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:2] == [str(file), "net input=rgb"]
    assert lines[2] == (
        "data set: motions val; clips: 16 frames, stride 2, 32x32 pixels; "
        "views of a video: 3x1 (in time x in space); scores: softmax, mean over the views"
    )
    assert "videos 8 in 3 classes" in lines
    assert "top-1 (95 % interval) 62.5 % (30.57 to 86.32)" in lines
    assert "mean per class 72.22 %" in lines
    assert lines[-2:] == ["run sit 2 of 4 50 %", "sit jump 1 of 3 33.33 %"]
    assert "sit jump" not in " ".join(ask(file, "--confusions", 1)[1].split())
    assert "confused" not in ask(file, "--confusions", 0)[1]
    assert "no class was confused with another" in ask(kept("all", LABELS))[1]


def test_a_record_counts_unreadable_videos(kept: Kept, ask: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = ask(kept("rgb", RGB, unread=2))
    assert "2 videos could not be read and left out here; a record counts such videos as wrong: top-1 50 %" in out
    _, out, _ = ask(kept("left", RGB, unread=2, unread_are="left out"))
    assert "2 videos could not be read and left out here, as in the record\n" in out
    assert "could not be read" not in ask(kept("whole", RGB))[1]


def test_agreement_of_two_models_equals_that_by_hand(kept: Kept, asked: Callable[..., Any]) -> None:
    rgb, flow = kept("rgb", RGB), kept("flow", FLOW, top=0.9)
    found = asked(rgb, flow)
    assert [found[name] for name in ("both", "only_a", "only_b", "neither")] == [3, 2, 1, 2]
    assert found["mcnemar_p"] == 1.0
    difference = found["b_minus_a_top1_points"]
    assert difference["value"] == -12.5
    assert difference["low"] < -12.5 < 0 < difference["high"]
    assert [found[side]["top1_percent"]["value"] for side in ("a", "b")] == [62.5, 50.0]
    assert found["fused"]["top1_percent"]["value"] == 50.0  # flow is surer wherever both differ
    turned = asked(flow, rgb)["b_minus_a_top1_points"]
    assert (turned["low"], turned["high"]) == (pytest.approx(-difference["high"]), pytest.approx(-difference["low"]))
    assert asked(rgb, flow, "--weight", 0.1)["fused"]["top1_percent"]["value"] == 62.5


def test_two_models_are_printed_side_by_side(kept: Kept, ask: Callable[..., tuple[int, str, str]]) -> None:
    rgb, flow = kept("rgb", RGB), kept("flow", FLOW)
    _, out, _ = ask(rgb, flow)
    assert "right in both: 3, only in A: 2, only in B: 1, in neither: 2" in out
    assert "B \N{MINUS SIGN} A: \N{MINUS SIGN}12.50 points of top-1 (95 % interval" in out
    assert "confused" not in out
    _, out, _ = ask(rgb, flow, "--confusions", 1, "--weight", 2)
    assert "fused, B x 2: most often confused" in out
    assert "both are right on the same videos" in ask(rgb, rgb)[1]
    _, out, _ = ask(rgb, kept("denser", FLOW, views="10x3"))
    assert out.count("motions val") == 1
    views = next(line for line in out.splitlines() if line.startswith("views"))
    assert re.findall(r"\d+x\d+", views) == ["3x1", "10x3"]


def test_the_fused_file_can_be_read_as_predictions(kept: Kept, asked: Callable[..., Any], tmp_path: Path) -> None:
    rgb, flow, target = kept("rgb", RGB), kept("flow", FLOW, top=0.9), tmp_path / "new" / "fused.parquet"
    both = asked(rgb, flow, "--fuse", target)["fused"]
    assert both["file"] == str(target)
    alone = asked(target)
    assert {**both, "confusions": None} == {**alone, "confusions": None}
    assert alone["model"] == "net input=rgb + net input=flow"
    assert alone["protocol"]["fused"] == [PROTOCOL, PROTOCOL]
    written, one = pq.read_schema(target), pq.read_schema(rgb)
    assert (written.names, written.types) == (one.names, one.types)
    run: Any = SimpleNamespace(record=SimpleNamespace(artifacts={"predictions": target.name}), folder=target.parent)
    answers = read_ranks(run)
    assert answers is not None
    assert answers.ranks["v0"] == ("0", 0)
    assert sum(rank == 0 for _, rank in answers.ranks.values()) == 4
    assert asked(target, flow)["only_a"] == 0  # and can be fused with a third


def test_scores_of_different_kinds_are_compared_but_not_fused(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    rgb, raw = kept("rgb", RGB), kept("raw", FLOW, averaging="score")
    code, out, _ = ask(rgb, raw)
    assert code == 0
    assert "not fused: scores of different kinds" in out
    for asks in (["--fuse", tmp_path / "f.parquet"], ["--weight", 2]):
        code, out, err = ask(rgb, raw, *asks)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "the first are means of softmax, the second are means of raw scores" in err
        assert str(rgb) in err
    assert not (tmp_path / "f.parquet").exists()


def test_a_folder_with_several_prediction_files_is_one_line_that_names_them(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], asked: Callable[..., Any]
) -> None:
    first, second = kept("two", RGB, case="c1"), kept("two", FLOW, case="c2")
    code, _, err = ask(first.parents[2])
    assert (code, err.count("\n")) == (2, 1)
    assert f"{first} (net input=two), {second} (net input=two)" in err
    assert asked(second.parent)["file"] == str(second)


def test_unusable_prediction_files_are_one_line(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    rgb = kept("rgb", RGB)
    text, table, ragged, empty = (tmp_path / name for name in ("t.parquet", "x.parquet", "r.parquet", "empty"))
    text.write_text("text")
    pq.write_table(pa.table({"video": ["v"], "scores": [1]}), table)
    about = {"classes": json.dumps(CLASSES), "protocol": "{}"}
    columns = {"video": ["a", "b"], "label": [0, 1], "scores": [[0.5], [0.1, 0.2]]}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), ragged)
    empty.mkdir()
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(rgb).slice(0, 7), other)
    for arguments, part in [
        ([text], f"{text} is not a file of predictions"),
        ([table], f"{table} is not a file of predictions written by vbench: its classes or its protocol are missing"),
        ([ragged], f"{ragged} is not a file of predictions written by vbench: its videos have different numbers"),
        ([empty], f"no predictions.parquet lies below {empty}"),
        ([tmp_path / "gone"], f"{tmp_path / 'gone'} is neither"),
        (
            [rgb, other],
            f"{rgb} and {other}: the two predictions are of different videos: 1 are in one only",
        ),
        ([rgb, "--weight", 2], "--weight needs two files of predictions"),
        ([rgb, "--fuse", "f.parquet"], "--fuse needs two files of predictions"),
        ([rgb, rgb, "--fuse", rgb], "one of the two"),
        ([rgb, rgb, "--fuse", tmp_path / "f.csv"], "end with .parquet"),
        ([rgb, rgb, "--fuse", tmp_path / "t.parquet" / "f.parquet"], "cannot be written"),
        ([rgb, rgb, "--weight", "inf"], "the weight of the second scores is inf"),
    ]:
        code, out, err = ask(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert part in err


def test_older_files_without_a_model_name_are_read(kept: Kept, asked: Callable[..., Any]) -> None:
    file = kept("old", RGB)
    table = pq.read_table(file)
    about = {name: text for name, text in table.schema.metadata.items() if name in (b"classes", b"protocol")}
    pq.write_table(table.replace_schema_metadata(about), file)
    found = asked(file)
    assert (found["model"], found["top1_percent"]["value"]) == (None, 62.5)


def test_videos_with_several_labels_have_an_average_precision(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], asked: Callable[..., Any], tmp_path: Path
) -> None:
    """Of two classes, videos in the order of score: yes no yes, so (1 + 2/3) / 2; and no yes no, so 1/2."""
    file = tmp_path / "several.parquet"
    columns = {
        "video": ["x", "y", "z"],
        "label": [[0], [1], [0]],
        "rank": [0, 0, 1],
        "scores": [[0.9, 0.1], [0.5, 0.8], [0.3, 0.9]],
    }
    about = {"classes": '["a", "b"]', "protocol": '{"averaging": "sigmoid"}'}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), file)
    found = asked(file)
    assert found["map_percent"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert (found["mean_class_percent"], found["confusion_matrix"], found["confusions"]) == (None, None, None)
    assert found["top1_percent"]["value"] == pytest.approx(200 / 3)
    _, out, _ = ask(file)
    assert "mean average precision" in out
    assert "mean per class" not in out
    assert asked(file, file)["both"] == 2


def test_a_run_prints_the_command_that_shows_its_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*files: str) -> str:
        records = [SimpleNamespace(artifacts={"log": "l", **({"predictions": file} if file else {})}) for file in files]
        summary: Any = SimpleNamespace(finished=records, folder=Path("results/r"))
        print_prediction_files(summary)
        return capsys.readouterr().out

    assert said("") == ""
    one = "artifacts/a/predictions.parquet"
    assert said(one, one, "") == f"predictions of every video: vbench predictions results/r/{one}\n"
    assert "for 2 cases: vbench predictions results/r lists" in said(one, one.replace("a/p", "b/p"))


def test_predictions_command_does_not_import_torch(kept: Kept) -> None:
    code = (
        "import sys; from bench.cli.app import run_command\n"
        f"assert run_command(['predictions', {str(kept('rgb', RGB))!r}, {str(kept('flow', FLOW))!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_predictions_file_names_its_model(kept: Kept) -> None:
    found = read_predictions(kept("rgb", RGB))
    assert found.model == "net input=rgb"
    assert replace(found, protocol={}).unread == 0


def test_calibration_and_a_threshold_for_unknown_are_printed(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], asked: Callable[..., Any]
) -> None:
    file = kept("rgb", RGB)  # 5 of 8 are right, all with a score of 0.6
    out = " ".join(ask(file, "--precision", 60)[1].split())
    assert "expected calibration error" in out
    assert "100 % of the videos are answered, and 62.5 % (30.57 to 86.32) of the answers are right" in out
    assert "no score is high enough for 90 % right answers" in " ".join(ask(file, "--precision", 90)[1].split())
    assert asked(file)["calibration"]["threshold"] is None


def test_changed_input_is_compared_with_the_unchanged_one(
    ask: Callable[..., tuple[int, str, str]], asked: Callable[..., Any], tmp_path: Path
) -> None:
    videos = tuple(f"v{number}" for number in range(8))
    plain, changed = (
        Predictions(
            videos=videos,
            labels=np.array(LABELS),
            scores=np.eye(3, dtype=np.float32)[predicted],
            classes=CLASSES,
            protocol={"averaging": "softmax"},
        )
        for predicted in (LABELS, [0] * 8)
    )
    file = store_predictions(tmp_path / "p.parquet", plain, changed={"shuffled": changed, "jpeg:30": plain})
    out = " ".join(ask(file, "--confusions", 0)[1].split())
    assert "changed input, against 100 % of the unchanged one" in out
    assert "jpeg:30 100 % 0.00" in out
    assert "of the top-1 is lost when the frames are shuffled" in out
    assert "classes that lose most when shuffled: " in out
    assert "mean corruption error over jpeg: 0 %" in out
    found = asked(file)["changes"]
    assert [effect["change"] for effect in found["effects"]] == ["shuffled", "jpeg:30"]
    lost = found["effects"][0]["difference_points"]["value"]
    assert lost == -100 * np.mean(np.array(LABELS) != 0)
    assert found["lost_without_order_percent"]["value"] == pytest.approx(-lost)


def test_three_models_have_ranks_and_an_ensemble(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], asked: Callable[..., Any], tmp_path: Path
) -> None:
    files = [kept("rgb", RGB), kept("flow", FLOW, top=0.9), kept("all", LABELS)]
    code, out, _ = ask(*files, "--fuse", tmp_path / "all.parquet")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert lines[1].startswith("1–3 100 % (68 to 100) net input=all")
    assert any(line.startswith("0 of 3 pairs of models can be told apart") for line in lines)
    found = asked(*files)
    assert found["models"][0]["model"] == "net input=all"
    assert len(found["pairs"]) == 3
    scores = [read_predictions(file).scores for file in files]
    assert np.allclose(read_predictions(tmp_path / "all.parquet").scores, np.mean(scores, axis=0), atol=1e-6)
    assert found["ensemble"]["top1_percent"] == asked(tmp_path / "all.parquet")["top1_percent"]


def test_a_weight_is_for_two_models_only(kept: Kept, ask: Callable[..., tuple[int, str, str]]) -> None:
    files = [kept(name, RGB) for name in ("a", "b", "c")]
    code, _, err = ask(*files, "--weight", 2)
    assert code == 2
    assert "--weight is for two files of predictions, and 3 are given; all count alike" in " ".join(err.split())


def test_each_class_is_written_as_csv(kept: Kept, ask: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = ask(kept("rgb", RGB), "--per-class", tmp_path / "new" / "classes.csv")
    assert code == 0
    assert f"accuracy by class: {tmp_path / 'new' / 'classes.csv'}" in out
    with (tmp_path / "new" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["videos"], row["right"], row["predicted"]) for row in rows] == [
        ("run", "4", "2", "2"),
        ("sit", "3", "2", "4"),
        ("jump", "1", "1", "2"),
    ]
    assert [(row["most_taken_for"], row["videos_taken_for_it"]) for row in rows] == [
        ("sit", "2"),
        ("jump", "1"),
        ("", "0"),
    ]
    assert [float(row["top1_percent"]) for row in rows] == pytest.approx([50, 200 / 3, 100])
    # Wilson's interval of 2 in 4, by hand: (0.5 + z²/8 ± z sqrt(1/16 + z²/64)) / (1 + z²/4)
    assert [float(rows[0][f"top1_{end}_percent"]) for end in ("low", "high")] == pytest.approx([15.00, 85.00], abs=0.01)


def test_the_confusion_matrix_is_written_as_csv(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = ask(kept("rgb", RGB), "--matrix", tmp_path / "matrix.csv")
    assert code == 0
    assert f"confusion matrix: {tmp_path / 'matrix.csv'}" in out
    assert (tmp_path / "matrix.csv").read_text() == "true class,run,sit,jump\nrun,2,2,0\nsit,0,2,1\njump,0,0,1\n"


@pytest.mark.parametrize(
    "flags",
    [
        *(
            ("--true", "a"),
            ("--predicted", "a"),
            ("--suspects", "labels"),
            ("--suspects", "errors"),
            ("--out", "x.html"),
        ),
        *(("--most", "3"), ("--frames", "6")),
    ],
)
def test_options_of_show_are_refused_without_it(flags, ask, kept):
    code, _, error = ask(kept("rgb", RGB), *flags)
    assert (code, error) == (2, f"vbench: {flags[0]} is for `vbench predictions show FILE`\n")


@pytest.mark.parametrize("flags", [("--fuse", "x.parquet"), ("--weight", "2"), ("--confusions", "3")])
def test_options_of_comparisons_are_refused_with_show(flags, ask, kept):
    code, _, error = ask("show", kept("rgb", RGB), *flags)
    assert (code, error) == (2, f"vbench: {flags[0]} has no use with `show`\n")


def test_a_precision_is_refused_for_several_files(ask, kept):
    code, _, error = ask(kept("rgb", RGB), kept("flow", RGB), "--precision", "95")
    assert (code, error) == (2, "vbench: --precision is for one file of predictions without `show`\n")


@pytest.mark.parametrize("flag", ["--per-class", "--matrix"])
def test_class_files_are_of_one_model(
    kept: Kept, ask: Callable[..., tuple[int, str, str]], tmp_path: Path, flag: str
) -> None:
    for arguments in ([kept("rgb", RGB), kept("flow", FLOW)], ["show", kept("rgb", RGB)]):
        code, out, error = ask(*arguments, flag, tmp_path / "out.csv")
        assert (code, out) == (2, "")
        assert f"{flag} is for one file of predictions" in error
    assert not (tmp_path / "out.csv").exists()


def test_class_files_are_refused_for_several_labels(ask: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    found = Predictions(
        videos=("a",), labels=np.array([[True, True]]), scores=np.eye(2, dtype=np.float32)[[1]], classes=("a", "b"),
        protocol={},
    )  # fmt: skip
    store_predictions(tmp_path / "predictions.parquet", found)
    code, out, error = ask(tmp_path / "predictions.parquet", "--matrix", tmp_path / "matrix.csv")
    assert (code, out) == (2, "")
    assert "confusion matrix is not defined if a video has several labels" in error


def test_a_class_without_a_video_has_no_accuracy_in_csv(
    ask: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    found = Predictions(
        videos=("a",), labels=np.array([1]), scores=np.eye(3, dtype=np.float32)[[1]], classes=("=1", "b", "c"),
        protocol={},
    )  # fmt: skip
    store_predictions(tmp_path / "predictions.parquet", found)
    assert ask(tmp_path / "predictions.parquet", "--per-class", tmp_path / "classes.csv")[0] == 0
    assert (tmp_path / "classes.csv").read_text().split("\n")[1] == "'=1,0,0,,,,0,,0"
