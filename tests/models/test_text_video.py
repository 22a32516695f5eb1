"""Models of video and text from a folder on this machine, with tiny random weights and a tokenizer of few words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bench.core.errors import ClipError, InputError
from bench.models.factory import create_model, find_model

transformers = pytest.importorskip("transformers")

Write = Callable[[Path, str], Any]
NAMES, PROMPTS = ("jump", "run"), ("{}", "a {}")


@pytest.fixture(params=["clip", "xclip"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def clips() -> torch.Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def texts_of(folder: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer([p.replace("{}", n) for n in NAMES for p in PROMPTS], padding=True, return_tensors="pt")


def test_classes_are_scored_by_their_texts(kind: str, tmp_path: Path, write_text_model: Write) -> None:
    network = write_text_model(tmp_path, kind)
    model: Any = create_model(f"hf:{tmp_path}").eval()
    model.set_classes(NAMES, PROMPTS)
    with torch.no_grad():
        found = model(clips())
        if kind == "xclip":
            outputs = network(pixel_values=clips().transpose(1, 2), **texts_of(tmp_path))
            expected = outputs.logits_per_video.view(2, 2, 2).mean(2)
        else:
            frames = clips().transpose(1, 2).flatten(0, 1)
            outputs = network(pixel_values=frames, **texts_of(tmp_path))
            video = F.normalize(outputs.image_embeds.view(2, 4, 16).mean(1), dim=1)
            classes = F.normalize(outputs.text_embeds.view(2, 2, 16).mean(1), dim=1)
            expected = network.logit_scale.exp() * video @ classes.T
    assert found.shape == (2, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_classes_the_output_is_the_embedding_of_the_clip(
    kind: str, tmp_path: Path, write_text_model: Write
) -> None:
    write_text_model(tmp_path, kind)
    model = create_model(f"hf:{tmp_path}").eval()
    with torch.no_grad():
        assert model(clips()).shape == (2, 16)
    assert create_model(f"hf:{tmp_path}", device="meta")(clips().to("meta")).shape == (2, 16)
    assert find_model(f"hf:{tmp_path}").clip == ("8x4x32" if kind == "clip" else "4x4x32")


def test_clips_and_texts_that_do_not_fit_are_refused(kind: str, tmp_path: Path, write_text_model: Write) -> None:
    write_text_model(tmp_path, kind)
    model: Any = create_model(f"hf:{tmp_path}").eval()
    with pytest.raises(ClipError, match="frames of 32x32, found 4x48x48"):
        model(torch.zeros(1, 3, 4, 48, 48))
    with pytest.raises(
        InputError, match=r"'a video of somersaulting slowly' has \d+ tokens; the model reads at most 24"
    ):
        model.set_classes(["somersaulting slowly"], ["a video of {}"])
    for file in tmp_path.glob("*token*"):
        file.unlink()
    (tmp_path / "vocab.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="has no tokenizer that can be read"):
        model.set_classes(NAMES, PROMPTS)
