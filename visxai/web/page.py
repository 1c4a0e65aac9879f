"""The page itself: its template, styles and code, filled with data that stays data.

A page opened from disk can neither fetch nor load modules, so all is inside it. Names of files and
labels come from strangers: they travel as JSON in a block that is never run, the code puts them on
the page as text only, and a content security policy runs nothing but the code below, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from visxai.foreign import for_html

_HERE = Path(__file__).parent
_CODE = ("data.js", "plots.js", "grid.js", "viewer.js", "page.js")


def filled(title: str, data: dict[str, Any]) -> str:
    """The page as HTML. data: plain values; numbers that aren't finite become null."""
    style = (_HERE / "page.css").read_text("utf-8")
    code = "".join((_HERE / name).read_text("utf-8") for name in _CODE)
    code = f'"use strict";\n(() => {{\n{code}}})();\n'
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src {_hash(style)}; script-src {_hash(code)}"
    )
    values = {
        "policy": policy,
        "title": for_html(title),
        "style": style,
        "data": as_json(data),
        "code": code,
    }
    pieces = (_HERE / "page.html").read_text("utf-8").split("{{")
    # Piece by piece, so that nothing in a value is ever taken for a place to fill.
    text = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        text += values[name] + rest
    return text


def as_json(data: Any) -> str:
    """JSON that can lie inside a script element: ASCII, without "<", numbers finite."""
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
