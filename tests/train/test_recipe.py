from pathlib import Path

import pytest

from bench.core.errors import InputError, SuiteError
from bench.core.recipe_choice import RecipeChoice
from bench.train.recipe import AdamW, Cosine, read_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "suites" / "recipes").glob("*.yaml"))
GOOD = """\
recipe: good
source: a paper
epochs: 10
batch: 8
optimizer: {name: adamw, lr: 1e-3}
schedule:
  name: cosine
  warmup_epochs: 1
amp: off
augmentation: {crop: random, flip: 0.5}
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return read_recipe(path)

    return read_text


def problems_of(error):
    return [line.split("r.yaml:")[1] for line in str(error.value).splitlines()]


def test_a_recipe_is_read_with_its_choices(read):
    recipe = read(GOOD)
    assert recipe.optimizer == AdamW(name="adamw", lr=1e-3)
    assert recipe.schedule == Cosine(name="cosine", warmup_epochs=1)
    assert (recipe.amp, recipe.augmenting.flip) == ("off", 0.5)


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        ("{}", ("blocks", "loop")),
        ("{sampling: random, short: clamp}", ("blocks", "clamp")),
        ("{sampling: centre}", ("blocks", "loop")),
        ("{sampling: dense, short: clamp}", ("blocks", "loop")),
        ("{sampling: uniform, short: clamp}", ("sections", "clamp")),
        ("{sampling: segments}", ("sections", "loop")),
    ],
)
def test_evaluation_takes_clips_as_training_does(read, augmentation, expected):
    recipe = read(GOOD.replace("{crop: random, flip: 0.5}", augmentation))
    assert (recipe.view_sampling, recipe.view_short) == expected


def test_recipes_that_come_with_vbench_are_evaluated_by_blocks():
    recipes = [read_recipe(path) for path in SHIPPED]
    assert {recipe.view_sampling for recipe in recipes} == {"blocks"}
    assert [recipe.recipe for recipe in recipes if recipe.view_short != "loop"] == ["slowfast_kinetics"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs: 10", "epoch: 10", ["1:1: epochs is missing", "3:1: unknown key 'epoch'; did you mean: epochs?"]),
        ("lr: 1e-3", "rate: 1e-3", ["5:1: optimizer.lr is missing", "5:26: unknown key 'rate'"]),
        ("lr: 1e-3", "lr: 0", ["5:26: optimizer.lr: input should be greater than 0, found 0"]),
        ("name: cosine", "name: cosin", ["7:3: schedule: unknown name 'cosin'; did you mean: cosine?"]),
        ("warmup_epochs: 1", "warmup_epochs: 10", ["8:3: the warm-up must be shorter than the 10 epochs"]),
        ("batch: 8", "batch: 8\naccumulate: 3", ["5:1: batch 8 cannot be split into 3 equal passes"]),
        ("flip: 0.5", "flop: 0.5", ["10:1: unknown augmentation 'flop'; did you mean: flip?"]),
        ("flip: 0.5", "flip: 2", ["10:1: flip: input should be less than or equal to 1, found 2"]),
        ("amp: off", "amp: half", ["9:1: amp: input should be 'off', 'fp16' or 'bf16', found 'half'"]),
        ("epochs: 10", "epochs: 10\nepochs: 11", ["4:1: found duplicate key"]),
    ],
)
def test_a_mistake_is_reported_with_its_position(read, old, new, told):
    with pytest.raises(SuiteError) as error:
        read(GOOD.replace(old, new))
    found = problems_of(error)
    assert len(found) == len(told)
    for line, expected in zip(found, told, strict=True):
        assert line.startswith(expected)


def test_all_mistakes_are_reported_at_once(read):
    with pytest.raises(SuiteError) as error:
        read(
            GOOD.replace("epochs: 10", "epochs: none").replace("batch: 8", "batch: 0").replace("source: a paper\n", "")
        )
    assert [line.split(":")[0] for line in problems_of(error)] == ["1", "2", "3"]


@pytest.mark.parametrize("text", ["", "- a list\n", "just words\n", "{unclosed\n"])
def test_files_that_are_no_recipe_are_refused(read, text):
    with pytest.raises(SuiteError, match=r"r\.yaml:\d+:\d+: "):
        read(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        read_recipe(tmp_path / "none.yaml")


def test_the_hash_changes_with_the_training_and_not_with_words(read):
    assert read(GOOD).hash == read(GOOD.replace("a paper", "another")).hash
    assert read(GOOD).hash != read(GOOD.replace("batch: 8", "batch: 16")).hash


def test_frames_are_scaled_equally_in_evaluation_unless_the_recipe_differs(read):
    assert read(GOOD).resize is None
    assert read(GOOD.replace("flip: 0.5", "resize: [128, 171]")).resize == (128, 171)
    assert read(GOOD.replace("flip: 0.5", "resize: 128") + "evaluation_resize: 112\n").resize == 112


def test_multistep_refuses_milestones_that_never_come(read):
    text = GOOD.replace("name: cosine", "name: multistep\n  milestones: [5, 30]")
    with pytest.raises(SuiteError, match="a milestone lies after the last of 10 epochs"):
        read(text)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_reads_and_bears_its_files_name_and_a_source(path):
    recipe = read_recipe(path)
    assert recipe.recipe == path.stem
    assert len(recipe.source) > 40


def test_the_recipes_that_issues_and_suites_name_are_there():
    expected = {"quick", "resnet3d_kinetics", "resnet3d_finetune", "c3d_ucf101", "c3d_search", "i3d_kinetics"}
    assert expected | {"slowfast_kinetics"} <= {path.stem for path in SHIPPED}


def test_no_recipe_for_directions_of_motion_flips(read):
    quick = next(path for path in SHIPPED if path.stem == "quick")
    assert read_recipe(quick).augmenting.flip == 0.0


def test_later_settings_leave_the_hash_of_older_recipes(read):
    """The hash of `quick` as trainings of the first version know it."""
    quick = read_recipe(next(path for path in SHIPPED if path.stem == "quick"))
    assert quick.hash == "4d47c6dd425d"
    assert read(GOOD + "keep_every: 5\n").hash == read(GOOD).hash
    assert read(GOOD + "validation_clips: 3\n").hash != read(GOOD).hash


def test_dampening_needs_a_momentum_that_is_not_nesterovs(read):
    text = GOOD.replace("{name: adamw, lr: 1e-3}", "{name: sgd, lr: 0.1, nesterov: true, dampening: 0.5}")
    with pytest.raises(SuiteError, match="nesterov allows no dampening"):
        read(text)


def test_changes_replace_keys_of_the_file_and_are_part_of_the_hash(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text("recipe: base\nsource: test\nepochs: 5\nbatch: 8\noptimizer: {name: sgd, lr: 0.1}\n")
    base = read_recipe(file)
    changed = read_recipe(file, choice=RecipeChoice.parse("base with epochs=3, optimizer.lr=0.01"))
    assert (changed.epochs, changed.optimizer.lr, changed.batch) == (3, 0.01, 8)
    assert changed.hash != base.hash
    assert read_recipe(file, choice=RecipeChoice.parse("base with epochs=5")).hash == base.hash


def test_a_wrong_change_is_refused_with_the_nearest_key(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text("recipe: base\nsource: test\nepochs: 5\nbatch: 8\noptimizer: {name: sgd, lr: 0.1}\n")
    with pytest.raises(SuiteError, match="unknown key 'epoch'; did you mean: epochs"):
        read_recipe(file, choice=RecipeChoice.parse("base with epoch=3"))
