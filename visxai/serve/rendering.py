"""Filling the templates of pages.

Names, labels and reasons come from strangers: the templates escape all of them, and the content
security policy allows no script or style but the service's own files.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from visxai.drawing import tokens
from visxai.record.pair import PARTS, PairExplanation

if TYPE_CHECKING:
    from visxai.record.image import ImageExplanation
    from visxai.record.table import TableExplanation
    from visxai.record.text import TextExplanation

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


def text_fragment(made: TextExplanation) -> str:
    """Draw a text's explanation as a figure: its words highlighted, and the key to the colours."""
    key = tokens.legend(made.two_sided)
    return f"<figure>{made.html()}<figcaption>{key}</figcaption></figure>"


def parts_of(made: PairExplanation) -> dict[str, Any]:
    """Lay out what each part of a post added to its score, for the template parts.html.

    Args:
        made: The explanation.

    Returns:
        `made`, and `lines`: name, model and its score, what it added, and its bar's start and
        width in a box of 100 of which the middle is none.
    """
    lines = zip(PARTS, (made.image, made.text), made.values.tolist(), strict=True)
    return {
        "made": made,
        "lines": [
            {
                "name": name,
                "said": f"{part.label} {part.score:.2f} by {part.model.name}",
                "value": round(value, 3) + 0.0,
                "start": 50 + min(0.0, 48 * value),
                "width": max(0.5, 48 * min(1.0, abs(value))),
            }
            for name, part, value in lines
        ],
    }


def post_fragment(made: PairExplanation, jpeg: bytes) -> str:
    """Draw a post's explanation as a figure without scripts: what each part added, and both maps.

    Args:
        made: The explanation.
        jpeg: The image with its map over it.
    """
    parts = templates.get_template("parts.html").render(parts=parts_of(made))
    return parts + fragment(made.image, jpeg) + text_fragment(made.text)


def row_of(made: TableExplanation, most: int = 12) -> dict[str, Any]:
    """Lay out a row's explanation for the template row.html.

    Args:
        made: The explanation.
        most: The most columns to list; what the others added becomes one line.

    Returns:
        `made`, and `lines`: name, own and typical value, what it added, and its bar's start and
        width in a box of 100.
    """
    found = made.contributions
    lines = [(one.feature, _cell(one.cell), _cell(one.typical), one.value) for one in found[:most]]
    if rest := found[most:]:
        lines.append((f"{len(rest)} others", "", "", sum(one.value for one in rest)))
    peak = max((abs(value) for *_, value in lines), default=0.0) or 1.0
    keys = ("name", "own", "typical", "value")
    return {
        "made": made,
        "lines": [
            {
                **dict(zip(keys, line, strict=True)),
                "start": 50 + min(0.0, 48 * line[3] / peak),
                "width": max(0.5, 48 * abs(line[3]) / peak),
            }
            for line in lines
        ],
    }


def row_fragment(made: TableExplanation, confidence: Mapping[str, Any]) -> str:
    """Draw a row's explanation as a figure, its reasons first, without styles or scripts.

    Args:
        made: The explanation.
        confidence: What the envelope says of it, the reasons among it.
    """
    reasons = [one["sentence"] for one in confidence.get("reasons", ())]
    note = confidence.get("no_reasons")
    return templates.get_template("row.html").render(
        row=row_of(made), reasons=reasons or ([note] if note else [])
    )


def _cell(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else str(value)


def framed(fragment: str) -> str:
    """Make a whole page of a fragment, light or dark as its reader likes, for a frame.

    Args:
        fragment: HTML that is safe already.
    """
    return templates.get_template("frame.html").render(fragment=Markup(fragment))
