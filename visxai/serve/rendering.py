"""Filling the templates of pages.

Names, labels and reasons come from strangers: the templates escape all of them, and the content
security policy allows no script or style but the service's own files.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from visxai.record.image import ImageExplanation

_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_NAMES = {"review": "first look", "appeal": "appeals", "escalated": "escalated"}

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True
)


def page(template: str, title: str, status: int = 200, **values: Any) -> Response:
    """Fill a template; everything in it is escaped."""
    told = {"title": title, "names": _NAMES, "who": None, "page": "", **values}
    html = templates.get_template(template).render(**told)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(html, status, headers)


def login_page(status: int = 200, wrong: bool = False) -> Response:
    """Return the page that asks for a key."""
    return page("login.html", "Log in", status, wrong=wrong)


def fragment(made: ImageExplanation, jpeg: bytes) -> str:
    """Draw an image's explanation as a figure with its picture inside, without styles or scripts.

    Args:
        made: The explanation.
        jpeg: The image with its map over it.
    """
    return templates.get_template("fragment.html").render(
        made=made,
        picture=base64.b64encode(jpeg).decode("ascii"),
        regions=[] if made.degenerate else made.regions(top=3),
    )


def framed(fragment: str) -> str:
    """Make a whole page of a fragment, light or dark as its reader likes, for a frame.

    Args:
        fragment: HTML that is safe already.
    """
    return templates.get_template("frame.html").render(fragment=Markup(fragment))
