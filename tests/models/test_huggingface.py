"""Video transformers from a folder on this machine, never from the network."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import ClipError, InputError, WeightsError
from bench.models.factory import create_model, find_model
from bench.models.weights.load_report import require_trained

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "num_frames": 4,
    "num_labels": 5,
}
CONFIGS = {"videomae": "VideoMAEConfig", "timesformer": "TimesformerConfig", "vivit": "VivitConfig"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    getattr(transformers, CONFIGS[request.param])(**SMALL).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def checkpoint(folder: Path) -> Any:
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(folder)
    network = transformers.AutoModelForVideoClassification.from_config(config).eval()
    network.save_pretrained(folder)
    return network


def test_a_config_gives_logits_features_and_its_clip(folder: Path) -> None:
    model = create_model(f"hf:{folder}").eval()
    clip = torch.randn(2, 3, 4, 32, 32)
    assert find_model(f"hf:{folder}").clip == "4x4x32"
    logits, features = model(clip), model.forward_features(clip)  # type: ignore[operator]
    assert (logits.shape, features.shape) == ((2, 5), (2, 24))
    assert model.__dict__["weights_report"] is None
    torch.testing.assert_close(model.forward_head(features), logits)  # type: ignore[operator]
    assert create_model(f"hf:{folder / 'config.json'}", num_classes=9).eval()(clip).shape == (2, 9)


def test_it_is_built_on_the_meta_device(folder: Path) -> None:
    model = create_model(f"hf:{folder}", device="meta").eval()
    assert model(torch.empty(2, 3, 4, 32, 32, device="meta")).shape == (2, 5)


@pytest.mark.usefixtures("quiet")
def test_a_folder_with_weights_gives_its_own_logits(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = checkpoint(folder)
    clip = torch.randn(2, 3, 4, 32, 32)
    capfd.readouterr()
    model = create_model(f"hf:{folder}").eval()
    assert capfd.readouterr() == ("", "")
    torch.testing.assert_close(model(clip), network(pixel_values=clip.permute(0, 2, 1, 3, 4)).logits)
    other = create_model(f"hf:{folder}", num_classes=9).eval()
    torch.testing.assert_close(other.forward_features(clip), model.forward_features(clip))  # type: ignore[operator]
    assert other(clip).shape == (2, 9)
    require_trained(model)
    with pytest.raises(InputError, match=r"has 5 classes and the model 9: network.classifier.bias"):
        require_trained(other)


@pytest.mark.usefixtures("quiet")
def test_weights_of_another_config_are_refused(folder: Path) -> None:
    checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(WeightsError, match=r"do not fit its config.json: .*layer"):
        create_model(f"hf:{folder}")


def test_settings_of_the_config_are_arguments(folder: Path) -> None:
    model = create_model(f"hf:{folder}", num_frames=8, image_size=16).eval()
    assert model(torch.randn(1, 3, 8, 16, 16)).shape == (1, 5)
    with pytest.raises(InputError, match="no setting 'frames'"):
        create_model(f"hf:{folder}", frames=8)


def test_another_clip_is_refused(folder: Path) -> None:
    model = create_model(f"hf:{folder}").eval()
    for frames, pixels in ((2, 32), (8, 32), (4, 48)):
        with pytest.raises(ClipError, match="4x32x32"):
            model(torch.randn(1, 3, frames, pixels, pixels))


def test_mean_and_deviation_are_the_folder_s(folder: Path) -> None:
    assert create_model(f"hf:{folder}", device="meta").mean == (0.45, 0.45, 0.45)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    model = create_model(f"hf:{folder}", device="meta")
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_model_in_the_cache_of_hugging_face_is_built_by_its_name(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.chdir(hub)
    snapshots = hub / "models--org--net" / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / "abc").symlink_to(folder)
    assert create_model("hf:org/net", num_classes=9).eval()(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 9)
    with pytest.raises(InputError, match=r"hf:org/other needs .*hf download"):
        create_model("hf:org/other")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "hf download ORG/NAME"),
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"model_type": "bert"}', "describes a 'bert'; allowed: videomae, timesformer, vivit"),
        ("{}", "describes a None"),
    ],
)
def test_what_is_no_video_transformer_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=words):
        create_model(f"hf:{tmp_path}")
