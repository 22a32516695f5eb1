"""Documents keep their word: links lead somewhere, and the examples of CONTRIBUTING.md work as they stand."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.data import data_app
from bench.core.errors import DatasetError
from bench.core.registry import DATASETS, MEASURES, MODELS, SECTIONS

ROOT = Path(__file__).parents[1]
GENERATED = tuple(ROOT / "docs" / name for name in ("reference", "_build", "examples"))
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not any(map(page.is_relative_to, GENERATED))),
]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_data_page_lists_every_command_and_every_option_of_a_data_set() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `vbench data (\w+)", text, re.MULTILINE))
    assert listed == {command.name for command in data_app.registered_commands}
    options = set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE))
    of_files = {d.name: set(d.options) - {"split"} for d in DATASETS if d.name not in ("motions", "stills")}
    assert options == {"flow", "decode"}.union(*of_files.values())


def test_the_suites_page_lists_the_shipped_suites() -> None:
    text = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    shipped = {path.stem for path in (ROOT / "suites").glob("*.yaml")}
    assert set(re.findall(r"^\| \[(\w+)\]\(../suites/", text, re.MULTILINE)) == shipped


def test_the_suites_page_lists_every_measure() -> None:
    text = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8").partition("## Measures")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {measure.name for measure in MEASURES}


def test_suites_named_in_documents_exist() -> None:
    for document in DOCUMENTS:
        for name in re.findall(r"suites/(\w+)\.yaml", document.read_text(encoding="utf-8")):
            assert (ROOT / "suites" / f"{name}.yaml").is_file(), f"{document.name} names suites/{name}.yaml"


def test_no_document_installs_the_other_project_of_this_name() -> None:
    """`vbench` on PyPI is not this project: it is installed from a checkout, and its extras by their own names."""
    told = re.compile(r"pip install (?:[^\n|&;]* )?['\"]?vbench(?!-video)(?![\w./@ -]*@)\b(?!/)")
    sources = [*(ROOT / "bench").rglob("*.py"), *(ROOT / "suites").rglob("*.yaml"), *ROOT.glob("*.yml"), *DOCUMENTS]
    found = [f"{path}: {line}" for path in sources for line in told.findall(path.read_text(encoding="utf-8"))]
    assert not found


@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_demo_without_cuda_falls_back_to_the_default_torch(tmp_path: Path, is_reachable: bool) -> None:
    """With a stand-in for pip, since no test may download torch."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--index-url*) echo cpu >> {tmp_path}/log; exit {0 if is_reachable else 1};; '
        f"*) echo package >> {tmp_path}/log;; esac\n"
    )
    python.chmod(0o755)
    command = ["make", "--silent", f"{tmp_path}/.run", f"VENV={tmp_path}", "CPU=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (tmp_path / "log").read_text().split() == ["cpu", "package"]
    assert ("cannot be reached" in done.stdout) is not is_reachable


def test_cleaning_up_keeps_the_records(tmp_path: Path) -> None:
    """`results/` may hold days of measuring, and git ignores it.

    VENV is said: `make check VENV=…`, which runs these tests, hands its own down, and that one would be removed.
    """
    for name in ("results", ".mypy_cache", "environment"):
        (tmp_path / name).mkdir()
    command = ["make", "--silent", "--file", ROOT / "Makefile", "clean", "VENV=environment"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imports the example of CONTRIBUTING.md that registers `name`, and forgets it afterwards."""
    blocks = FENCE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    monkeypatch.syspath_prepend(str(tmp_path))
    registries = (MODELS, MEASURES, DATASETS, SECTIONS)
    before = [(registry, set(registry._all())) for registry in registries]

    def load(name: str) -> object:
        [block] = [block for block in blocks if f"def {name}(" in block]
        (tmp_path / f"example_{name}.py").write_text(block, encoding="utf-8")
        return __import__(f"example_{name}")

    yield load
    for registry, names in before:
        for name in set(registry._entries) - names:
            del registry._entries[name]
    for module in [module for module in sys.modules if module.startswith("example_")]:
        del sys.modules[module]


def test_the_example_of_a_model_can_be_built_by_name(example: object) -> None:
    import torch

    from bench.models.factory import create_model

    example("tiny3d")  # type: ignore[operator]
    model = create_model("tiny3d_16", num_classes=3)
    assert model(torch.zeros(2, 3, 8, 32, 32)).shape == (2, 3)
    assert model.conv.out_channels == 16


def test_the_example_of_a_measure_measures(example: object, tmp_path: Path) -> None:
    from bench.core.schema import Case, Point
    from bench.measure.context import CaseContext

    example("sparsity")  # type: ignore[operator]
    point = Point(model="c3d_search", clip="16x1x112", args={"width": 0.02})  # type: ignore[arg-type]
    [metric] = MEASURES.get("sparsity").function(
        CaseContext(Case(suite="s", point=point, measures={}), artifacts=tmp_path)
    )
    assert metric.value is not None
    assert 0 <= metric.value < 100
    [spec] = MEASURES.get("sparsity").metrics
    assert (metric.name, metric.unit, metric.better) == (spec.name, spec.unit, spec.better)


def test_the_example_of_a_data_set_is_listed(example: object) -> None:
    example("mine")  # type: ignore[operator]
    assert DATASETS.get("mine").num_classes == 12


def test_the_example_of_a_data_set_speaks_of_itself(
    example: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data.collection import open_dataset

    example("mine")  # type: ignore[operator]
    monkeypatch.setenv("VBENCH_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=rf"(?s)data set mine: .*{tmp_path / 'mine'};.*example.org/mine"):
        open_dataset("mine", split="train")
    (tmp_path / "mine" / "train" / "waving").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "waving" / "a.mp4").write_bytes(b"")
    assert open_dataset("mine", split="train").name == "mine"


def test_the_example_section_is_empty_without_records(example: object) -> None:
    from bench.reporting.results import collect

    module = example("fastest")  # type: ignore[operator]
    assert module.fastest(collect([])) is None


@pytest.mark.parametrize(
    ("benchmark", "values"),
    [
        ("count_against_counters", ["mvit_v2_s | vbench | 0.42 | 8", "mvit_v2_s | fvcore | 5.99 | 407"]),
        ("timer_agreement", ["0.998", "1.006"]),
        ("harness_overhead", ["latency, in a sample | 4.4"]),
        ("loader", ["as they are | 17.2 | 16.6 | 0.96", "JPEG folders | 105.7 | 82.7 | 0.78"]),
        ("reencoded", ["3.79"]),
        ("trainer_overhead", ["wall clock | 136.2 | 0.997 | 0.959 to 1.009"]),
        ("gate_simulation", ["two percent | 1 | 30.2 %", "loud offset | 5 | 0.5 % | 98.2 %"]),
        (
            "ab_noise",
            [
                "1 | 0 | same | e-value, heap kept | 20 | 0 | 0 | 20",
                "1 | 0 | plus 5 % | e-value, heap kept | 5 | 5",
                "1 | 1 | plus 5 % | e-value, heap kept | 5 | 5",
            ],
        ),
    ],
)
def test_values_that_the_explanation_quotes_are_those_of_the_benchmark(benchmark: str, values: list[str]) -> None:
    page = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    table = (ROOT / "benchmarks" / f"{benchmark}.md").read_text(encoding="utf-8")
    assert f"../benchmarks/{benchmark}.md" in page
    for value in values:
        assert value in table, f"{benchmark}.md has changed: update docs/measuring.md and this list"
        assert value.rpartition("| ")[2] in page


def test_the_seconds_that_the_page_of_the_gate_quotes_are_those_of_the_benchmark() -> None:
    lines = (ROOT / "benchmarks" / "ab_noise.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| vbench ab")]
    seconds = {(row[1], row[2], row[3]): row[-2] for row in rows if row[4] == "e-value, heap kept"}
    alone, busy = ([seconds["1", busy, f"plus {change} %"] for change in (50, 10)] for busy in "01")
    ten = [seconds["10", busy, "plus 10 %"] for busy in "01"]
    page = " ".join((ROOT / "docs" / "gate.md").read_text(encoding="utf-8").split())
    assert f"took [{alone[0]} and {alone[1]} seconds]" in page
    assert f", and {busy[0]} and {busy[1]} while another process" in page
    assert f"10 % slower took {ten[0]} and {ten[1]} seconds" in page


def test_the_coverage_that_the_explanation_quotes_is_that_of_the_benchmark() -> None:
    page = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    lines = (ROOT / "benchmarks" / "interval_coverage.md").read_text(encoding="utf-8").split("\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if re.match(r"\| .* \| \d+ \|", line)]
    covered = [float(row[2]) for row in rows]
    dependent = [float(row[3]) for row in rows if row[0] == "AR(1) 0.9, 1 %"]
    assert f"{min(covered)} to {max(covered)} %" in page
    assert f"{min(dependent)} to {max(dependent)} %" in page
    assert f"at most {max(float(row[4]) for row in rows)} %" in page
