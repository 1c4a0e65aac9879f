"""The pages of a run over images with texts: every pair with both maps, without any script.

OUT/report/index.html      counts and the first pairs
OUT/report/page-2.html     the pairs after those, and so on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visxai import files
from visxai.record.pair import PairExplanation, page
from visxai.report import paging
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
    report = paging.report_of(folder)
    total = reading.count(folder)
    pages = max(1, -(-total // _PAGE))
    told = paging.summary(about, "{finished} of {images} pairs", "{failures} failures")
    title = paging.title(folder, about)
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
                top = told + paging.links(number, pages)
                files.write(paging.place(report, number), page(held, title, top))
                held, number = [], number + 1
        if not total:
            files.write(paging.place(report, 1), page([], title, told))
    return paging.place(report, 1), done, total
