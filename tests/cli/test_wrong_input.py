"""Wrong input of every command is one line on standard error with exit code 2, and the nearest name if there is one."""

from pathlib import Path

import pytest

from bench.cli.app import run_command

SUITE = "suite: speed\nmodels: [c3d_search]\nmeasure: {params: {}, latency: {}}\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with one good suite, an empty file, and a folder of results."""
    monkeypatch.chdir(tmp_path)
    Path("speed.yaml").write_text(SUITE)
    Path("digits.yaml").write_text(SUITE + "matrix: {clip: [16x1x11²]}\n")
    Path("empty.yaml").touch()
    Path("results/demo").mkdir(parents=True)
    Path("results/demo/records.jsonl").touch()
    Path("videos").mkdir()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        # commands and options
        ("prfile c3d", "no such command 'prfile'; did you mean: profile?"),
        ("data vrify ucf101", "no such command 'vrify'; did you mean: verify?"),
        ("profile c3d --inptu 1x3x16x112x112", "no such option: --inptu; did you mean: --input?"),
        ("run", "missing argument 'SUITE'"),
        ("profile c3d --layout BTCWH", "did you mean: BTCHW"),
        ("profile c3d --counters all,foo", "unknown counter 'foo'; allowed: all, fvcore, ptflops, thop, torch"),
        ("run speed.yaml other", "got unexpected extra argument"),
        ("run speed.yaml --out", "option '--out' requires an argument"),
        (
            "run speed.yaml --port many",
            "'--port': should be a valid integer, unable to parse string as an integer, found 'many'",
        ),
        ("run speed.yaml --serve --port -1", "'--port': should be greater than or equal to 0, found '-1'"),
        ("results export results/demo --to cvs", "did you mean: csv?"),
        ("query x --format jsn", "did you mean: json?"),
        ("query select(1) results/demo", "there is no record to query"),
        ("features c3d_search --weights none.pth --dataset motions --split val --out videos", "it is a folder"),
        # suites
        ("plan sped.yaml", "sped.yaml is neither a file nor a suite of vbench; did you mean: speed.yaml"),
        ("plan quikstart", "did you mean: quickstart?"),
        ("plan suites/quickstart.yaml", "did you mean vbench's own suite: quickstart?"),
        ("plan videos", "videos is neither a file nor a suite of vbench"),
        ("plan empty.yaml", "empty.yaml:1:1: a suite is a mapping"),
        ("plan speed.yaml --stale --json", "--stale lists results as text, so --json is not for it"),
        ("plan speed.yaml --stale --executor slurm", "so --executor is not for it"),
        ("run speed.yaml --rerun faild", "did you mean: failed?"),
        ("run speed.yaml --only c3d_serch", "did you mean: c3d_search"),
        ("run speed.yaml --shard 3", "not i/n"),
        ("run speed.yaml --budget soon", "'soon' is not a time"),
        ("run speed.yaml --set epochs=3", "no recipe that 'epochs=3' could change"),
        ("run speed.yaml --executor slrm", "did you mean: slurm"),
        ("run speed.yaml --sink mlflw:x", "did you mean: mlflow"),
        # output folders that are files, or lie below one
        ("plan speed.yaml --out empty.yaml", "--out empty.yaml: empty.yaml is a file, and a folder is needed"),
        ("run speed.yaml --out empty.yaml", "--out empty.yaml: empty.yaml is a file, and a folder is needed"),
        ("run speed.yaml --out empty.yaml/a/b", "--out empty.yaml/a/b: empty.yaml is a file, and a folder is needed"),
        ("ab main . speed.yaml --out empty.yaml", "empty.yaml is a file"),
        ("bisect latency.p50_ms c3d main HEAD --suite speed.yaml --out empty.yaml/a", "empty.yaml is a file"),
        ("train c3d_search --dataset motions --recipe quick --out empty.yaml", "empty.yaml is a file"),
        ("eval c3d_search --dataset motions --weights none.pth --out empty.yaml", "empty.yaml is a file"),
        ("diagnose c3d_search --dataset motions --weights none.pth --out empty.yaml", "it is a file, not a folder"),
        ("data verify motions --split val --root empty.yaml", "root empty.yaml is a file; name the folder"),
        ("data verify stills --split val --root empty.yaml", "root empty.yaml is a file; name the folder"),
        ("data synth new --seed -1", "motions: seed is -1; allowed: 0 to "),
        ("data verify stills --split val --option seed=-1", "stills: seed is -1; allowed: 0 to "),
        ("data verify ucf101 --split test1 --root empty.yaml", "root empty.yaml is a file; name the folder"),
        ("profile c3d --html empty.yaml", "empty.yaml: cannot be written: it is a file, not a folder"),
        ("weights get nothing --out empty.yaml", "empty.yaml is a file"),
        ("data frames videos empty.yaml", "empty.yaml: cannot be written: it is a file, not a folder"),
        ("explain c3d_search vidoes --weights none.pth", "there is no video vidoes; did you mean: videos?"),
        # digits that are no number
        ("plan digits.yaml", "digits.yaml:4:10: clip: clip '16x1x11²' is not 'frames x stride x size'"),
        ("eval c3d_search --dataset motions --weights none.pth --preprocess clip=16x1x11²", "'16x1x11²'"),
        # what `init` is given
        ("init c3d_search video", "video is neither a folder, a list of videos nor a data set of vbench"),
        ("init c3d_search --out videos", "videos exists; name another file with --out"),
        ("init c3d_search --out empty.yaml/suite.yaml", "empty.yaml/suite.yaml cannot be written"),
        ("init c3d_search videos --option videos", "--option 'videos' is not NAME=VALUE"),
        # results
        ("report resuts/demo", "no records.jsonl in resuts/demo; did you mean: results/demo?"),
        ("status results/dmeo", "did you mean: results/demo?"),
        ("compare results/dmeo results/demo", "did you mean: results/demo?"),
        ("results list results/dmeo", "did you mean: results/demo?"),
        ("history latency.p50_ms c3d --from results/dmeo", "did you mean: results/demo?"),
        ("history --folder video", "video is not a folder; did you mean: videos?"),
        ("baseline list --folder video", "video is not a folder; did you mean: videos?"),
        ("predictions results/dmeo", "did you mean: results/demo?"),
        ("compare results/demo results/demo --fail-on regresion", "did you mean: regression?"),
        ("compare results/demo results/demo --gate latency.p50_ms", "is not METRIC=LIMIT"),
        ("compare results/demo results/demo --write verdicts.docx", "the ending selects the format"),
        # the gate
        ("ab main . speed.yaml --gate latency.p50_m=3%", "did you mean: latency.p50_ms"),
        ("bisect latency.p50_m c3d main HEAD --suite speed.yaml", "did you mean: latency.p50_ms"),
        ("bisect energy.j_per_clip c3d main HEAD --suite speed.yaml", "unknown measure 'energy' in speed.yaml"),
        ("bisect latency.p50_ms c3d main HEAD --suite sped.yaml", "did you mean: speed.yaml"),
        # data
        ("data index video", "video is neither a folder nor a data set; did you mean: videos?"),
        ("data index mtions", "did you mean: motions"),
        ("data verify ucf10 --split test1", "did you mean: ucf101?"),
        ("data frames video frames", "did you mean: videos?"),
        # options that need another one
        ("profile c3d --entry ema", "--entry ema is a part of --weights, which is not given"),
        ("predict torchvision:s3d video.mp4 --entry ema", "--entry ema is a part of --weights"),
        ("train c3d_search --dataset motions --recipe quick --entry ema", "--entry ema is a part of --weights"),
        # look-ups
        ("measures show latncy", "did you mean: latency?"),
        ("recipes show quik", "did you mean: quick?"),
        ("suites show dem", "did you mean: demo?"),
        ("help exit-code", "did you mean: exit-codes?"),
        ("models show slowfst_r50", "did you mean: slowfast_r50"),
        ("models --family slowfst", "unknown family 'slowfst'; did you mean: slowfast"),
        ("models --max-gmacs nan", "'--max-gmacs'"),
        ("models --max-gmacs inf", "inf is not a finite number"),
        ("models --max-params -1", "'--max-params'"),
        ("predictions a.parquet --precision nan", "'--precision'"),
        ("diagnose c3d --dataset motions --published nan", "'--published'"),
        ("train c3d --dataset motions --recipe quick --timeout nan", "'--timeout'"),
        ("predict c3d video.mp4 --weights w.pt --top 0", "'--top'"),
    ],
)
def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: str, part: str) -> None:
    code = run_command(arguments.split())
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert shown.err.startswith("vbench: ")
    assert shown.err.count("\n") == 1, shown.err
    assert part in shown.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "train c3d_search --dataset mtions --recipe quick",
            "--dataset: unknown data set 'mtions'; did you mean: motions",
        ),
        ("train c3d_search --dataset motions --recipe quik", "--recipe: unknown recipe 'quik'; did you mean: quick?"),
        (
            "train c3d_serch --dataset motions --recipe quick",
            "MODEL: unknown model 'c3d_serch'; did you mean: c3d_search",
        ),
        ("train c3d_search --dataset motions --recipe quick --clip 16by112", "--clip: "),
        ("train c3d_search --dataset motions --recipe quick --views ten", "--views: "),
        ("train c3d_search --dataset motions --recipe quick --arg kernel_dept=3", "--arg kernel_dept: "),
        ("train c3d_search --dataset motions --recipe quick --ranks 0", "--ranks: "),
        ("train c3d_search --dataset motions --recipe quick --seed -1", "--seed: "),
    ],
)
def test_wrong_values_of_a_training_name_their_option(
    capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert run_command(arguments.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"vbench: {line}")
    assert shown.err.count("\n") == 1, shown.err
