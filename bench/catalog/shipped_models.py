"""Facts and counts of the registered models that come with vbench, so that a fresh machine lists them without torch.

`shipped_models.json` holds answers in the form of `Catalog`'s cache. Each is used only while the code that it was taken
from is unchanged, comments aside. `make catalog` writes the file.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.catalog.source_hashes import PACKAGE, bytes_hash, former_model_source, model_source, sources_under
from bench.catalog.user_code import code_hash
from bench.core.schema import digest

FILE = Path(__file__).with_suffix(".json")
COUNTING = ("measure/counting",)
NOT_COUNTING = ("published_costs.py", "peak_memory.py", "case_counts.py", "counters")  # do not decide a count


def shipped_answers() -> dict[str, Any]:
    """Return the shipped answers that are still right, by the keys of `Catalog`'s cache; empty without the file.

    The list of models is among them if it is complete, so if no file of `bench/models` was added or changed.
    """
    try:
        shipped = json.loads(FILE.read_text(encoding="utf-8"))
        known, counting, models, counts = (shipped[part] for part in ("files", "counting", "models", "counts"))
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # without it, torch is asked
    files = model_files()
    current = {stem for stem, path in files.items() if stem in known and _is_one_of(known[stem], hashes_of(path))}
    answers: dict[str, Any] = {}
    if current == set(files) == set(known):
        # A reworded comment leaves all facts but the hash of the bytes.
        bytes_now = {known[stem][0]: former_model_source(str(path)) for stem, path in files.items()}
        moved = [{**model, "former_source": bytes_now[model["former_source"]]} for model in models]
        answers["catalog"] = {"models": moved}
    if _is_one_of(counting, hashes_of_counting()):
        answers.update({key: check for stem, key, check in counts if stem in current})
    return answers


def model_files() -> dict[str, Path]:
    """Return every file of `bench/models` by its stem."""
    return {path.stem: path for path in sorted((PACKAGE / "models").glob("*.py"))}


def hashes_of(path: Path) -> tuple[Callable[[], str], Callable[[], str]]:
    """Return two functions that hash a model's file and its imports, one by bytes and one by code."""
    return lambda: former_model_source(str(path)), lambda: model_source(str(path))


def hashes_of_counting() -> tuple[Callable[[], str], Callable[[], str]]:
    """Return two functions that hash the rules of counting, one by bytes and one by code."""
    files = [file for file in sources_under(COUNTING) if not {*file.parts} & {*NOT_COUNTING}]
    return lambda: digest([bytes_hash(file) for file in files]), lambda: digest([code_hash(file) for file in files])


def _is_one_of(known: Sequence[str], hashes: Sequence[Callable[[], str]]) -> bool:
    """Whether one hash is the known one; that of code is only taken after a change of bytes, since it is slow."""
    return any(of() == hash_ for of, hash_ in zip(hashes, known, strict=True))
