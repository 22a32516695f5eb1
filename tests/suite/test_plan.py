"""YAML to cases: what multiplies, what shares a case, and every mistake with its place in the file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

from bench.core.errors import SuiteError, UnknownNameError
from bench.core.input_protocol import InputProtocol
from bench.core.registry import MEASURES, DatasetEntry, MeasureEntry
from bench.core.schema import Clip, CompileMode, Frozen, Metric, ModelCheck, ModelInfo, Point
from bench.suite import Suite, plan_suite, read_suite, write_json_schema

COUNTS = frozenset({"model", "args", "clip"})
TIMES = COUNTS | {"precision", "memory_format", "compile", "device", "threads", "batch"}
LEARNS = COUNTS | {"weights", "entry", "dataset", "split", "recipe", "seed", "views", "preprocess"}


def macs(case: object, *, backward: bool = False) -> list[Metric]:
    return []


class Space(Frozen):
    """What a search may try."""

    compile: tuple[CompileMode, ...] | None = None


def throughput(
    case: object, *, batch: int | list[int] | None = None, search: Literal["best"] | Space | None = None
) -> list[Metric]:
    return []


def accuracy(
    case: object, *, options: dict[str, object] | None = None, ranks: int | None = None, nodes: int | None = None
) -> list[Metric]:
    return []


def motions(root: object, *, split: str) -> None:
    return None


class FakeCatalog:
    """Two models, three measures, one data set; a clip under 8 pixels does not fit."""

    measures: Mapping[str, MeasureEntry] = {
        name: MeasureEntry(name=name, function=function, depends_on=axes, version=1, is_timed=name == "throughput")
        for name, function, axes in (
            ("macs", macs, COUNTS),
            ("throughput", throughput, TIMES),
            ("accuracy", accuracy, LEARNS),
        )
    }
    datasets: Mapping[str, DatasetEntry] = {
        "motions": DatasetEntry(
            name="motions", function=motions, num_classes=8, splits=("train", "val"), described_at=""
        )
    }
    known: Mapping[str, dict[str, object]] = {
        "c3d_search": {"num_classes": 101, "kernel_depth": 3, "width": 1.0},
        "resnet3d": {"num_classes": 700, "depth": 50},
    }

    def model(self, name: str) -> ModelInfo:
        if name not in self.known and ":" not in name:
            raise UnknownNameError("model", name, self.known)
        arguments = self.known.get(name, {})
        return ModelInfo(name=name, family=name, clip=Clip.model_validate("16x1x112"), arguments=arguments)  # type: ignore[arg-type]

    def look_up(self, names: Sequence[str]) -> None:
        return None

    def weights_protocol(self, weights: str, entry: str | None) -> InputProtocol:
        return InputProtocol.of({"clip": "8x2"} if weights == "stored.pt" else {}, mark="stored")

    def check_models(self, points: Sequence[Point]) -> list[ModelCheck]:
        return [ModelCheck(problem="too small" if point.clip.height < 8 else None) for point in points]


def planned(tmp_path: Path, text: str, *, small: bool = False) -> Suite:
    file = tmp_path / "s.yaml"
    file.write_text(text, encoding="utf-8")
    return plan_suite(read_suite(file, small=small), FakeCatalog())


def problems(tmp_path: Path, text: str) -> list[str]:
    """`line:column: message` of each problem."""
    with pytest.raises(SuiteError) as caught:
        planned(tmp_path, text)
    return [f"{p.line}:{p.column}: {p.message}" for p in caught.value.problems]


def told(tmp_path: Path, text: str) -> list[str]:
    """The lines of the error of a suite in `suite.yaml`."""
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        plan_suite(read_suite(tmp_path / "suite.yaml"), FakeCatalog())
    return str(caught.value).split("\n")


FULL = """\
suite: s
models:
  - {name: c3d_search, kernel_depth: [1, 3]}
  - resnet3d
matrix:
  clip: [16x1x112, 8x2x56]
  precision: [fp32, bf16]
measure:
  macs: {}
  throughput: {batch: [1, 8]}
  accuracy: {dataset: motions, recipe: quick, seeds: [0, 1, 2]}
"""


def test_axes_multiply_and_a_measure_sees_only_its_own(tmp_path: Path) -> None:
    """3 models x 2 clips: 6 counts, 12 timings (two precisions), 18 trainings (three seeds)."""
    cases = planned(tmp_path, FULL).cases
    by_measure = {name: [c for c in cases if name in c.measures] for name in ("macs", "throughput", "accuracy")}
    assert {name: len(found) for name, found in by_measure.items()} == {"macs": 6, "throughput": 12, "accuracy": 18}
    assert all(case.point.precision is None for case in by_measure["accuracy"])
    assert {case.point.seed for case in by_measure["accuracy"]} == {0, 1, 2}
    assert by_measure["throughput"][0].measures["throughput"] == {"batch": [1, 8]}
    assert len({case.id for case in cases}) == len(cases)


def test_measures_that_share_a_point_share_a_case(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}, throughput: {}}\n"
    with_precision = "suite: s\nmodels: [resnet3d]\nmatrix: {precision: [fp32]}\nmeasure: {macs: {}, throughput: {}}\n"
    assert [list(c.measures) for c in planned(tmp_path, text).cases] == [["macs"], ["throughput"]]
    assert [c.id for c in planned(tmp_path, text).cases] == [c.id for c in planned(tmp_path, with_precision).cases]


def test_ids_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    one = "suite: s\nmodels: [{name: c3d_search, width: 0.5, kernel_depth: 1}]\nmeasure: {macs: {}}\n"
    two = "suite: s\nmodels: [{kernel_depth: 1, name: c3d_search, width: 0.5}]\nmeasure: {macs: {}}\n"
    assert [c.id for c in planned(tmp_path, one).cases] == [c.id for c in planned(tmp_path, two).cases]


def test_a_limit_that_is_not_a_mapping_is_explained_in_yaml_terms(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"gate\.macs\.total: input should be a mapping, found 0"):
        planned(tmp_path, "suite: s\nmodels: [c3d]\nmeasure: {macs: {}}\ngate: {macs.total: 0}\n")


@pytest.mark.parametrize(("written", "read"), [("0", "0"), ("1234567", "1234567"), ("0.5", "0.5"), ("3%", "3%")])
def test_a_limit_without_a_unit_needs_no_quotes(tmp_path: Path, written: str, read: str) -> None:
    text = f"suite: s\nmodels: [c3d_search]\nmeasure: {{macs: {{}}}}\ngate: {{macs.total: {{max_rise: {written}}}}}\n"
    assert planned(tmp_path, text).gate["macs.total"].max_rise == read
    for wrong in ("true", "[1]", "-1", ".nan"):
        with pytest.raises(SuiteError, match=r"s\.yaml:4:\d+: gate\.macs\.total\.max_rise"):
            planned(tmp_path, text.replace(f"max_rise: {written}", f"max_rise: {wrong}"))


def test_repeat_is_five_with_a_gate_and_only_for_timed_cases(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}, throughput: {}}\n"
    assert [c.runs for c in planned(tmp_path, text).cases] == [1, 1]
    gated = text + "gate: {throughput.clips_per_s: {max_drop: 3%}}\n"
    assert [c.runs for c in planned(tmp_path, gated).cases] == [1, 5]
    assert [c.runs for c in planned(tmp_path, gated + "repeat: 7\n").cases] == [1, 7]


def test_energy_and_memory_of_their_own_case_are_repeated_too(tmp_path: Path) -> None:
    catalog = FakeCatalog()
    catalog.measures = {entry.name: entry for entry in MEASURES}
    (tmp_path / "s.yaml").write_text(
        "suite: s\nmodels: [resnet3d]\nrepeat: 4\nmatrix: {precision: [fp32, bf16]}\n"
        "measure: {energy: {batch: 8}, memory: {}, macs: {}}\n"
    )
    cases = plan_suite(read_suite(tmp_path / "s.yaml"), catalog).cases
    assert {(*case.measures, case.runs) for case in cases} == {("energy", 4), ("memory", 4), ("macs", 1)}


def test_exclude_drops_and_include_adds_points(tmp_path: Path) -> None:
    text = """\
suite: s
models: [{name: c3d_search, kernel_depth: [1, 3]}]
matrix:
  precision: [fp32, bf16]
  exclude: [{precision: bf16, kernel_depth: 1}]
  include: [{precision: fp16, kernel_depth: 7}]
measure: {throughput: {}}
"""
    found = {(c.point.args["kernel_depth"], c.point.precision) for c in planned(tmp_path, text).cases}
    assert found == {(1, "fp32"), (3, "fp32"), (3, "bf16"), (7, "fp16")}


RULES = """\
suite: s
models: [{name: c3d_search, kernel_depth: [1, 3]}]
matrix:
  precision: [fp32, bf16]
  RULE
measure:
  throughput: {}
  accuracy: {dataset: motions, recipe: quick, seeds: [0, 1]}
"""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exclude: [{precison: bf16}]", "5:14: unknown axis 'precison'; did you mean: precision?"),
        ("exclude: [{precision: bf61}]", "5:14: precision: input should be 'fp32', 'tf32'"),
        ("exclude: [bf16]", "5:13: exclude is a list of mappings, such as [{precision: bf16}], found 'bf16'"),
        ("exclude: [{}]", "5:13: exclude is a list of mappings"),
        ("include: [bf16]", "5:13: include is a list of mappings"),
        (
            "include: [{model: c3dd_search}]",
            "5:14: 'c3dd_search' is not a model of this suite; did you mean: c3d_search?",
        ),
        ("include: [{model: resnet3d}]", "5:14: 'resnet3d' is not a model of this suite; allowed: c3d_search"),
        ("include: [{model: [c3d_search]}]", "5:14: ['c3d_search'] is not a model of this suite"),
        ("include: [{kernel_depht: 5}]", "5:14: unknown axis 'kernel_depht'; did you mean: kernel_depth?"),
        ("include: [{clip: 16x1}]", "5:14: clip: clip '16x1' is not"),
        ("exclude: [{kernel_depth: 5}]", "5:13: this rule excludes nothing: no point of the suite has these values"),
        ("exclude: [{model: resnet3d, precision: bf16}]", "5:14: 'resnet3d' is not a model of this suite"),
        ("exclude: [{precision: tf32}, {seed: 1}]", "5:13: this rule excludes nothing"),
        ("exclude: [{model: c3d_search}]", "5:3: exclude leaves no case of this suite"),
        ("batch: []", "5:3: batch is an empty list; give it a value, or leave it out"),
        ("batch: []\n  include: [{kernel_depth: 5}]", "5:3: batch is an empty list"),
        ("seed: [0]\n  seeds: [1]", "6:3: seeds and seed are one axis; write one of them"),
    ],
)
def test_a_rule_or_an_axis_that_would_lose_work_is_a_mistake(tmp_path: Path, rule: str, expected: str) -> None:
    [problem] = problems(tmp_path, RULES.replace("RULE", rule))
    assert problem.startswith(expected)


def test_a_small_form_may_have_no_point_that_a_rule_excludes(tmp_path: Path) -> None:
    text = RULES.replace("RULE", "exclude: [{precision: bf16, kernel_depth: 1}, {model: c3d_search, precision: bf16}]")
    text += "small: {matrix: {precision: [fp32]}, models: [resnet3d]}\n"
    assert planned(tmp_path, text).cases
    small = plan_suite(read_suite(tmp_path / "s.yaml", small=True), FakeCatalog())
    assert {case.point.precision for case in small.cases if "throughput" in case.measures} == {"fp32"}


def test_empty_lists_of_a_model_and_of_a_measure_are_mistakes(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [{name: resnet3d, depth: []}]\nmeasure: {macs: {}}\n"
    assert problems(tmp_path, text) == ["2:27: depth is an empty list; give it a value, or leave it out"]
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}, accuracy: {dataset: motions, seeds: []}}\n"
    assert problems(tmp_path, text) == ["3:50: seeds is an empty list; give it a value, or leave it out"]


@pytest.mark.parametrize(
    ("rule", "timed", "trained"),
    [
        ("{seed: 1}", 4, 2),  # an axis inside a measure
        ("{seeds: 1, kernel_depth: 3}", 4, 3),
        ("{clip: 16x1x112, kernel_depth: 3}", 2, 2),  # the model's own clip
        ("{clip: {frames: 16, stride: 1, size: 112}, kernel_depth: 3}", 2, 2),
        ("{memory_format: contiguous, precision: bf16}", 2, 4),  # what a suite need not say
        ("{width: 1.0, kernel_depth: 1}", 2, 2),  # an argument's default
        ("{precision: bf16, model: c3d_search}", 2, 4),
    ],
)
def test_exclude_names_points_by_whatever_is_true_of_them(tmp_path: Path, rule: str, timed: int, trained: int) -> None:
    """Of four timings (two depths, two precisions) and four trainings (two depths, two seeds)."""
    cases = planned(tmp_path, RULES.replace("RULE", f"exclude: [{rule}]")).cases
    assert sum("throughput" in case.measures for case in cases) == timed
    assert sum("accuracy" in case.measures for case in cases) == trained


def test_include_adds_to_the_models_that_take_it(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [c3d_search, resnet3d]\nmatrix: {include: [{depth: 10}, {clip: 8x1x32}]}\nmeasure: {macs: {}}\n"
    found = [(c.point.model, c.point.args, c.point.clip.frames) for c in planned(tmp_path, text).cases]
    assert found == [
        ("c3d_search", {}, 16), ("c3d_search", {}, 8), ("resnet3d", {}, 16), ("resnet3d", {"depth": 10}, 16),
        ("resnet3d", {}, 8),
    ]  # fmt: skip


def test_a_wrong_value_is_reported_with_its_position(tmp_path: Path) -> None:
    """On the model, in the measure or in the matrix, whichever gave it."""
    text = "suite: s\nmodels: [{name: resnet3d, precision: bf61}]\nmatrix: {precision: [fp32]}\nmeasure: {throughput: {}}\n"
    assert problems(tmp_path, text)[0].startswith("2:27: precision:")
    text = "suite: s\nmodels: [resnet3d]\nmatrix: {precision: [fp32]}\nmeasure: {throughput: {precision: bf61}}\n"
    assert problems(tmp_path, text)[0].startswith("4:24: precision:")


def test_ranks_that_nodes_cannot_share_evenly_are_reported_at_the_nodes(tmp_path: Path) -> None:
    shared = FULL.replace("recipe: quick,", "recipe: quick, ranks: 8, nodes: 2,")
    assert {case.measures["accuracy"]["nodes"] for case in planned(tmp_path, shared).cases if case.point.recipe} == {2}
    message = "nodes: 8 ranks, those of all nodes, cannot be divided evenly among 3 nodes"
    assert problems(tmp_path, shared.replace("nodes: 2", "nodes: 3")) == [f"11:57: {message}"]


def test_an_argument_of_a_model_can_be_an_axis_of_the_matrix(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [c3d_search, resnet3d]\nmatrix: {depth: [10, 18]}\nmeasure: {macs: {}}\n"
    found = [(c.point.model, c.point.args) for c in planned(tmp_path, text).cases]
    assert found == [("c3d_search", {}), ("resnet3d", {"depth": 10}), ("resnet3d", {"depth": 18})]


@pytest.mark.parametrize(
    "rule", ["{precison: bf16}", "{precision: bf61}", "{batch: 0}", "{precision: bf16, model: i3d}"]
)
def test_rules_of_a_file_that_extends_another_are_held_as_strictly_as_any(tmp_path: Path, rule: str) -> None:
    """Otherwise a slip of the pen measures for hours what should have been left out."""
    (tmp_path / "base.yaml").write_text("suite: b\nmodels: [resnet3d]\nmeasure: {throughput: {batch: [1]}}\n")
    text = f"extends: [base.yaml]\nsuite: s\nmatrix: {{precision: [fp32, bf16], exclude: [{rule}]}}\n"
    with pytest.raises(SuiteError, match=r"s\.yaml:3:"):
        planned(tmp_path, text)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{model: resnet3d, depth: 18}", None),
        ("{precision: bf16, kernel_depth: 3}", None),
        ("{precision: bf61}", "precision"),
    ],
)
def test_rules_of_an_extended_file_may_name_overridden_keys(tmp_path: Path, rule: str, message: str | None) -> None:
    base = f"suite: b\nmodels: [resnet3d]\nmatrix: {{exclude: [{rule}]}}\nmeasure: {{throughput: {{batch: [1]}}}}\n"
    (tmp_path / "base.yaml").write_text(base)
    text = "extends: [base.yaml]\nsuite: s\nmodels: [c3d_search]\nmatrix: {precision: [fp32]}\n"
    if message is None:
        assert len(planned(tmp_path, text).cases) == 1
    else:
        with pytest.raises(SuiteError, match=rf"base\.yaml:3:\d+: {message}"):
            planned(tmp_path, text)


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "suite: base\nmodels: [resnet3d]\nmatrix: {precision: [fp32, bf16]}\nmeasure: {throughput: {batch: [1]}}\n"
    )
    text = "extends: [base.yaml]\nsuite: s\nmatrix: {precision: [tf32]}\nmeasure: {macs: {}}\n"
    cases = planned(tmp_path, text).cases
    assert [(list(c.measures), c.point.precision) for c in cases] == [(["throughput"], "tf32"), (["macs"], None)]


def test_small_lays_its_block_over_the_suite(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}}\nsmall: {models: [{name: resnet3d, depth: 10}]}\n"
    assert planned(tmp_path, text).cases[0].point.args == {}
    assert planned(tmp_path, text, small=True).cases[0].point.args == {"depth": 10}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("suite: s\nmodels: [c3dd_search]\nmeasure: {macs: {}}\n", ["2:10: unknown model 'c3dd_search'; did you mean: c3d_search?"]),
        (
            "suite: s\nmodels: [resnet3d]\nrenamed: {resnet3: old}\nmeasure: {macs: {}}\n",
            ["3:11: renamed: this suite has no model 'resnet3'; did you mean: resnet3d?"],
        ),
        ("suite: s\nmodels: [resnet3d]\nmeasure: {mac: {}}\n", ["3:11: unknown measure 'mac'; did you mean: macs?"]),
        ("suite: s\nmodel: [resnet3d]\nmeasure: {macs: {}}\n", ["1:1: the key 'models' is missing", "2:1: unknown key 'model'; did you mean: models?"]),
        ("suite: s\nmodels: [{name: resnet3d, dept: 50}]\nmeasure: {macs: {}}\n", ["2:27: resnet3d takes no argument 'dept'; did you mean: depth?"]),
        ("suite: s\nmodels: [resnet3d]\nmatrix: {precisoin: [fp32]}\nmeasure: {macs: {}}\n", ["3:10: unknown axis 'precisoin'; did you mean: precision?"]),
        ("suite: s\nmodels: [resnet3d]\nmatrix: {clip: [4x1x4]}\nmeasure: {macs: {}}\n", ["2:10: resnet3d: too small"]),
        ("suite: s\nsuite: t\n", ['2:1: found duplicate key "suite" with value "t" (original value: "s")']),
        ("suite: [s\n", None),
        ("suite: s\nmodels: [resnet3d]\nmeasure: {throughput: {batches: [1]}}\n", ["3:24: throughput has no option 'batches'; did you mean: batch?"]),
        ("suite: s\nmodels: [resnet3d]\nmeasure: {accuracy: {dataset: motion}}\n", ["3:22: unknown data set 'motion'; did you mean: motions?"]),
        ("suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}}\nablate: {baseline: {}, factors: [kernel_dept]}\n", None),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: list[str] | None) -> None:
    found = problems(tmp_path, text)
    if expected is not None:
        assert found == expected
    assert all(found)


def test_weights_do_not_add_models_to_count(tmp_path: Path) -> None:
    text = """\
suite: s
models: [{name: "mine:net", backbone_weights: [null, w.pth], width: 2}]
measure: {macs: {}, accuracy: {dataset: motions}}
"""
    cases = planned(tmp_path, text).cases
    assert [c.point.args for c in cases if "macs" in c.measures] == [{"width": 2}]
    assert [c.point.args.get("backbone_weights") for c in cases if "accuracy" in c.measures] == [None, "w.pth"]


@pytest.mark.parametrize(
    ("given", "clip"),
    [
        ("", "16x1x112"),
        (", weights: stored.pt", "8x2x112"),
        (", weights: other.pt", "16x1x112"),
        (", weights: stored.pt, clip: 4x1x64", "4x1x64"),
        (", weights: stored.pt, preprocess: {clip: 2x1, crop: 56}", "2x1x56"),
        (", weights: 'trained:motions/quick'", "16x1x112"),
    ],
)
def test_a_suite_without_a_clip_takes_the_one_that_the_weights_were_trained_on(
    tmp_path: Path, given: str, clip: str
) -> None:
    text = f"suite: s\nmodels: [{{name: resnet3d{given}}}]\nmeasure: {{macs: {{}}, accuracy: {{dataset: motions}}}}\n"
    assert {str(case.point.clip) for case in planned(tmp_path, text).cases} == {clip}


def test_an_entry_names_weights_within_a_file(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [{name: resnet3d, weights: w.pth, entry: [ema, state_dict]}]\nmeasure: {accuracy: {dataset: motions}}\n"
    assert [case.point.entry for case in planned(tmp_path, text).cases] == ["ema", "state_dict"]
    told = problems(tmp_path, text.replace("weights: w.pth, ", ""))
    assert "2:27: entry 'ema' names weights within a file; give that file as `weights`" in told[0]


def test_weights_that_are_trained_first_name_a_data_set_that_there_is(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [{name: resnet3d, weights: 'trained:motoins/quick'}]\nmeasure: {accuracy: {dataset: motions}}\n"
    assert problems(tmp_path, text) == ["2:27: unknown data set 'motoins'; did you mean: motions?"]
    half = text.replace("motoins/quick", "motions")
    assert "trained:<data set>/<recipe>" in problems(tmp_path, half)[0]


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        (
            "{seconds: 2s, fps: 15, size: 112}",
            "clip: seconds should be a number above 0 and below a million, found '2s'",
        ),
        ("{seconds: 2, fps: null, size: 112}", "clip: fps should be a number above 0 and below a million, found None"),
        ("{seconds: 2, fps: '15', size: 112}", "fps should be a number"),
        ("{seconds: true, fps: 15, size: 112}", "seconds should be a number"),
        ("{seconds: .inf, fps: 15, size: 112}", "seconds should be a number"),
        ("{frames: 8, size: [1, 2, 3]}", "size is a number of pixels, or [height, width], found [1, 2, 3]"),
    ],
)
def test_a_clip_in_seconds_is_made_of_numbers(tmp_path: Path, clip: str, said: str) -> None:
    text = f"suite: s\nmodels: [resnet3d]\nmatrix: {{clip: [{clip}]}}\nmeasure: {{macs: {{}}}}\n"
    [problem] = problems(tmp_path, text)
    assert said in problem


def test_a_data_set_in_a_list_too_many_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {accuracy: {dataset: [[motions]]}}\n"
    assert problems(tmp_path, text) == ["3:22: dataset: input should be a valid string, found ['motions']"]


def test_a_measure_that_is_not_a_mapping_is_explained_in_yaml_terms(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, "suite: s\nmodels: [resnet3d]\nmeasure: [macs]\n")
    assert problem == "3:1: measure: input should be a mapping"
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}}\nsmall: [models]\n"
    with pytest.raises(SuiteError, match=r"4:1: small: input should be a mapping"):
        planned(tmp_path, text, small=True)


RECIPES = {name: Path(__file__).parents[2] / "suites" / "recipes" / f"{name}.yaml" for name in ("brief", "quick")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: quikc}}", "3:40: unknown recipe 'quikc'; did you mean: quick?"),
        ("models: [resnet3d]\nmatrix: {recipe: [quick, slow]}\nmeasure: {accuracy: {dataset: motions}}", "3:10: unknown recipe 'slow'; allowed: brief, quick"),
        ("models: [{name: resnet3d, weights: 'trained:motions/quik'}]\nmeasure: {accuracy: {dataset: motions}}", "2:27: unknown recipe 'quik'; did you mean: quick?"),
        ("models: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: quick with epoch=3}}", "3:40: recipe 'quick with epoch=3': unknown key 'epoch'; did you mean: epochs?"),
        ("models: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: quick with epochs=many}}", "3:40: recipe 'quick with epochs=many': epochs: input should be a valid integer, unable to parse string as an integer, found 'many'"),
        ("models: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: quick with batch.size=3}}", "3:40: recipe change batch.size: batch is the value 16 and has no keys"),
        ("models: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: nowhere/mine.yaml}}", "3:40: the recipe 'nowhere/mine.yaml' is not a file; allowed: brief, quick"),
    ],
)  # fmt: skip
def test_a_missing_or_wrong_recipe_is_reported_when_planning(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.yaml").write_text(f"suite: s\n{text}\n")
    with pytest.raises(SuiteError) as caught:
        plan_suite(read_suite(tmp_path / "s.yaml"), FakeCatalog(), recipes=RECIPES)
    assert str(caught.value) == f"{tmp_path / 's.yaml'}:{said}"


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPES["quick"].read_text())
    text = (
        f"suite: s\nmodels: [resnet3d]\nmeasure: {{accuracy: {{dataset: motions, recipe: {tmp_path / 'mine.yaml'}}}}}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    assert plan_suite(read_suite(tmp_path / "s.yaml"), FakeCatalog(), recipes={}).cases


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [c3dd_search, {name: resnet3d, dept: 1}]\nmatrix: {clip: [16x1], foo: [1]}\nmeasure: {mac: {}}\n"
    assert len(problems(tmp_path, text)) == 4


def test_a_mistake_in_an_extended_file_is_reported_at_its_place(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("# of all suites\nmeasure: {macs: {}}\nmesure: {}\ntimeout_s: -3\nmatrix: {precisoin: [fp32]}\n")
    path = tmp_path / "suite.yaml"
    text = "extends: [base.yaml]\nsuite: s\nmodels: [c3dd_search]\ntitlee: x\n"
    assert told(tmp_path, text) == [
        f"{path}:3:10: unknown model 'c3dd_search'; did you mean: c3d_search?",
        f"{path}:4:1: unknown key 'titlee'; did you mean: title?",
        f"{base}:3:1: unknown key 'mesure'; did you mean: measure?",
        f"{base}:4:1: timeout_s: input should be greater than 0, found -3",
        f"{base}:5:10: unknown axis 'precisoin'; did you mean: precision?",
    ]
    base.write_text("\n\n\n\nmeasure: {mac: {}}\nmatrix: {precisoin: [fp32]}\n")
    assert told(tmp_path, text.replace("titlee: x\n", "")) == [
        f"{path}:3:10: unknown model 'c3dd_search'; did you mean: c3d_search?",
        f"{base}:5:11: unknown measure 'mac'; did you mean: macs?",
        f"{base}:6:10: unknown axis 'precisoin'; did you mean: precision?",
    ]


def test_a_wrong_value_is_reported_with_allowed_values_and_position(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmatrix:\n  precision: [fp31]\n  clip: [16x1]\nmeasure: {throughput: {}}\n"
    first, second = problems(tmp_path, text)
    assert first.startswith("4:3: precision: input should be 'fp32', 'tf32'")
    assert first.endswith("found 'fp31'; did you mean: fp32, fp16?")
    assert (
        second
        == "5:3: clip: clip '16x1' is not 'frames x stride x size' such as 16x1x112 (or 16x1x128x171), found '16x1'"
    )


def test_yaml_1_2_keeps_off_and_numbers_as_written(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [{name: c3d_search, width: 1e-1}]\nmatrix: {compile: [off]}\nmeasure: {throughput: {}}\n"
    point = planned(tmp_path, text).cases[0].point
    assert (point.args["width"], point.compile) == (0.1, "off")


def test_an_environment_variable_is_refused_outside_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {accuracy: {dataset: motions, recipe: '${env:SECRET}'}}\n"
    assert "allowed in paths only" in problems(tmp_path, text)[0]


def test_environment_variables_stand_for_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_WEIGHTS", "/data/w.pth")
    text = (
        "suite: s\nmodels: [{name: resnet3d, weights: '${env:MY_WEIGHTS}'}]\nmeasure: {accuracy: {dataset: motions}}\n"
    )
    assert planned(tmp_path, text).cases[0].point.weights == "/data/w.pth"
    monkeypatch.delenv("MY_WEIGHTS")
    assert "MY_WEIGHTS is not set" in problems(tmp_path, text)[0]


def test_environment_variables_stand_for_files_of_a_model_and_of_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "/data")
    text = (
        "suite: s\nmodels: [{name: 'mine:net', rgb_weights: '${env:HERE}/w.pth', inflated_from: ['${env:HERE}/i.pth']}]\n"
        "measure: {accuracy: {dataset: motions, options: {videos: '${env:HERE}/v', annotations: x}}}\n"
    )
    [case] = planned(tmp_path, text).cases
    assert case.point.args == {"rgb_weights": "/data/w.pth", "inflated_from": "/data/i.pth"}
    assert case.measures["accuracy"]["options"] == {"videos": "/data/v", "annotations": "x"}
    told = problems(tmp_path, text.replace("rgb_weights:", "flavour:").replace("videos:", "unit:"))
    assert "2:29: flavour: ${env:…} is allowed in paths only" in told[0]
    assert "options: ${env:…} is allowed in paths only" in told[1]
    monkeypatch.delenv("HERE")
    assert "2:29: rgb_weights: the environment variable HERE is not set" in problems(tmp_path, text)[0]


def test_the_schema_for_editors_is_the_one_in_the_repository(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "suites" / "suite.schema.json"
    write_json_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text() == committed.read_text(), "run `make schema`"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("search: bset", "search: input should be 'best', found 'bset'; did you mean: best?"),
        ("search: {compile: [off, onnxruntme]}", "found 'onnxruntme'; did you mean: onnxruntime?"),
        ("search: {compyle: [default]}", "search: compyle: extra inputs are not permitted, found ['default']"),
        ("batch: [4, many]", "batch: 1: input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_an_option_of_several_forms_is_refused_by_the_form_it_comes_closest_to(
    tmp_path: Path, option: str, said: str
) -> None:
    text = f"suite: s\nmodels: [c3d_search]\nmatrix: {{clip: [8x1x32]}}\nmeasure:\n  throughput: {{{option}}}\n"
    [problem] = problems(tmp_path, text)
    assert problem.startswith("5:")
    assert said in problem


def test_unknown_execution_modes_list_all_and_the_nearest_spelling(tmp_path: Path) -> None:
    text = (
        "suite: s\nmodels: [c3d_search]\nmatrix: {clip: [8x1x32], compile: [aotinducter]}\nmeasure: {throughput: {}}\n"
    )
    [problem] = problems(tmp_path, text)
    assert re.search(r"'off'.*'cudagraphs'.*'tensorrt', found 'aotinducter'; did you mean: aotinductor\?", problem)


def test_invalid_views_are_refused_with_their_form(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [c3d_search]\nmatrix: {clip: [8x1x32], views: [10xful]}\nmeasure: {accuracy: {dataset: motions}}\n"
    [problem] = problems(tmp_path, text)
    assert (
        "views: should be temporal x spatial, such as 10x3, or 10xfull for whole frames, or sliding:16 for a clip every 16 frames, found '10xful'"
        in problem
    )


PREPROCESSED = """suite: s
models: [{{name: c3d_search, preprocess: {protocol}}}]
matrix: {{clip: [8x1x32]}}
measure: {{macs: {{}}, accuracy: {{dataset: motions}}}}
"""


def test_the_input_protocol_of_a_model_is_an_axis_of_its_accuracy_alone(tmp_path: Path) -> None:
    text = PREPROCESSED.format(protocol="{channels: BGR, scale: 255, mean: [90, 98, 102], resize: 128}")
    by_measure = {next(iter(case.measures)): case for case in planned(tmp_path, text).cases}
    assert by_measure["macs"].point.preprocess is None
    expected = {"channels": "bgr", "scale": 255, "mean": [90.0, 98.0, 102.0], "resize": "short:128"}
    assert by_measure["accuracy"].point.preprocess == expected
    assert "preprocess=channels:bgr,scale:255,mean:90.0/98.0/102.0,resize:short:128" in by_measure["accuracy"].title


def test_an_input_protocol_of_a_suite_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "caffe.yaml"
    file.write_text("channels: bgr\n")
    [case] = [c for c in planned(tmp_path, PREPROCESSED.format(protocol=file)).cases if "accuracy" in c.measures]
    assert case.point.preprocess == {"channels": "bgr"}


@pytest.mark.parametrize(
    ("protocol", "told"),
    [("{chanels: bgr}", "did you mean: channels?"), ("{channels: bgrr}", "did you mean: bgr?"), ("5", "mapping")],
)
def test_a_wrong_input_protocol_is_reported_with_its_position(tmp_path: Path, protocol: str, told: str) -> None:
    [problem] = problems(tmp_path, PREPROCESSED.format(protocol=protocol))
    assert problem.startswith("2:")
    assert told in problem


def test_an_unknown_key_hides_no_unknown_measure_model_or_axis(tmp_path: Path) -> None:
    text = (
        "suite: own\nmodells: [c3d]\nrepeat: x\nmodels: [c3d_serch]\nmatrix: {batchh: [1]}\nmeasure: {latencyy: {}}\n"
    )
    found = "\n".join(problems(tmp_path, text))
    for name in ("modells", "repeat", "c3d_serch", "batchh", "latencyy"):
        assert name in found


def test_instructions_are_a_case_of_their_own(tmp_path: Path) -> None:
    """Counting them in valgrind takes a minute, which must not delay each pair of a timing."""
    catalog = FakeCatalog()
    catalog.measures = {entry.name: entry for entry in MEASURES}
    text = "suite: s\nmodels: [c3d_search]\nmeasure: {params: {}, latency: {}, memory: {}, instructions: {}}\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    cases = plan_suite(read_suite(tmp_path / "s.yaml"), catalog).cases
    assert [list(case.measures) for case in cases] == [["params"], ["latency", "memory"], ["instructions"]]


MANY = "[" + ", ".join(map(str, range(1, 1001))) + "]"


@pytest.mark.parametrize(
    "text",
    [
        f"models: [resnet3d]\nmatrix: {{depth: {MANY}, batch: {MANY}, views: {MANY}}}\nmeasure: {{macs: {{}}}}",
        f"models: [{{name: resnet3d, depth: {MANY}, batch: {MANY}}}]\nmeasure: {{macs: {{}}}}",
        f"models: [resnet3d]\nmeasure: {{accuracy: {{seeds: {MANY}, threads: [1], split: {MANY}}}}}",
    ],
)
def test_axes_that_span_a_million_points_are_refused_at_once(tmp_path: Path, text: str) -> None:
    found = problems(tmp_path, f"suite: s\n{text}\n")
    assert any("the axes span more than 200,000 points" in each for each in found), found


@pytest.mark.parametrize("value", [".nan", "-.inf", "[.inf]", "{a: [1.5, .nan]}"])
def test_an_argument_that_no_record_can_hold_is_refused(tmp_path: Path, value: str) -> None:
    """It was null in the case, so another model was measured than the suite says."""
    text = f"suite: s\nmodels:\n  - {{name: c3d_search, width: [{value}]}}\nmeasure: {{macs: {{}}}}\n"
    [found] = problems(tmp_path, text)
    assert found.startswith("3:24: width: is not a finite number, found ")


def test_an_option_that_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [c3d_search]\nmeasure:\n  accuracy: {dataset: motions, options: {speed: .nan}}\n"
    [found] = problems(tmp_path, text)
    assert found.startswith("4:32: options: is not a finite number")


@pytest.mark.parametrize("times", [1, 10])
def test_files_that_extend_one_another_without_end_are_refused_at_once(tmp_path: Path, times: int) -> None:
    for number in range(120):
        base = ", ".join([f"s{number + 1}.yaml"] * times)
        (tmp_path / f"s{number}.yaml").write_text(f"extends: [{base}]\n")
    (tmp_path / "s120.yaml").write_text("suite: s\n")
    with pytest.raises(SuiteError, match="a suite of more than 100 files"):
        read_suite(tmp_path / "s0.yaml")


def test_half_of_a_surrogate_pair_is_refused_with_its_place(tmp_path: Path) -> None:
    """No file of records can hold it."""
    text = 'suite: s\nmodels:\n  - {name: c3d_search, width: "\\ud800"}\nmeasure: {macs: {}}\n'
    [found] = problems(tmp_path, text)
    assert found.startswith("3:24: '\\ud800' holds half of a surrogate pair")


def test_a_path_of_bytes_that_are_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS", "/data/\udcff.pth")
    text = "suite: s\nmodels: [{name: resnet3d, weights: '${env:WEIGHTS}'}]\nmeasure: {accuracy: {dataset: motions}}\n"
    [found] = problems(tmp_path, text)
    assert "is not UTF-8 text" in found


def test_a_mapping_that_is_merged_into_itself_is_refused(tmp_path: Path) -> None:
    text = "suite: s\nmodels: [resnet3d]\nmeasure: {macs: {}}\nsmall: &a {<<: *a}\n"
    [found] = problems(tmp_path, text)
    assert "a mapping is merged into itself" in found
