"""Fills HTML templates, which are files or texts in a section. All values are escaped; see `harmless`."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.control_characters import visible

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"  # first strong isolate, pop directional isolate (Unicode TR 9)
# Letters that are written from right to left: Hebrew, Arabic and their neighbours.
RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]+(?:[ _-][\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]+)*"
)
TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, /, **values: Any) -> "Markup":
    """Fill a template given as text. Values are escaped, unless they are Markup."""
    from markupsafe import Markup

    return Markup(_compiled(template).render(**values))


def render_file(name: str, /, **values: Any) -> "Markup":
    """Fill a template of the folder `templates`."""
    from markupsafe import Markup

    return Markup(_environment().get_template(name).render(**values))


def harmless(text: str) -> str:
    """`text` with visible control characters, and with words that run from right to left isolated from the rest.

    Without that a direction override or an Arabic name in a sentence would turn round the digits that follow it.
    """
    if text.isascii() and text.isprintable():
        return text
    return RIGHT_TO_LEFT.sub(lambda found: f"{ISOLATE}{found[0]}{END_OF_ISOLATE}", visible(text))


@lru_cache(maxsize=2**14)  # names, units and marks repeat in thousands of cells
def safe(text: str) -> str:
    """`text` as HTML: harmless and escaped, for attributes in double quotes too."""
    return html.escape(harmless(text))


def link_list(links: Iterable[tuple[str, str]]) -> str:
    """The `data-links` of a shape of a drawing, which its popover shows: addresses and texts; those without one go."""
    return json.dumps([(address, harmless(text)) for address, text in links if address])


def _finalize(value: Any) -> Any:
    """jinja2's finalize: makes plain text harmless and leaves Markup as it is."""
    return harmless(value) if type(value) is str else value


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _compiled(template: str) -> "Template":
    return _environment().from_string(template)


@dataclass(frozen=True, kw_only=True)
class DrawnSection:
    """The HTML of one section of a page, and the image files that it shows, by their path below the site's root."""

    name: str
    title: str
    html: str
    images: Mapping[str, bytes] = field(default_factory=dict)
