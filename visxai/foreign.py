"""Safe handling of untrusted text and paths: file names, labels, metadata, rows of an OUT folder.

    shown(name)              any output: escapes control characters and stray bytes
    for_terminal(label)      rich's markup: is shown literally and can't control the terminal
    for_html(label)          HTML, between tags or inside a quoted attribute
    for_cell(label)          a spreadsheet's cell: is shown and not computed
    below(folder, name)      a path that lies inside a folder, or None

Whatever prints, writes HTML or writes CSV passes untrusted text through these functions.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def shown(text: str | os.PathLike[str]) -> str:
    """Escape what isn't printable: control and direction characters, and undecodable bytes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(text)
    )


def for_terminal(text: str | os.PathLike[str]) -> str:
    """Escape text for rich's markup: it is shown literally and can't control the terminal."""
    from rich.markup import escape

    return escape(shown(text))


def for_html(text: str) -> str:
    """Escape text for HTML, between tags or inside a quoted attribute."""
    return html.escape(shown(text))


def for_cell(value: Any) -> Any:
    """Prefix text that a spreadsheet would take for a formula with an apostrophe.

    Spreadsheets compute cells that start with = + - @, a tab or a line break. Other text, numbers
    and None are returned unchanged.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def below(folder: Path, name: str) -> Path | None:
    """Resolve `name` inside `folder`; return None where the path leads out of it.

    A path leads out by "..", by being absolute or by a symbolic link. Folders above `folder` may be
    symbolic links.
    """
    try:
        place = folder.parent.resolve() / folder.name
        path = (place / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, or an invalid name
        return None
    return path if path != place and path.is_relative_to(place) else None
