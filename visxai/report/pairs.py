"""The pages of a run over images with texts: every pair with both maps, without any script.

OUT/report/index.html      counts and the first pairs
OUT/report/page-2.html     the pairs after those, and so on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visxai import files
from visxai.errors import StoreError
from visxai.foreign import for_html, shown
from visxai.record.pair import PairExplanation, page
from visxai.results import reading

_PAGE = 50  # pairs of a page, whose pictures it holds


def build(
    folder: Path, about: Mapping[str, Any], progress: Callable[[int, int], None]
) -> tuple[Path, int, int]:
    """Write the pages of a run over images with texts.

    Args:
        folder: The folder of the run.
        about: The content of its run.json.
        progress: Called with the number of explanations done and of all.

    Returns:
        The first page, the number of explanations on the pages, and of all explanations.

    Raises:
        StoreError: The folder can't be written, or a link would lead the pages elsewhere.
    """
    report = folder / "report"
    if report.is_symlink():
        raise StoreError(
            f"expected a folder of visxai's own, got the symbolic link {shown(report)}: delete it "
            "and run it again"
        )
    total = reading.count(folder)
    pages = max(1, -(-total // _PAGE))
    counts = about.get("counts", {})
    told = (
        f"{counts.get('finished', 0)} of {counts.get('images', 0)} pairs, "
        f"{counts.get('failures', 0)} failures"
        + ("" if about.get("state") == "complete" else "; the run isn't finished")
    )
    title = f"{folder.name}: {about['settings'].get('model')}"
    with files.one_sentence(f"to write {report}", "make room there and run it again"):
        report.mkdir(exist_ok=True)
        held: list[PairExplanation] = []
        done, number = 0, 1
        for one in reading.read(folder):
            if isinstance(one, PairExplanation):
                held.append(one)
            done += 1
            progress(done, total)
            if len(held) == _PAGE or done == total:
                links = _links(number, pages)
                files.write(
                    _place(report, number), page(held, title, f"<p>{for_html(told)}</p>{links}")
                )
                held, number = [], number + 1
        if not total:
            files.write(_place(report, 1), page([], title, f"<p>{for_html(told)}</p>"))
    return _place(report, 1), done, total


def _place(report: Path, number: int) -> Path:
    return report / ("index.html" if number == 1 else f"page-{number}.html")


def _links(number: int, pages: int) -> str:
    if pages == 1:
        return ""
    links = " ".join(
        f"<b>{n}</b>" if n == number else f'<a href="{_place(Path(), n).name}">{n}</a>'
        for n in range(1, pages + 1)
    )
    return f"<p>Page {links}</p>"
