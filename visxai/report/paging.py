"""What the pages of runs over texts and over pairs share: where they lie, and their links."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visxai.errors import StoreError
from visxai.foreign import for_html, shown


def report_of(folder: Path) -> Path:
    """Return the folder of a run's pages.

    Args:
        folder: The folder of the run.

    Raises:
        StoreError: It is a link, which would lead the pages elsewhere.
    """
    report = folder / "report"
    if report.is_symlink():
        raise StoreError(
            f"expected a folder of visxai's own, got the symbolic link {shown(report)}: delete it "
            "and run it again"
        )
    return report


def place(report: Path, number: int) -> Path:
    """Return the file of a page, from 1."""
    return report / ("index.html" if number == 1 else f"page-{number}.html")


def links(number: int, pages: int) -> str:
    """Link a page with the others, as HTML; "" where it is the only one."""
    if pages == 1:
        return ""
    found = " ".join(
        f"<b>{n}</b>" if n == number else f'<a href="{place(Path(), n).name}">{n}</a>'
        for n in range(1, pages + 1)
    )
    return f"<p>Page {found}</p>"


def summary(about: Mapping[str, Any], *facts: str) -> str:
    """Say how far a run came, as HTML.

    Args:
        about: The content of its run.json.
        *facts: What to say, in which {finished}, {images}, {maps} and {failures} stand for counts.
    """
    counts = {"finished": 0, "images": 0, "maps": 0, "failures": 0, **about.get("counts", {})}
    unfinished = "" if about.get("state") == "complete" else "; the run isn't finished"
    return f"<p>{for_html(', '.join(facts).format(**counts) + unfinished)}</p>"


def title(folder: Path, about: Mapping[str, Any]) -> str:
    """Name the pages of a run by its folder and its model."""
    return f"{folder.name}: {about['settings'].get('model')}"
