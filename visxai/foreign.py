"""Text and paths from strangers: names of files, labels, metadata, rows of an OUT folder.

    shown(name)              anywhere: control characters and stray bytes are escaped
    for_terminal(label)      rich's markup: it is shown as it is, and steers no terminal
    for_html(label)          between tags or inside a quoted attribute
    for_cell(label)          a spreadsheet shows it and doesn't compute it
    below(folder, name)      a path that names something inside a folder, or None

Whatever prints, writes HTML or writes CSV takes foreign text through here.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def shown(text: str | os.PathLike[str]) -> str:
    """Escape what isn't printable: control and direction characters, and bytes that are no text."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(text)
    )


def for_terminal(text: str | os.PathLike[str]) -> str:
    """Escape text for rich's markup, so that it is shown as it is and steers no terminal."""
    from rich.markup import escape

    return escape(shown(text))


def for_html(text: str) -> str:
    """Escape text for HTML, between tags or inside a quoted attribute."""
    return html.escape(shown(text))


def for_cell(value: Any) -> Any:
    """Mark text that a spreadsheet would take for a formula by an apostrophe before it.

    Spreadsheets compute cells that start with = + - @, a tab or a line break. Other text, numbers
    and None stay as they are.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def below(folder: Path, name: str) -> Path | None:
    """The path of `name` inside `folder`, or None where it leads out, by "..", by an absolute
    path or by a symbolic link (the folder itself may lie behind one of its parents')."""
    try:
        place = folder.parent.resolve() / folder.name
        path = (place / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, or a name that is none
        return None
    return path if path != place and path.is_relative_to(place) else None
