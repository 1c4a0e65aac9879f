"""The page as HTML: its template, style and scripts, filled with data.

A page opened from disk can neither fetch nor load modules, so the file contains everything. Names
of files and labels come from strangers: they are embedded as JSON in a block that is never run, the
scripts insert them as text only, and a content security policy allows no script but those below, by
their hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visxai.foreign import for_html

_HERE = Path(__file__).parent
_HEAD = _HERE / "head.html"
_FILES = ("data.js", "plots.js", "kept.js", "grid.js", "viewer.js", "page.js")
_CODE = tuple(_HERE / one for one in _FILES)


def filled(
    title: str,
    data: dict[str, Any],
    *,
    template: Path = _HERE / "page.html",
    styles: Sequence[Path] = (_HERE / "page.css",),
    scripts: Sequence[Path] = _CODE,
    forms: bool = False,
) -> str:
    """Fill a page with a title and data.

    Args:
        title: The page's title, any text.
        data: Plain values; numbers that aren't finite become null.
        template: What follows the page's head, with places for title, data and code.
        styles: Its styles, by default the gallery's.
        scripts: Its scripts, likewise.
        forms: Whether its forms may post to the server that the page came from.

    Returns:
        The HTML.
    """
    style = "".join(path.read_text("utf-8") for path in styles)
    code = "".join(path.read_text("utf-8") for path in scripts)
    code = f'"use strict";\n(() => {{\n{code}}})();\n'
    target = "self" if forms else "none"
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action '{target}'; img-src 'self' file: data:; "
        f"style-src {_hash(style)}; script-src {_hash(code)}"
    )
    values = {
        "policy": policy,
        "referrer": "same-origin" if forms else "no-referrer",  # the server knows its forms by it
        "title": for_html(title),
        "style": style,
        "data": as_json(data),
        "code": code,
    }
    pieces = (_HEAD.read_text("utf-8") + template.read_text("utf-8")).split("{{")
    # Filled piece by piece, so that text in a value is never taken for a placeholder.
    text = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        text += values[name] + rest
    return text


def as_json(data: Any) -> str:
    """Write JSON that is safe inside a script element: ASCII, without "<", numbers finite."""
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
