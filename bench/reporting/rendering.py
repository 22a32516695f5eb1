"""Text to HTML: jinja2 with everything escaped, templates as files or beside the section that fills them."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, /, **values: Any) -> "Markup":
    """Fill a template given as text. Every value is escaped, unless it is Markup already."""
    from markupsafe import Markup

    return Markup(_compiled(template).render(**values))


def render_file(name: str, /, **values: Any) -> "Markup":
    """Fill the template of this name in the folder `templates`."""
    from markupsafe import Markup

    return Markup(_environment().get_template(name).render(**values))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _compiled(template: str) -> "Template":
    return _environment().from_string(template)
