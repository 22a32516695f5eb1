"""Models of video and text from a folder on this machine, with tiny random weights and a tokenizer of few words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bench.core.errors import ClipError, InputError
from bench.models.factory import create_model, find_model

transformers = pytest.importorskip("transformers")

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT |= {
    "vocab_size": 600,
    "max_position_embeddings": 24,
    "eos_token_id": 513,
    "bos_token_id": 512,
    "pad_token_id": 513,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 16}
MIT = {"mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
NAMES, PROMPTS = ("jump", "run"), ("{}", "a {}")


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-level tokenizer without merges: one token a letter."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: place for place, token in enumerate([*letters, *(f"{each}</w>" for each in letters)])}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt")).save_pretrained(folder)


def write_model(folder: Path, kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
        network = transformers.CLIPModel(config)
    else:
        vision = {**VISION, **MIT, "num_frames": 4, "drop_path_rate": 0.0}
        config = transformers.XCLIPConfig(
            text_config=TEXT, vision_config=vision, projection_dim=16, prompt_num_attention_heads=2, prompt_layers=1
        )
        network = transformers.XCLIPModel(config)
    network.eval().save_pretrained(folder)
    write_tokenizer(folder)
    return network.eval()


@pytest.fixture(params=["clip", "xclip"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def clips() -> torch.Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def texts_of(folder: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer([p.replace("{}", n) for n in NAMES for p in PROMPTS], padding=True, return_tensors="pt")


def test_classes_are_scored_by_their_texts(kind: str, tmp_path: Path) -> None:
    network = write_model(tmp_path, kind)
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


def test_without_classes_the_output_is_the_embedding_of_the_clip(kind: str, tmp_path: Path) -> None:
    write_model(tmp_path, kind)
    model = create_model(f"hf:{tmp_path}").eval()
    with torch.no_grad():
        assert model(clips()).shape == (2, 16)
    assert create_model(f"hf:{tmp_path}", device="meta")(clips().to("meta")).shape == (2, 16)
    assert find_model(f"hf:{tmp_path}").clip == ("8x4x32" if kind == "clip" else "4x4x32")


def test_clips_and_texts_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    write_model(tmp_path, kind)
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
