"""Published checkpoint files: every row has an id, an address and, if somebody prints it, an accuracy."""

from urllib.parse import urlsplit

import pytest

from bench.core.errors import UnknownNameError
from bench.core.registry import MODELS
from bench.reference.zoo_files import find_zoo_files, zoo_file, zoo_files

FAMILIES = {entry.name: entry.family for entry in MODELS}


def test_ids_are_unique_and_one_word() -> None:
    ids = [file.id for file in zoo_files()]
    assert len(set(ids)) == len(ids) == 557
    assert not [id_ for id_ in ids if any(character.isspace() for character in id_)]


def test_every_model_named_is_one_here_or_of_torchvision() -> None:
    named = {file.model for file in zoo_files() if file.model}
    assert {name for name in named if name not in FAMILIES and not name.startswith("torchvision:")} == set()


def test_every_address_is_one_and_no_file_name_has_a_folder() -> None:
    for file in zoo_files():
        assert urlsplit(file.download_url).scheme in ("http", "https"), file.id
        assert "/" not in file.file_name, file.id
    assert len({(file.file_name, file.printed_hash) for file in zoo_files() if file.printed_hash}) > 100


@pytest.mark.parametrize(
    ("id_", "dataset", "top1", "top5"),
    [
        # The values below are those that torchvision, MMAction2, PyTorchVideo, PySlowFast and VideoMAE V2 print.
        ("torchvision/r3d_18-b3b3357e", "Kinetics-400", 63.2, 83.479),
        ("pytorchvideo/slowfast_8x8_r50-kinetics-400", "Kinetics-400", 76.94, 92.69),
        ("pyslowfast/slowfast_8x8_r50", "Kinetics-400", 77.0, 92.6),
        ("pyslowfast/mvitv2_l_40x3_k400_f306903192", "Kinetics-400", 86.1, 97.0),
        ("timesformer/timesformer_divst_8x32_224_k400", "Kinetics-400", 77.9, 93.2),
    ],
)
def test_a_file_has_the_accuracy_printed_for_it(id_: str, dataset: str, top1: float, top5: float) -> None:
    [found] = [each for each in zoo_file(id_).accuracies if each.dataset == dataset][:1]
    assert (found.top1, found.top5) == (top1, top5)


def test_a_file_that_nobody_prints_an_accuracy_for_has_none() -> None:
    assert zoo_file("3d-resnets/r3d50_k_200ep").accuracies == ()


def test_no_accuracy_is_of_another_data_set_than_the_file_was_trained_on() -> None:
    """A slip of a metafile, such as SSv2 files under Kinetics-400, must have been corrected."""
    sthv2 = [file for file in zoo_files() if "sthv2" in file.file and file.accuracies]
    assert len(sthv2) > 10
    assert {each.dataset for file in sthv2 for each in file.accuracies} <= {"SthV2", "Something-Something V2"}


def test_files_are_found_by_model_family_and_pattern() -> None:
    assert {file.model for file in find_zoo_files("slow_r50", families=FAMILIES)} == {"slow_r50"}
    assert {"slow_r50", "slow_r50_4x16"} <= {file.model for file in find_zoo_files("slow", families=FAMILIES)}
    assert [file.id for file in find_zoo_files("torchvision:r3d_18", families=FAMILIES)] == [
        "torchvision/r3d_18-b3b3357e"
    ]
    assert find_zoo_files("vivit_b_16x2", families=FAMILIES) == []
    with pytest.raises(UnknownNameError, match="did you mean: slow_r50"):
        find_zoo_files("slow_r5", families=FAMILIES)


def test_addresses_of_pages_become_those_of_files() -> None:
    by_host = {
        urlsplit(file.url).netloc: file.download_url for file in zoo_files() if "blob" in file.url or "dl=0" in file.url
    }
    assert by_host["www.dropbox.com"].endswith("?dl=1")
    assert "/resolve/main/" in by_host["huggingface.co"]
