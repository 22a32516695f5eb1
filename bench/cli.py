"""The command line: arguments, one call, text, exit code. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli_data import data_app
from bench.cli_gate import ab, baseline_app, compare, history
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.execution.profiling import Profile
    from bench.execution.running import Plan, RunSummary

app = typer.Typer(
    name="vbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmarks and analyses video action-recognition models: what they cost, what they give, how sure that is.",
)
app.add_typer(data_app, name="data")
app.add_typer(baseline_app, name="baseline")
weights_app = typer.Typer(no_args_is_help=True, help="Checkpoint files.")
app.add_typer(weights_app, name="weights")

FAULT, INTERRUPTED = 70, 130
SHARED = ("run", "train", "eval")  # several processes can run these together, under torchrun
# click's UsageError, or that of the copy of click which newer versions of typer carry.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

SuitePath = Annotated[Path, typer.Argument(metavar="SUITE", help="A suite file, such as suites/quickstart.yaml.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Results folder; results/<suite> if not given.")]
Small = Annotated[bool, typer.Option("--small", help="The suite's small form: synthetic data, minutes on a CPU.")]
Ranks = Annotated[int | None, typer.Option(help="Processes that share it, one a GPU; or start vbench with torchrun.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def run(suite: SuitePath, out: OutFolder = None, small: Small = False) -> None:
    """Run what is left of a suite, then write its report."""
    from bench.execution.facts import Facts
    from bench.execution.running import run as run_suite
    from bench.terminal.console import say
    from bench.terminal.runs import LiveRun

    with LiveRun().running() as live:
        summary = run_suite(suite, out=out, small=small, facts=Facts(_plugins(suite)), on_event=live.show)
    for note in summary.notes:
        say(note)
    _say_summary(summary)
    page = _report(summary.folder)
    say(f"report: {page}")
    raise typer.Exit(summary.exit_code)


@app.command()
def plan(suite: SuitePath, out: OutFolder = None, small: Small = False, as_json: AsJson = False) -> None:
    """Show the cases of a suite, what is done, and about how long the rest takes."""
    from bench.execution.running import plan as plan_suite
    from bench.terminal.console import as_json as print_json

    planned = plan_suite(suite, out=out, small=small)
    if as_json:
        print_json(_plan_facts(planned))
    else:
        _show_plan(planned)


@app.command()
def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")],
    shape: Annotated[
        str | None,
        typer.Option("--input", metavar="BxCxTxHxW", help="Input shape, such as 1x3x16x112x112; several by commas."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes; the model's own default if not given.")] = None,
    arg: Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to load.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to count: meta (default), or cpu, cuda.")] = None,
    counters: Annotated[
        str, typer.Option(help="torch, or all, or a list of torch, fvcore, thop, ptflops: who counts.")
    ] = "torch",
    views: Annotated[str, typer.Option(help="Views of one video, temporal x spatial, such as 10x3.")] = "1x1",
    layers: Annotated[bool, typer.Option("--layers", help="Also a table of the model's modules.")] = False,
    speed: Annotated[
        bool, typer.Option("--speed", help="Also measure latency, throughput and memory here, in some 20 seconds.")
    ] = False,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table of modules to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the modules as a page into this folder.")] = None,
) -> None:
    """Count one model: parameters, MACs, memory."""
    from bench.execution.profiling import profile as profile_model
    from bench.terminal.console import as_json as print_json

    found = profile_model(
        model,
        shape,
        num_classes=num_classes,
        arguments=_arguments(arg or []),
        weights=weights,
        device=device,
        counters=_counters(counters),
        views=views,
        with_speed=speed,
    )
    if as_json:
        print_json(found.as_dict(with_layers=layers))
    else:
        from bench.terminal.profiles import show_profile

        show_profile(found, with_layers=layers)
    _write_layers(found, csv=csv, html=html)


@app.command()
def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")],
    dataset: Annotated[str, typer.Option("--dataset", help="A data set from `vbench data list`.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or its file.")],
    clip: Annotated[str | None, typer.Option(help="frames x stride x size, such as 16x1x112.")] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder; $VBENCH_DATA/<name> if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Split, where the data set has several.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several train several networks.")] = None,
    views: Annotated[str, typer.Option(help="Views of one video in the evaluation, temporal x spatial.")] = "1x1",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to start from.")] = None,
    arg: Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")] = None,
    ranks: Ranks = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard, too.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/train"),
) -> None:
    """Train a model by a recipe, evaluate it, keep checkpoint, curves, predictions and the whole protocol."""
    accuracy = {
        "dataset": dataset,
        "recipe": recipe,
        "split": split,
        "seeds": seed or [0],
        "views": views,
        "ranks": ranks,
        "tensorboard": tensorboard or None,
    }
    _run_accuracy("train", model, accuracy, arg=arg, clip=clip, root=root, weights=weights, out=out)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")],
    weights: Annotated[Path, typer.Option("--weights", help="A checkpoint.")],
    dataset: Annotated[str, typer.Option("--dataset", help="A data set from `vbench data list`.")],
    clip: Annotated[str | None, typer.Option(help="frames x stride x size, such as 16x1x112.")] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder; $VBENCH_DATA/<name> if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Split, where the data set has several.")] = None,
    views: Annotated[str, typer.Option(help="Views of one video: 10x3, or 10xfull for whole frames.")] = "1x1",
    arg: Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")] = None,
    ranks: Ranks = None,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/eval"),
) -> None:
    """Evaluate a checkpoint on a data set, with the whole protocol in the record."""
    accuracy = {"dataset": dataset, "split": split, "views": views, "ranks": ranks}
    _run_accuracy("eval", model, accuracy, arg=arg, clip=clip, root=root, weights=weights, out=out)


app.command()(compare)
app.command()(ab)
app.command()(history)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")],
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files or frame folders.")],
    weights: Annotated[Path, typer.Option("--weights", help="A checkpoint.")],
    clip: Annotated[str | None, typer.Option(help="frames x stride x size, such as 16x1x112.")] = None,
    views: Annotated[str, typer.Option(help="Views of one video, temporal x spatial, such as 10x3.")] = "1x1",
    top: Annotated[int, typer.Option(help="How many classes a video.")] = 5,
    classes: Annotated[Path | None, typer.Option(help="A file with one class name a line.")] = None,
    per_view: Annotated[bool, typer.Option("--per-view", help="Also the likeliest class of each view.")] = False,
    arg: Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")] = None,
    as_json: AsJson = False,
) -> None:
    """Name the likeliest classes of videos, with probabilities."""
    from bench.execution.predicting import predict_videos
    from bench.terminal.console import as_json as print_json
    from bench.terminal.predictions import predictions_as_dicts, show_predictions

    found = predict_videos(
        model,
        videos,
        weights=weights,
        clip=clip,
        views=views,
        top=top,
        classes=classes,
        arguments=_arguments(arg or []),
    )
    if as_json:
        print_json(predictions_as_dicts(found))
    else:
        show_predictions(found, per_view=per_view)
    raise typer.Exit(3 if any(prediction.error for prediction in found) else 0)


@app.command()
def features(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")],
    weights: Annotated[Path, typer.Option("--weights", help="A checkpoint.")],
    dataset: Annotated[str, typer.Option("--dataset", help="A data set from `vbench data list`.")],
    split: Annotated[str, typer.Option("--split", help="Its split.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file: one row a video.")],
    clip: Annotated[str | None, typer.Option(help="frames x stride x size, such as 16x1x112.")] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder; $VBENCH_DATA/<name> if not given.")] = None,
    views: Annotated[str, typer.Option(help="Views of one video, temporal x spatial.")] = "1x1",
    arg: Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")] = None,
) -> None:
    """Write the pooled vectors of a data set, for transfer learning."""
    from bench.execution.predicting import features_of_dataset
    from bench.terminal.console import say

    found = features_of_dataset(
        model, dataset, split=split, out=out, weights=weights, clip=clip, root=root, views=views,
        arguments=_arguments(arg or []),
    )  # fmt: skip
    for unread in found.unread:
        say(f"not read: {unread.id}: {unread.reason}")
    say(f"{len(found.videos)} vectors of {found.vectors.shape[1]}: {out}")
    raise typer.Exit(3 if found.unread else 0)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results folders or records files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the site.")] = Path("report"),
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Write an HTML report of stored results."""
    from bench.reporting.site import report as write_report
    from bench.terminal.console import say

    say(f"report: {write_report(results, out=out, title=title)}")


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN|show]", help="A pattern such as 'resnet3d*'.")] = "*",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With show: the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """List models with counted parameters and MACs; `vbench models show NAME` tells all of one."""
    from bench.execution.facts import Facts
    from bench.execution.listing import model_as_dict, model_rows
    from bench.terminal.console import as_json as print_json
    from bench.terminal.models import counting_progress, show_model, show_models

    if pattern == "show" and name is None:
        raise typer.BadParameter("`vbench models show` needs the name of a model")
    wanted = name if pattern == "show" and name is not None else pattern
    with counting_progress() as advance:
        rows = model_rows(wanted, Facts(on_progress=advance))
    if as_json:
        found = [model_as_dict(model, probe) for model, probe in rows]
        print_json(found[0] if pattern == "show" else found)
    elif pattern == "show":
        show_model(*rows[0])
    else:
        show_models(rows)


@app.command()
def doctor(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Also how to quiet the GPU, and what is not allowed here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has, what is missing, and what would disturb a measurement."""
    from bench.execution.doctor import examine
    from bench.terminal.console import as_json as print_json
    from bench.terminal.console import table

    findings = examine(with_gpu=gpu)
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        table(("", "state", "found", "remedy"), [(f.topic, f.state, f.found, f.remedy) for f in findings])
    raise typer.Exit(3 if any(finding.state == "missing" for finding in findings) else 0)


@weights_app.command("inspect")
def weights_inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint: .pth, .pt, .pyth, .safetensors.")],
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint file is, and which model it fits."""
    from bench.models.weights.identification import identify
    from bench.terminal.checkpoints import checkpoint_as_dict, show_checkpoint
    from bench.terminal.console import as_json as print_json

    found = identify(file)
    if as_json:
        print_json(checkpoint_as_dict(found))
    else:
        show_checkpoint(found)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Options of vbench itself."""
    if version:
        import bench

        typer.echo(f"vbench {bench.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the command `vbench`. The user's plug-ins and factories are found from the working folder."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    arguments = sys.argv[1:]
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") != "1" and arguments[:1] and arguments[0] in SHARED
    sys.exit(_shared_exit_code(arguments) if is_one_of_several else _exit_code(arguments))


def _exit_code(arguments: list[str]) -> int:
    """Run one command; every way it can end becomes an exit code and, where it failed, one clear text."""
    return _guarded(lambda: app(args=arguments, prog_name="vbench", standalone_mode=False))


def _shared_exit_code(arguments: list[str]) -> int:
    """The same where torchrun started several of us: the first runs the command, the others lend it their ranks."""
    from bench.execution.crew import together

    return _guarded(lambda: together(lambda: _exit_code(arguments)))


def _guarded(call: Callable[[], Any]) -> int:
    from bench.terminal.console import show_error

    try:
        code = call()
    except BenchError as error:
        show_error(str(error))
        return error.exit_code
    except USAGE_ERROR as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        show_error("stopped; everything finished is kept, and the same command goes on from here")
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # our own fault: the traceback goes to a file, one line to the user
        show_error(f"a fault of vbench itself: {type(error).__name__}: {error}; traceback in {_keep_traceback()}")
        return FAULT
    return code if isinstance(code, int) else 0


def _keep_traceback() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="vbench-fault-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name


def _plugins(suite: Path) -> list[str]:
    from bench.suite import read_suite

    plugins = read_suite(suite).data.get("plugins") or []
    return [name for name in plugins if isinstance(name, str)] if isinstance(plugins, list) else []


def _arguments(given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` options with YAML values: `kernel_depth=3`, `shortcut=A`, `no_max_pool=true`."""
    from io import StringIO

    from ruamel.yaml import YAML

    from bench.errors import InputError

    arguments = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--arg {text!r} is not NAME=VALUE, such as --arg depth=50")
        arguments[name] = YAML(typ="safe").load(StringIO(value))
    return arguments


def _counters(text: str) -> list[str]:
    known = ["torch", "fvcore", "thop", "ptflops"]
    if text == "all":
        return known
    from bench.errors import UnknownNameError

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UnknownNameError("counter", name, [*known, "all"])
    return names


def _write_layers(found: "Profile", *, csv: Path | None, html: Path | None) -> None:
    """The table of modules as a file, and as a page to look at."""
    from csv import DictWriter

    rows = [layer.model_dump() for layer in found.layers]
    if csv is not None:
        with csv.open("w", newline="", encoding="utf-8") as file:
            writer = DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if html is not None:
        from bench.reporting.layer_page import write_layer_page
        from bench.terminal.console import show_note

        inputs = ", ".join("x".join(map(str, shape)) for shape in found.inputs)
        page = write_layer_page(rows, out=html, model=found.model, inputs=inputs, convention=found.convention)
        show_note(f"page: {page}")


def _run_accuracy(
    name: str,
    model: str,
    accuracy: dict[str, Any],
    *,
    arg: list[str] | None,
    clip: str | None,
    root: Path | None,
    weights: Path | None,
    out: Path,
) -> None:
    """Run a suite of one model and one measure, and print what came out."""
    from bench.execution.running import run as run_suite
    from bench.terminal.console import say
    from bench.terminal.runs import LiveRun, show_accuracy
    from bench.yaml_tree import Tree

    axes = {"clip": clip, "weights": None if weights is None else str(weights.absolute())}
    options = {**accuracy, "root": None if root is None else str(root.absolute())}
    suite = {
        "suite": name,
        "models": [{"name": model, **_arguments(arg or []), **_given(axes)}],
        "measure": {"accuracy": _given(options)},
    }
    with LiveRun().running() as live:
        summary = run_suite(Tree.of(suite, name=f"vbench {name}"), out=out, on_event=live.show)
    _say_summary(summary)
    for record in summary.finished:
        show_accuracy(record, folder=summary.folder)
    say(f"report: {_report(summary.folder)}")
    raise typer.Exit(summary.exit_code)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _say_summary(summary: "RunSummary") -> None:
    from bench.terminal.console import first_line, say

    if not summary.finished:
        say(f"{summary.suite}: all {summary.skipped} runs were done before; nothing was measured")
        return
    done = len(summary.finished) - len(summary.failed)
    say(f"{summary.suite}: {done} measured, {len(summary.failed)} failed, {summary.skipped} were done before")
    for record in summary.failed:
        why = f"{record.error.type}: {first_line(record.error.message)}" if record.error else ""
        say(f"  {record.status}: {record.case.title}: {why}\n    log: {summary.folder / record.artifacts['log']}")


def _report(folder: Path) -> Path:
    from bench.reporting.site import report as write_report

    return write_report(folder, out=folder / "report")


def _plan_facts(planned: "Plan") -> dict[str, Any]:
    pending = planned.pending
    left = {(case.id, index) for case, index in pending}
    return {
        "suite": planned.suite.name,
        "out": str(planned.store.folder),
        "runs": sum(case.runs for case in planned.suite.cases),
        "left": len(pending),
        "estimate_s": round(planned.estimate_s(pending), 1),
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "measures": list(case.measures),
                "runs": case.runs,
                "left": sum((case.id, index) in left for index in range(case.runs)),
                "point": case.point.model_dump(mode="json", exclude_none=True),
            }
            for case in planned.suite.cases
        ],
    }


def _show_plan(planned: "Plan") -> None:
    from bench.terminal.console import duration, say, table

    facts = _plan_facts(planned)
    rows = [
        (c["id"], c["title"], ", ".join(c["measures"]), f"{c['runs'] - c['left']}/{c['runs']}") for c in facts["cases"]
    ]
    table(("case", "point", "measures", "done"), rows, right=("done",))
    left = f"about {duration(facts['estimate_s'])} for the rest" if facts["left"] else "nothing is left to run"
    say(f"{facts['suite']}: {len(rows)} cases, {facts['runs'] - facts['left']} of {facts['runs']} runs done; {left}")


if __name__ == "__main__":
    main()
