"""Published costs and accuracies, as their sources print them; what could not be read at the source stays a claim.

`published.csv` is the table and `corrections.csv` what was found wrong in it, with the evidence. `zoo.csv` says which
of its rows are about which of our models, and the clip at which the publisher counted if the row prints another one.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Status = Literal["published", "claimed", "claimed, unsupported"]

READ_AT_THE_SOURCE = frozenset(
    {"mirror", "mirror + re-measured", "mirror (accuracy)", "installed package meta"},
)
MEASURED_BY_US = "measured here"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One printed row. Unknown is None; `giga_macs` is for one view, whatever its source calls it.

    `clip`, `crop` and `views` are in the source's own words. `confidence` says how the row was read.
    """

    source: str
    model: str
    variant: str
    pretrain: str
    dataset: str
    clip: str
    crop: str
    classes: int | None
    params_millions: float | None
    giga_macs: float | None
    giga_macs_printed: str
    convention: str
    views: str
    top1: float | None
    top5: float | None
    note: str
    confidence: str

    @property
    def status(self) -> Status:
        """`published` if the row was read at its source; else a claim, one without any source marked so."""
        if self.confidence in READ_AT_THE_SOURCE:
            return "published"
        return "claimed, unsupported" if self.confidence == "UNSUPPORTED" else "claimed"

    @property
    def cost_is_published(self) -> bool:
        """False where no cost is printed, or the table's makers measured it themselves."""
        return self.giga_macs is not None and MEASURED_BY_US not in f"{self.note} {self.convention}"


@dataclass(frozen=True, kw_only=True)
class ZooRow:
    """A published row about one of our models. `frames` and `size` are the clip that was counted, if one was.

    `known` is a difference between the two models, or between the ways of counting, that is known beforehand.
    """

    zoo: str
    row: PublishedRow
    frames: int | None
    size: int | None
    known: str


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every row of the table, in its order."""
    return tuple(
        PublishedRow(
            source=line["source"],
            model=line["model"],
            variant=line["variant"],
            pretrain=line["pretrain"],
            dataset=line["dataset"],
            clip=line["clip"],
            crop=line["crop"],
            classes=_whole(line["n_classes"]),
            params_millions=_number(line["params_M"]),
            giga_macs=_number(line["gflops"]),
            giga_macs_printed=line["gflops"],
            convention=line["flops_convention"],
            views=line["views"],
            top1=_number(line["top1"]),
            top5=_number(line["top5"]),
            note=line["note"].strip(),
            confidence=line["confidence"],
        )
        for line in _corrected(_lines("published.csv"))
    )


@cache
def published_for(zoo_name: str) -> tuple[ZooRow, ...]:
    """Return the rows about the model that our zoo calls `zoo_name`; empty if nothing was published about it."""
    return tuple(
        ZooRow(zoo=zoo_name, row=row, frames=_whole(line["frames"]), size=_whole(line["size"]), known=line["known"])
        for line in _lines("zoo.csv")
        if line["zoo"] == zoo_name
        for row in published_rows()
        if _is_about(row, line)
    )


def zoo_names() -> list[str]:
    """Return the names of our models with published results, sorted."""
    return sorted({line["zoo"] for line in _lines("zoo.csv")})


def _corrected(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """The lines of `published.csv` with slips of their sources put right; the note of a line says so.

    If a source contradicts itself and nothing tells which value is right, the value stays.
    """
    for found in _lines("corrections.csv"):
        line = lines[int(found["published_csv_line"]) - 2]  # the header is line 1
        column, right = found["column"], found["value_at_source"]
        is_certain = column in line and "is not stated" not in found["verdict"]
        remark = f"{column} {line[column]} there, {right} by {found['evidence']}" if column in line else right
        line["note"] = "; ".join(part for part in (line["note"].strip(), f"{remark} ({found['verdict']})") if part)
        if is_certain:
            line[column] = right
    return lines


def _is_about(row: PublishedRow, line: dict[str, str]) -> bool:
    """Same model and clip; source and variant begin with what the line says, which may be nothing."""
    return (
        row.source.startswith(line["source"])
        and row.model == line["model"]
        and row.variant.startswith(line["variant"])
        and line["clip"] in ("", row.clip)
    )


def _lines(name: str) -> list[dict[str, str]]:
    text = files("bench.reference").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _whole(text: str) -> int | None:
    return int(text) if text else None
