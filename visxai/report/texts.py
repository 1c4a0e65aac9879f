"""The pages of a run over texts: every text with its words highlighted, without any script.

OUT/report/index.html      counts, the words of the greatest weight, and the first texts
OUT/report/page-2.html     the texts after those, and so on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from visxai import files
from visxai.drawing import tokens
from visxai.foreign import for_html
from visxai.record.text import TextExplanation
from visxai.report import paging
from visxai.results import reading

_PAGE = 200  # explanations of a page
_WORDS = 20  # words of the table
_LEAST = 3  # explanations that a word of the table stands in


def build(
    folder: Path, about: Mapping[str, Any], progress: Callable[[int, int], None]
) -> tuple[Path, int, int]:
    """Write the pages of a run over texts.

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
    first = report / "index.html"
    pages = max(1, -(-total // _PAGE))
    with files.one_sentence(f"to write {first}", "make room there and run it again"):
        report.mkdir(exist_ok=True)
        words = _words(_explanations(folder))
        done = 0
        held: list[tokens.Part] = []
        number = 1
        for one in _explanations(folder):
            held.append(one.part())
            done += 1
            progress(done, total)
            if len(held) == _PAGE and number < pages:
                files.write(
                    paging.place(report, number), _page(folder, about, held, number, pages, words)
                )
                held, number = [], number + 1
        files.write(paging.place(report, number), _page(folder, about, held, number, pages, words))
    return first, done, total


def _explanations(folder: Path) -> Iterator[TextExplanation]:
    for one in reading.read(folder):
        if isinstance(one, TextExplanation):
            yield one


def _words(found: Iterator[TextExplanation]) -> list[tuple[str, str, int, float]]:
    """List the words of the greatest mean value: (label, word, explanations, mean)."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in found:
        seen: dict[str, float] = {}
        for word, value in zip(one.words, one.values.tolist(), strict=True):
            key = word.casefold()
            seen[key] = seen.get(key, 0.0) + value
        for word, value in seen.items():
            known = sums.setdefault(
                (f"{one.label} by {one.method.partition('(')[0]}", word), [0, 0]
            )
            known[0] += 1
            known[1] += value
    often = [
        (label, word, int(count), total / count)
        for (label, word), (count, total) in sums.items()
        if count >= _LEAST
    ]
    return sorted(often, key=lambda row: -abs(row[3]))[:_WORDS]


def _page(
    folder: Path,
    about: Mapping[str, Any],
    parts: list[tokens.Part],
    number: int,
    pages: int,
    words: list[tuple[str, str, int, float]],
) -> str:
    """Draw one page, as text of HTML."""
    drawn = tokens.page(parts, paging.title(folder, about))
    counts = "{finished} of {images} texts", "{maps} explanations", "{failures} failures"
    top = paging.summary(about, *counts)
    if number == 1 and words:
        rows = "".join(
            f"<tr><td>{for_html(word)}<td>{mean:+.3f}<td>{count}<td>{for_html(label)}"
            for label, word, count, mean in words
        )
        top += (
            "<details><summary>Words of the greatest mean weight</summary>"
            '<table cellpadding="4" style="overflow-wrap:anywhere;text-align:left"><tr>'
            "<th>word<th>"
            f"mean weight<th>explanations<th>of{rows}</table></details>"
        )
    turn = paging.links(number, pages)
    return drawn.replace("</h1>", f"</h1>{top}{turn}", 1).replace("<footer>", f"{turn}<footer>", 1)
