"""What makes a training another one, so that it is not taken from what stands there."""

from dataclasses import replace

import pytest

from bench.data.collection import with_flow
from bench.models.base import InputSpec
from bench.train.accuracy_protocol import describe_evaluation, training_notes
from bench.train.fitting import identity
from bench.train.preprocessing import default_protocol


@pytest.fixture
def name_of(recipe_of, train_videos, val_videos, clip, tiny_net):
    """Names a training of the tiny network; `flow` makes flow its input."""

    def name(*, train=train_videos, recipe=None, flow=False, **options):
        model = tiny_net()
        if flow:
            model.inputs = (InputSpec(channels=2, modality="flow"),)
        return identity(model, recipe or recipe_of(), train, **{"clip": clip, "seed": 0, "about": {}, **options})

    return name


@pytest.fixture
def with_pictures(train_videos, tmp_path):
    """The training videos with flow in as many pictures, of as many bytes each as is said."""

    def make(size):
        for video in train_videos.videos:
            folder = tmp_path / str(size) / video.path.relative_to(train_videos.root).with_suffix("")
            folder.mkdir(parents=True)
            for name in ("flow_x_00001.jpg", "flow_y_00001.jpg", "img_00001.jpg"):
                (folder / name).write_bytes(bytes(size))
        return with_flow(train_videos, tmp_path / str(size))

    return make


def test_flow_is_part_of_the_hash_only_for_models_that_use_it(name_of, with_pictures, tmp_path):
    first, other = with_pictures(100), with_pictures(101)
    assert all(video.flow.is_relative_to(tmp_path / "101") for video in other.videos)
    assert name_of(train=first) == name_of(train=other) == name_of()
    assert len({name_of(train=each, flow=True) for each in (first, other, replace(first, split="again"))}) == 2
    (first.videos[0].flow / "flow_x_00002.jpg").write_bytes(b"")
    assert name_of(train=replace(first), flow=True) != name_of(train=first, flow=True)


def test_flow_in_one_file_and_no_flow_are_distinguished(train_videos, tmp_path):
    def set_of(flow):
        return replace(train_videos, videos=(replace(train_videos.videos[0], flow=flow),))

    (tmp_path / "a.npz").write_bytes(b"123")
    (tmp_path / "b.npz").write_bytes(b"1234")
    files = [set_of(tmp_path / "a.npz"), set_of(tmp_path / "b.npz"), set_of(None)]
    assert len({videos.flow_hash for videos in files}) == 3


def test_the_protocol_of_a_flow_model_names_its_flow(tiny_net, val_videos, clip, evaluation):
    def protocol(model):
        return describe_evaluation(
            model, val_videos, evaluation, clip=clip, views=(1, 1), protocol=default_protocol(model, clip)
        )

    model = tiny_net()
    assert "flow_hash" not in protocol(model)
    model.inputs = (InputSpec(channels=2, modality="flow"),)
    assert protocol(model)["flow_hash"] == val_videos.flow_hash


def test_the_protocol_states_the_normalisation_of_each_input(tiny_net, val_videos, clip, evaluation):
    model = tiny_net()
    model.mean, model.std, flow = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), InputSpec(channels=2, modality="flow")
    rgb = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    of_flow, beside = ({f"{before}{name}": [0.5, 0.5] for name in ("mean", "std")} for before in ("", "flow_"))
    for inputs, expected in (((InputSpec(),), rgb), ((flow,), of_flow), ((InputSpec(), flow), rgb | beside)):
        model.inputs = inputs
        told = describe_evaluation(
            model, val_videos, evaluation, clip=clip, views=(1, 1), protocol=default_protocol(model, clip)
        )
        assert {name: value for name, value in told.items() if name.endswith(("mean", "std"))} == expected


@pytest.fixture
def evaluation(tiny_net, val_videos, clip):
    from bench.train.evaluating import evaluate

    return evaluate(tiny_net(), val_videos, clip=clip)


def test_validation_is_part_of_the_hash_if_it_decides_something(name_of, recipe_of, train_videos, val_videos):
    alone = name_of()
    assert name_of(val=val_videos) == name_of(val=train_videos) == alone
    assert len({alone, *(name_of(val=val, val_decides=True) for val in (val_videos, train_videos))}) == 3
    plateau = recipe_of(schedule={"name": "plateau"})
    assert name_of(recipe=plateau, val=val_videos) != name_of(recipe=plateau, val=train_videos)


def test_files_that_arguments_name_count_by_their_content(tiny_net, tmp_path):
    file = tmp_path / "first.pth"

    def notes():
        return training_notes(tiny_net(), name="x", arguments={"inflated_from": str(file), "width": 2}, weights=None)

    seen = []
    for content in ("a", "b"):
        file.write_text(content)
        seen.append(notes())
    assert seen[0] != seen[1]
    file.write_text("a")
    assert notes() == seen[0]
    file.unlink()
    assert "files" not in notes()
