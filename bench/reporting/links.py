"""Addresses of the pages of a site: `board.html` and `models/c3d.html` in a folder, `#page-board` in a single file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.core.schema import digest

LONGEST_NAME = 60
BOARD_CSV = "data/board.csv"  # below the root of a site in a folder
ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})\b", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes the addresses that one page uses; `prefix` leads from its folder to the root of the site."""

    is_single_file: bool = False
    has_details: bool = True  # whether the site has pages of models and cases
    prefix: str = ""

    def page(self, name: str, section: str = "") -> str:
        """The address of a page such as `board` or `models/c3d`, or of one section of it; empty for a missing page."""
        if "/" in name and not self.has_details:
            return ""
        if self.is_single_file:
            return f"#{section or page_id(name)}"
        return f"{self.prefix}{name}.html{'#' + section if section else ''}"

    @property
    def from_subfolder(self) -> "Links":
        """The same addresses for a page in a folder below the root."""
        return replace(self, prefix="" if self.is_single_file else "../")


def page_id(name: str) -> str:
    """The id of a page's element in a single file."""
    return f"page-{name.replace('/', '-')}"


def paper_page(text: str) -> str:
    """The address of the first arXiv paper that `text` names; empty if it names none."""
    found = ARXIV.search(text)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def file_names(texts: Sequence[str]) -> list[str]:
    """A file name of letters, digits, `.`, `_` and `-` for each text, unique even if the case of letters is ignored."""
    names, used = [], set()
    for number, text in enumerate(texts):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:LONGEST_NAME]
        name = plain if plain and plain == text.replace(" ", "-") else f"{plain or 'name'}-{digest(text)[:6]}"
        while name.lower() in used:
            name = f"{name}-{number}"
        used.add(name.lower())
        names.append(name)
    return names
