"""What tests share: surroundings that are nobody's own, and the folder of real clips and published references."""

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core: threads of torch would only take turns

# A hook and `git rebase --exec` name their repository, in which tests would commit; settings sign and translate.
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}

# As hypothesis itself does where CI is set: a machine may be slow, and its checkout read-only.
settings.register_profile(
    "anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, print_blob=True
)
settings.load_profile("anywhere")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder named by VBENCH_TEST_ASSETS, with `clips/` and `reference/`; skips the test where it is not set."""
    folder = os.environ.get("VBENCH_TEST_ASSETS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VBENCH_TEST_ASSETS does not name a folder with clips/ and reference/")
    return Path(folder)


@pytest.fixture(scope="session")
def clips(assets: Path) -> Path:
    """The folder of real video files with its manifest.csv."""
    return assets / "clips"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and here is none")


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def wait_until_gone() -> Callable[..., None]:
    """Fails if one of the processes is alive after some seconds."""

    def wait(pids: Iterable[int], *, within_s: float = 10.0) -> None:
        left, deadline = list(pids), time.monotonic() + within_s
        while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"alive after {within_s:g} s: {left}"

    return wait


@pytest.fixture
def write_text_model() -> Callable[[Path, str], Any]:
    """Writes a tiny model of video and text, `clip` or `xclip`, with random weights and a tokenizer; returns it."""
    transformers = pytest.importorskip("transformers")
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**layers, "image_size": 32, "patch_size": 16}
    tokens = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    text = {**layers, **tokens, "vocab_size": 600, "max_position_embeddings": 24}

    def write(folder: Path, kind: str) -> Any:
        import torch

        torch.manual_seed(0)
        if kind == "clip":
            config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
            model = transformers.CLIPModel(config)
        else:
            frames = {f"mit_{name}": value for name, value in layers.items()} | {"num_frames": 4, "drop_path_rate": 0.0}
            config = transformers.XCLIPConfig(
                text_config=text,
                vision_config={**vision, **frames},
                projection_dim=16,
                prompt_num_attention_heads=2,
                prompt_layers=1,
            )
            model = transformers.XCLIPModel(config)
        model.eval().save_pretrained(folder)
        _write_tokenizer(folder)
        return model.eval()

    return write


def _write_tokenizer(folder: Path) -> None:
    """CLIP's byte-level tokenizer without merges: one token a letter."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: place for place, token in enumerate([*letters, *(f"{each}</w>" for each in letters)])}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt")).save_pretrained(folder)
