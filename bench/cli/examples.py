"""Examples of every command, which `--help` prints below its options."""

from collections.abc import Iterator
from typing import Any

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "profile": (
        "profile c3d --input 1x3x16x112x112",
        "profile c3d x3d_m torchvision:mvit_v2_s --sort macs --format md",
        "profile my_models:small --layers --counters all",
    ),
    "init": (
        "init my_models.py:small /data/mine",
        "init resnet3d_18 lists/all.csv --out mine.yaml",
        "init torchvision:r3d_18",
    ),
    "run": (
        "run suites/quickstart.yaml",
        "run suites/kinetics700.yaml --small --out results/k700",
        "run suites/quickstart.yaml --rerun failed --devices cpu,cpu --serve",
    ),
    "plan": (
        "plan suites/quickstart.yaml",
        "plan suites/quickstart.yaml --why",
        "plan suites/kinetics700.yaml --stale --out results/k700",
        "plan suites/kinetics700.yaml --executor slurm --gres gpu:1 --max-jobs 8",
    ),
    "status": (
        "status results/quickstart",
        "status /shared/k700 --json",
        "status .",
    ),
    "report": (
        "report results/quickstart",
        "report results/monday results/tuesday --out site --title 'Two days'",
        "report results/quickstart --serve --port 8000",
        "report results/quickstart --with-frames --out site",
    ),
    "train": (
        "train c3d --dataset ucf101 --root videos/ucf101 --recipe c3d_search --split 1",
        "train resnet3d_50 --dataset folder --root videos --recipe quick --seed 0 --seed 1",
        "train x3d_m --dataset folder --root videos --recipe quick --weights weights/x3d_m.pyth --ranks 2",
    ),
    "eval": (
        "eval slowfast_r50 --dataset kinetics400 --split val --weights weights/slowfast.pyth --views 10x3",
        "eval torchvision:r3d_18 --dataset folder --root videos --labels classes.txt",
        "eval c3d --dataset ucf101 --split 1 --weights weights/c3d.pt --preprocess channels=bgr,scale=255",
        "eval c3d --dataset ucf101 --split 1 --weights weights/c3d.pt --change reversed,single_frame,jpeg:all",
    ),
    "predict": (
        "predict slowfast_r50 video.mp4 --weights weights/slowfast.pyth --labels classes.txt",
        "predict torchvision:r3d_18 video.mp4 --views 10x3 --per-view",
        "predict c3d frames/video_1 --weights weights/c3d.pt --top 1 --json",
    ),
    "predictions": (
        "predictions results/eval",
        "predictions rgb/predictions.parquet flow/predictions.parquet",
        "predictions rgb/predictions.parquet flow/predictions.parquet --weight 1.5 --fuse both.parquet",
        "predictions a.parquet b.parquet c.parquet --fuse ensemble.parquet",
        "predictions results/eval --per-class classes.csv --matrix confusion.csv",
        "predictions show results/eval --true 'long jump' --predicted 'high jump' --root videos --out jumps.html",
    ),
    "diagnose": (
        "diagnose c3d --dataset ucf101 --split 1 --weights weights/c3d.pt --published 82.3",
        "diagnose slowfast_r50 --dataset kinetics400 --weights weights/slowfast.pyth --videos 400 --budget 1h",
        "diagnose resnet3d_50 --dataset folder --root videos --weights k700.pth --labels classes.txt --json",
    ),
    "explain": (
        "explain slowfast_r50 video.mp4 --weights weights/slowfast.pyth --labels classes.txt",
        "explain c3d frames/video_1 --weights weights/c3d.pt --out explained/video_1.html",
        "explain torchvision:r3d_18 video.mp4 --class archery --json",
    ),
    "features": (
        "features slowfast_r50 --weights slowfast.pyth --dataset folder --root videos --split train --out f.parquet",
        "features c3d --weights weights/c3d.pt --dataset ucf101 --split test1 --out features.parquet --views 10x1",
        "features x3d_m --weights weights/x3d_m.pyth --dataset kinetics400 --split val --out f.parquet --clip 16x5x224",
    ),
    "compare": (
        "compare results/main results/head",
        "compare baseline:main results/head --gate latency.p50_ms=5% --markdown",
        "compare git:v1.0 results/head --fail-on regression --junit compare.xml",
    ),
    "ab": (
        "ab main . suites/quickstart.yaml",
        "ab v1.0 HEAD suites/quickstart.yaml --budget 30m --gate latency.p50_ms=3%",
        "ab model:c3d model:resnet3d_50 suites/ucf101_c3d.yaml --counts",
    ),
    "baseline save": (
        "baseline save results/head",
        "baseline save results/head --branch main",
        "baseline save results/head --whole",
    ),
    "baseline list": ("baseline list", "baseline list --json", "baseline list --folder ../project"),
    "baseline promote": (
        "baseline promote feature main",
        "baseline promote feature main --whole",
        "baseline promote feature main --folder ../project",
    ),
    "history": (
        "history latency.p50_ms c3d",
        "history --branch main --html alarms.html",
        "history latency.p50_ms '*bf16*' --from results/monday --from results/tuesday",
    ),
    "bisect": (
        "bisect latency.p50_ms c3d v1.0 main --suite suites/gpu.yaml",
        "bisect macs.forward 'c3d*' HEAD~20 HEAD --suite suites/quickstart.yaml --limit 0",
        "bisect throughput.clips_per_s c3d v1.0 main --suite suites/gpu.yaml --budget 10m --out results/slow",
    ),
    "models": ("models 'mvit*'", "models --max-gmacs 10 --year 2019-", "models show slowfast_r50"),
    "query": (
        "query 'select * from records limit 1'",
        "query \"select title, value from metrics where metric = 'latency.p50_ms' order by value\" results/quickstart",
        "query 'select status, count(*) from records group by status' results/k700 --format csv",
    ),
    "help": ("help exit-codes", "help words", "help own-model"),
    "doctor": ("doctor", "doctor --gpu", "doctor --json"),
    "weights inspect": (
        "weights inspect weights/slowfast.pyth",
        "weights inspect checkpoint.pth --entry state_dict_ema",
        "weights inspect checkpoint.pth --json",
    ),
    "weights export": (
        "weights export weights/last.pt --to 3d-resnets",
        "weights export weights/last.pt --to torchvision --out r3d_18.pth",
        "weights export checkpoint.pth --to safetensors --entry state_dict_ema",
    ),
    "weights find": ("weights find slowfast_r50", "weights find '*kinetics*'", "weights find x3d_m --json"),
    "weights get": (
        "weights get pytorchvideo/x3d_m",
        "weights get pytorchvideo/x3d_m --out checkpoints",
        "weights get pytorchvideo/x3d_m --from https://mirror.example.org/X3D_M.pyth",
    ),
    "data list": ("data list", "data list --json", "data list > datasets.txt"),
    "data index": (
        "data index videos",
        "data index ucf101 --root videos/ucf101 --workers 8",
        "data index videos --again",
    ),
    "data verify": (
        "data verify ucf101 --split test1",
        "data verify kinetics400 --split val --root videos/k400",
        "data verify ucf101 --split test1 --json",
    ),
    "data frames": (
        "data frames videos frames",
        "data frames videos frames --short-side 128 --workers 8",
        "data frames videos frames --quality 30",
    ),
    "data reencode": (
        "data reencode videos fast",
        "data reencode videos fast --short-side 256",
        "data reencode videos fast --workers 8",
    ),
    "data flow": (
        "data flow videos flow",
        "data flow videos flow --method tvl1 --short-side 256",
        "data flow videos flow --form npz --workers 8",
    ),
    "data shard": (
        "data shard ucf101 shards --split train1",
        "data shard folder shards --root videos --split train --workers 8",
        "data shard kinetics400 shards --split val --root videos/k400",
    ),
    "data annotate": (
        "data annotate ucf101 ucf101_01.json",
        "data annotate folder mine.json --root videos --split train --split val",
        "data annotate mine.json lists",
    ),
    "data synth": ("data synth motions", "data synth motions --seed 1", "data synth motions --clips-per-class 24"),
    "data bench": (
        "data bench folder --root videos",
        "data bench ucf101 --split train1 --clip 16x1x112 --wanted 200",
        "data bench kinetics400 --split val --root videos/k400 --clip 32x2x224",
    ),
    "suites list": ("suites list", "suites list --json", "suites list > suites.txt"),
    "suites show": ("suites show quickstart", "suites show kinetics700", "suites show quickstart > mine.yaml"),
    "recipes list": ("recipes list", "recipes list --json", "recipes list > recipes.txt"),
    "recipes show": ("recipes show quick", "recipes show c3d_search", "recipes show quick > mine.yaml"),
    "measures list": ("measures list", "measures list --json", "measures list > measures.txt"),
    "measures show": ("measures show latency", "measures show accuracy", "measures show throughput --json"),
    "results list": (
        "results list results/quickstart",
        "results list results/*",
        "results list results/quickstart --json",
    ),
    "results show": (
        "results show results/quickstart",
        "results show results/quickstart --case 3f2a",
        "results show results/quickstart --case 3f2a --run 0",
    ),
    "results export": (
        "results export results/quickstart",
        "results export results/quickstart --to latex --out table.tex",
        "results export results/monday results/tuesday --to parquet --out both.parquet",
    ),
    "results merge": (
        "results merge results/node1 results/node2 --out results/both",
        "results merge results/node* --out results/all",
        "results merge results/shard-1 results/shard-2 results/shard-3 --out results/k700",
    ),
    "results prune": (
        "results prune results/quickstart --dry-run",
        "results prune results/quickstart",
        "results prune results/k700",
    ),
    "results repair": (
        "results repair results/quickstart",
        "results repair results/*",
        "results repair old/records.jsonl",
    ),
    "results scrub": (
        "results scrub results/quickstart --dry-run",
        "results scrub results/quickstart",
        "results scrub results/k700",
    ),
}


def add_examples(app: typer.Typer) -> None:
    """Let the help of every command of `app` end with its examples."""
    for name, command in _commands(app):
        if name in EXAMPLES:
            command.epilog = "\n".join(["Examples:", *(f"  vbench {example}" for example in EXAMPLES[name])])


def _commands(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield command.name or command.callback.__name__, command
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for name, command in _commands(group.typer_instance):
            yield f"{group.name or group.typer_instance.info.name} {name}", command
