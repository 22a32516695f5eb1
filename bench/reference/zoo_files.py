"""Published checkpoint files (`weights.csv`), each with the accuracies that its publishers print for it.

None of the files was downloaded: the model of a row is the one with its architecture, and `vbench weights inspect` says
of a downloaded file whether it fits.
"""

import csv
import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from bench.core.errors import UnknownNameError
from bench.reference.published import PublishedRow, Status, published_rows

HashKind = Literal["sha256", "git blob", "not stated"]

# Hosts that answer a download with a page: only a person in a browser gets the file.
BROWSER_HOSTS = {
    "drive.google.com": "Google Drive asks to confirm downloads of large files",
    "pan.baidu.com": "Baidu asks for an extraction code",
    "onedrive.live.com": "OneDrive answers with a page",
    "1drv.ms": "OneDrive answers with a page",
}


@dataclass(frozen=True, kw_only=True)
class PublishedAccuracy:
    """What is printed for one file on one data set, in percent; `clip` and `views` are in the source's own words."""

    dataset: str
    clip: str
    views: str
    top1: float | None
    top5: float | None
    source: str
    status: Status


@dataclass(frozen=True, kw_only=True)
class ZooFile:
    """One published file. `model` is the name of the model here with its architecture, or empty.

    `printed_hash` is what the publisher prints, often the first 8 digits of the SHA-256; empty if nothing is printed.
    `row` is the line of `source` that names the file, at `commit`.
    """

    id: str
    model: str
    file: str
    url: str
    size: str
    printed_hash: str
    hash_kind: HashKind
    trained_on: str
    num_classes: int | None
    source: str
    commit: str
    row: str
    note: str

    @property
    def accuracies(self) -> tuple[PublishedAccuracy, ...]:
        """The accuracies printed for this file, as far as a published row names it; else empty."""
        return (*_of_metafiles(self), *_of_addresses().get(self.url, ()))

    @property
    def file_name(self) -> str:
        """The name for the downloaded file; addresses of pages and of Hugging Face do not have one."""
        if self.file in ("view", "pytorch_model.bin"):
            ending = ".bin" if self.file.endswith(".bin") else ".pth"
            return self.id.rpartition("/")[2] + ending
        return self.file.rpartition("/")[2]

    @property
    def download_url(self) -> str:
        """The address of the file itself, where `url` is that of a page about it."""
        parts = urlsplit(self.url)
        if parts.netloc == "www.dropbox.com":
            return self.url.replace("?dl=0", "?dl=1")
        if parts.netloc == "huggingface.co":
            return self.url.replace("/blob/", "/resolve/")
        return self.url

    @property
    def needs_browser(self) -> str:
        """Why a program cannot download the file; empty if it can."""
        if "*" in self.file:
            return "the checkpoint consists of several files"
        return BROWSER_HOSTS.get(urlsplit(self.url).netloc, "")


@cache
def zoo_files() -> tuple[ZooFile, ...]:
    """Return every row of the table, in its order."""
    return tuple(
        ZooFile(
            id=line["id"],
            model=line["name"],
            file=line["file"],
            url=line["url"],
            size=line["size_as_printed"],
            printed_hash=line["hash_printed"],
            hash_kind=_hash_kind(line["hash_kind"]),
            trained_on=line["trained_on"],
            num_classes=int(line["num_classes"]) if line["num_classes"] else None,
            source=line["source"],
            commit=line["commit"],
            row=line["source_row"],
            note=line["note"],
        )
        for line in _lines("weights.csv")
    )


def find_zoo_files(pattern: str, *, families: Mapping[str, str]) -> list[ZooFile]:
    """Return the files of a model or family, or those whose id, model, name or source matches `pattern` (`*x3d*`).

    `families` has the family of every model by name. Raises UnknownNameError if `pattern` is neither known nor matches.
    """
    variants = {name for name, family in families.items() if pattern in (name, family)}
    if variants:
        return [file for file in zoo_files() if file.model in variants]
    found = [file for file in zoo_files() if _matches(file, pattern)]
    if not found:
        raise UnknownNameError("model", pattern, {*families, *(file.model for file in zoo_files() if file.model)})
    return found


def zoo_file(id_: str) -> ZooFile:
    """Return the file with this id; raises UnknownNameError with the nearest one."""
    found = next((file for file in zoo_files() if file.id == id_), None)
    if found is None:
        raise UnknownNameError("published file", id_, [file.id for file in zoo_files()])
    return found


def _matches(file: ZooFile, pattern: str) -> bool:
    texts = (file.id, file.model, file.model.partition(".")[0], file.source, file.file)
    return any(fnmatch.fnmatch(text.lower(), pattern.lower()) for text in texts)


def _hash_kind(text: str) -> HashKind:
    if "sha256" in text:
        return "sha256"
    return "git blob" if text.startswith("git blob") else "not stated"


def _of_metafiles(file: ZooFile) -> Iterator[PublishedAccuracy]:
    """Accuracies of `published.csv` whose row names the same line of the same source."""
    for row in published_rows():
        if (row.top1 is not None or row.top5 is not None) and _is_same_line(file, row):
            yield PublishedAccuracy(
                dataset=row.dataset,
                clip=row.clip,
                views=row.views,
                top1=row.top1,
                top5=row.top5,
                source=row.source,
                status=row.status,
            )


def _is_same_line(file: ZooFile, row: PublishedRow) -> bool:
    repository, _, page = row.source.partition(" ")
    if repository != file.source.split()[0].rpartition("/")[2]:
        return False
    if repository == "mmaction2":
        return page in file.source and row.variant.rpartition(" | ")[2] == file.row
    if repository != "torchvision" and page.rpartition("/")[2] not in file.source:
        return False
    line = re.sub(r", line \d+$", "", file.row)
    if row.note and f"config {row.note}" in line.split(", "):
        return True
    names = (row.model, f"{row.model} {row.variant}", f"{row.model} {row.variant} {row.clip} {row.dataset}")
    return line in names and file.trained_on.startswith(row.dataset)


@cache
def _of_addresses() -> dict[str, tuple[PublishedAccuracy, ...]]:
    """Accuracies of `published_2026.csv`, which prints the address of the file, by address."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in _lines("published_2026.csv"):
        if line["weights_url"] and line["metric"] in ("top1", "top5"):
            clip = f"{line['clip_frames']}x{line['stride']}" if line["stride"] else f"{line['clip_frames']} frames"
            key = (line["weights_url"], line["dataset"], clip, line["views_as_printed"], line["source"])
            found.setdefault(key, {"top1": None, "top5": None})[line["metric"]] = float(line["value"])
    by_address: dict[str, tuple[PublishedAccuracy, ...]] = {}
    for (url, dataset, clip, views, source), metrics in found.items():
        accuracy = PublishedAccuracy(
            dataset=dataset, clip=clip, views=views, source=source, status="published", **metrics
        )
        by_address[url] = (*by_address.get(url, ()), accuracy)
    return by_address


def _lines(name: str) -> list[dict[str, str]]:
    text = files("bench.reference").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
