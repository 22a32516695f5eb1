"""Published costs and accuracies, as their sources print them; what could not be read at the source stays a claim.

`published.csv` is the first table and `corrections.csv` what was found wrong in it, with the evidence.
`published_2026.csv` has later models, one line for each metric, with the commit that was read. `zoo.csv` says which
rows are about which of our models, and the clip at which the publisher counted if the row prints another one.
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
CLASSES = {
    "Kinetics-400": 400,
    "Kinetics-600": 600,
    "Kinetics-700": 700,
    "Kinetics-710": 710,
    "Something-Something V1": 174,
    "Something-Something V2": 174,
    "UCF101": 101,
    "HMDB51": 51,
}
# The metafile of this line of published.csv has the accuracy and the weights of one model and the cost of another.
MIXED_LINE, MIXED_NAMES = 187, ("MobileNetV2", "ResNet101")
# README and metafile print the cost of another model for the first line: of ip-CSN for ir-CSN, of Swin-L for Swin-S.
# The second line is about the same model. (mmaction2 4d6c93474730; at 02aa34d3a746 this ir-CSN costs 98.10 G, 29.70 M.)
MISPRINTED_COSTS = {125: 122, 164: 160}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One printed row. Unknown is None; `giga_macs` is for one view, whatever its source calls it.

    `clip`, `crop` and `views` are in the source's own words. `confidence` says how the row was read. `adaptation` is
    how a pretrained model got to the data set (`fine-tuned`, `attentive`, `zero-shot`, …), `sampling` is `dense`,
    `uniform` or `segments`; both are empty if not known. `commit` is that of `source`;
    `weights_hash` is printed for the file at `weights_url`.
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
    adaptation: str = ""
    sampling: str = ""
    commit: str = ""
    weights_url: str = ""
    weights_hash: str = ""

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
    """Every row of `published.csv`, in its order."""
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
def later_rows() -> tuple[PublishedRow, ...]:
    """Every accuracy of `published_2026.csv`, the lines of its metrics joined.

    Recall of anticipation and mean average precision of detection are left out: no measure takes them.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in _lines("published_2026.csv"):
        rest = {name: text for name, text in line.items() if name not in ("metric", "value", "note")}
        if line["metric"] in ("top1", "top5"):
            values = found.setdefault(tuple(rest.values()), {**rest, "note": line["note"]})
            values[line["metric"]] = line["value"]
    return tuple(map(_later_row, found.values()))


@cache
def published_for(zoo_name: str) -> tuple[ZooRow, ...]:
    """Return the rows about the model that our zoo calls `zoo_name`; empty if nothing was published about it."""
    return tuple(
        ZooRow(zoo=zoo_name, row=row, frames=_whole(line["frames"]), size=_whole(line["size"]), known=line["known"])
        for line in _lines("zoo.csv")
        if line["zoo"] == zoo_name
        for row in (*published_rows(), *later_rows())
        if _is_about(row, line)
    )


def zoo_names() -> list[str]:
    """Return the names of our models with published results, sorted."""
    return sorted({line["zoo"] for line in _lines("zoo.csv")})


def _corrected(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """The lines of `published.csv` with mistakes of their sources corrected; the note of a corrected line says so.

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
    mixed = lines[MIXED_LINE - 2]
    wrong, right = MIXED_NAMES
    mixed.update(params_M="", gflops="", variant=mixed["variant"].replace(wrong, right))
    for number, other_number in MISPRINTED_COSTS.items():
        line, other = lines[number - 2], lines[other_number - 2]
        params = other["params_M"] if line["n_classes"] == other["n_classes"] else ""
        remark = (
            f"cost {line['gflops']} G, {line['params_M']} M there, of another model; here that of {other['variant']}"
        )
        line.update(gflops=other["gflops"], params_M=params)
        line["note"] = "; ".join(part for part in (line["note"].strip(), remark) if part)
    return lines


def _later_row(line: dict[str, str]) -> PublishedRow:
    temporal, spatial = line["views_temporal"], line["views_spatial"]
    is_of_one_view = line["flops_scope"] == "per view" or (
        line["flops_scope"] == "per video" and temporal == spatial == "1"
    )
    return PublishedRow(
        source=line["source"],
        model=line["model"],
        variant=line["variant"],
        pretrain=line["pretrain"],
        dataset=line["dataset"],
        clip=f"{line['clip_frames']}x{line['stride']}" if line["stride"] else f"{line['clip_frames']} frames",
        crop=line["crop"],
        classes=CLASSES.get(line["dataset"]),
        params_millions=_number(line["params_M"]),
        giga_macs=_number(line["gflops_as_printed"]) if is_of_one_view else None,
        giga_macs_printed=line["gflops_as_printed"],
        convention=f"printed as FLOPs {line['flops_scope']}" if line["flops_scope"] else "",
        views=f"{temporal}x{spatial}" if temporal and spatial else line["views_as_printed"],
        top1=_number(line.get("top1", "")),
        top5=_number(line.get("top5", "")),
        note=line["note"],
        confidence="mirror",
        adaptation=line["adaptation"],
        sampling=line["sampling"],
        commit=line["commit"],
        weights_url=line["weights_url"],
        weights_hash=line["weights_sha256_or_md5"],
    )


def _is_about(row: PublishedRow, line: dict[str, str]) -> bool:
    """Same model and clip; source, variant and data set begin with what the line says, which may be nothing.

    Later rows name their variants in full: L/14 is another model than L/14@336.
    """
    is_variant = row.variant == line["variant"] if row.commit else row.variant.startswith(line["variant"])
    return (
        row.source.startswith(line["source"])
        and row.model == line["model"]
        and is_variant
        and line["clip"] in ("", row.clip)
        and row.dataset.startswith(line["dataset"])
    )


def _lines(name: str) -> list[dict[str, str]]:
    text = files("bench.reference").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _whole(text: str) -> int | None:
    return int(text) if text else None
