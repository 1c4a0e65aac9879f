"""The pictures of a gallery, and the tables of what they show.

An explanation has three pictures: the photograph (shared by all explanations of an image), the
overlay and the map. They are drawn at thumbnail size in worker processes, which a hostile file may
kill. A picture's name is the hash of its content, so existing pictures are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import visxai
from visxai.drawing import colours
from visxai.errors import ArgumentError, Failure
from visxai.foreign import below, shown
from visxai.images import decoding
from visxai.images.address import Origin
from visxai.images.preprocess import Preprocess
from visxai.pipeline.tasks import Setup, Style
from visxai.pipeline.workers import Task, Workers
from visxai.record.image import ImageExplanation
from visxai.report import figures as measure
from visxai.report.answers import right
from visxai.report.figures import Figures
from visxai.report.thumbnails import Drawing, Drawn, picture
from visxai.results import reading
from visxai.results.rows import Row, image_of

SIDE = 512  # pixels of a picture's longest side
_ROW = (
    *("image", "label", "score", "logit", "method", "layer", "scale", "top", "unseen"),
    *("degenerate", "converged", "faithful", "spread", "against", "peak"),
    *("overlay", "map", "file", "quality", "seconds"),
)
_IMAGE = ("path", "width", "height", "sha256", "photo", "note", "expected", "right", "given")


class Shown(NamedTuple):
    """An explanation on the page.

    Attributes:
        explanation: The explanation.
        row: The row it was read from.
        out: The folder of its run, None for a run whose rows are beside the gallery's own.
    """

    explanation: ImageExplanation
    row: Row
    out: Path | None


@dataclass
class Album:
    """The pictures of OUT below `folder`, and the tables of what they show.

    The rows of OUT may be a stranger's: a file that they name is read only where it can be nothing
    but a photograph or an overlay of this OUT.

    Attributes:
        out: The folder of the run.
        folder: The folder for the pictures.
        settings: The settings of the run.
        side: The longest side of a picture, in pixels.
        limit: The most explanations with pictures, None for all.
        remote: Whether to fetch originals behind URLs.
        beside: The folders of other runs, whose explanations of the same images are shown too.
        missing: The number of images without a photograph.
    """

    out: Path
    folder: Path
    settings: Mapping[str, Any]
    side: int = SIDE
    limit: int | None = None
    remote: bool = False
    beside: Sequence[Path] = ()
    missing: int = 0
    _tables: dict[str, dict[str, int]] = field(default_factory=dict)
    _scales: dict[colours.Scale, int] = field(default_factory=dict)

    def collect(
        self, figures: Figures, workers: int | None, progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """Draw all pictures.

        Args:
            figures: Sums of the maps, to which all explanations are added.
            workers: The number of processes, None for one for each core, 0 for none.
            progress: Called with the number of rows done and of all rows.

        Returns:
            The page's tables, each a dict of columns, its colour scales, and the number of all
            rows.
        """
        style = self.settings.get("overlays") or {}
        limits = decoding.limits_of(self.settings)
        drawn = Style("webp", style.get("colormap"))
        writes = (str(self.folder),)
        setup = Setup(Preprocess((1, 1)), limits, drawn, cache=0, writes=writes)
        rows = reading.count(self.out)
        pool = Workers(setup, _count(workers, rows))
        ahead = 1 + 4 * pool.count
        waiting: deque[tuple[int, list[dict[str, Any]], str | None, Task | None]] = deque()
        table: dict[str, list[Any]] = {name: [] for name in _ROW}
        listed: dict[str, list[Any]] = {name: [] for name in _IMAGE}
        done = total = own = 0

        def finish() -> None:
            image, entries, photo, task = waiting.popleft()
            result = None if task is None else pool.result(task)
            self._finish(listed, image, entries, photo, result)
            for entry in entries:
                for name in _ROW:
                    table[name].append(entry[name])
            progress(own, rows)

        try:
            progress(0, rows)
            for group in self._groups():
                own += sum(one.out is not None for one in group)
                total += len(group)
                for one in group:
                    figures.add(one.explanation, self._method(one.explanation))
                if self.limit is not None:
                    group = group[: max(0, self.limit - done)]
                done += len(group)
                if not group:
                    continue
                image = len(listed["path"])
                self._list(listed, group)
                entries = [self._entry(image, one) for one in group]
                photo, task = self._start(pool, group, entries)
                waiting.append((image, entries, photo, task))
                while len(waiting) > ahead:
                    finish()
            while waiting:
                finish()
        finally:
            pool.close()
        strings = {name: list(values) for name, values in self._tables.items()}
        scales = [measure.scale_told(one) for one in self._scales]
        tables = {"rows": table, "images": listed, "strings": strings}
        return tables | {"scales": scales, "total": total}

    def _groups(self) -> Iterator[list[Shown]]:
        """Yield the explanations of each image, those of the other runs behind its own."""
        others: dict[str, list[Row]] = {}
        for folder in self.beside:
            for part in reading.tables(folder):
                for row in part.to_pylist():
                    others.setdefault(row["source_sha256"], []).append(row)
        for part in reading.tables(self.out):
            for _, rows in itertools.groupby(part.to_pylist(), key=lambda row: row["path"]):
                group = [Shown(image_of(row), row, self.out) for row in rows]
                beside = others.get(group[0].explanation.input.source_sha256, ())
                yield group + [Shown(image_of(row), row, None) for row in beside]

    def _method(self, one: ImageExplanation) -> str:
        """Name the method of an explanation, and the model where the page shows several runs."""
        return f"{one.method} · {shown(one.model.name)}" if self.beside else one.method

    def _start(
        self,
        pool: Workers,
        group: list[Shown],
        entries: list[dict[str, Any]],
    ) -> tuple[str | None, Task | None]:
        """Start drawing an image's pictures.

        Returns:
            The photograph's name, and the task that draws the pictures, None where all of them
            exist.
        """
        first = group[0].explanation
        photo = _name("photo", first.input.source_sha256, self.side)
        panel = (self.settings.get("overlays") or {}).get("panel", False)
        wanted = []
        for (explanation, _, _), entry in zip(group, entries, strict=True):
            overlay = entry["file"]
            drawn = below(self.out / "overlays", overlay) if overlay and not panel else None
            wanted.append(
                Drawing(explanation, self._at(entry["overlay"]), self._at(entry["map"]), drawn)
            )
        there = [self._at(photo), *(p for one in wanted for p in (one.overlay, one.map))]
        if all(path.exists() for path in there):
            return photo, None
        path = first.input.path or ""
        source = Origin.of(path) if self.remote else Origin.of(path).barred()
        return photo, pool.submit(picture, source, self._at(photo), wanted, self.side)

    def _finish(
        self,
        listed: dict[str, list[Any]],
        image: int,
        entries: list[dict[str, Any]],
        photo: str | None,
        result: Drawn | Failure | None,
    ) -> None:
        """Enter the result of drawing an image's pictures into the tables."""
        if isinstance(result, Failure):
            # The worker process died, but it may have drawn some of the pictures.
            result = Drawn("The original can't be read any more.", [False] * len(entries))
            for entry in entries:
                entry["map"] = entry["map"] if self._at(entry["map"]).exists() else None
        listed["photo"][image] = photo if photo and self._at(photo).exists() else None
        if result is None:
            return
        if listed["photo"][image] is None:
            listed["note"][image] = result.note
            self.missing += 1
        for entry, there in zip(entries, result.overlays, strict=True):
            entry["overlay"] = entry["overlay"] if there else None

    def _at(self, name: str) -> Path:
        """Return the file of a picture."""
        return self.folder / name[:2] / f"{name}.webp"

    def _list(self, listed: dict[str, list[Any]], group: list[Shown]) -> None:
        """Append an image to the table of images."""
        about, rows = group[0].explanation.input, [one.row for one in group if one.out]
        path = shown(about.path or "image in memory")
        told = (path, about.width, about.height)
        drawn = (about.source_sha256, None, None)
        answer = (rows[0].get("expected"), right(rows, self.settings))
        # What `visxai explain -` reads has to be the path itself.
        given = None if path == about.path else about.path
        for name, value in zip(_IMAGE, (*told, *drawn, *answer, given), strict=True):
            listed[name].append(value)

    def _entry(self, image: int, on_page: Shown) -> dict[str, Any]:
        """Make the row of an explanation in the page's table."""
        one, row, out = on_page
        style = self.settings.get("overlays") or {}
        scale = colours.scale_of(one.placed, style.get("colormap"))
        transform = sorted(one.input.transform.to_dict().items())
        shows = (row["map"], one.values.shape, one.degenerate, transform, one.input.source_sha256)
        style_of = (scale, self.side, visxai.__version__)
        return {
            "image": image,
            "label": self._index("label", one.label),
            "score": one.score,
            "logit": one.logit,
            "method": self._index("method", self._method(one)),
            "layer": self._index("layer", one.layer or ""),
            "scale": self._scales.setdefault(scale, len(self._scales)),
            "top": self._top(one),
            "unseen": one.seen() != (0, 0, one.input.width, one.input.height),
            "degenerate": one.degenerate,
            "converged": one.quality.get("converged"),
            "faithful": one.quality.get("faithful"),
            "spread": None if one.degenerate else measure.spread(one.values),
            "against": measure.against(one.values),
            "peak": row["map_scale"],
            "overlay": _name("overlay", *shows, *style_of),
            "map": _name("map", *shows, *style_of),
            "file": row["overlay"] if out else None,
            "quality": dict(one.quality),
            "seconds": one.seconds,
        }

    def _top(self, one: ImageExplanation) -> int | None:
        """Return the number of the text that holds the strongest classes, None without them."""
        ranked = [(self._index("name", top.label), top.score) for top in one.top_scores]
        told = [[name, None if score is None else round(score, 6)] for name, score in ranked]
        return self._index("top", json.dumps(told, separators=(",", ":"))) if told else None

    def _index(self, table: str, value: str) -> int:
        """Return the number of a string in a table of strings, to which a new string is added."""
        known = self._tables.setdefault(table, {})
        return known.setdefault(value, len(known))


def _name(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:24]


def _count(workers: int | None, rows: int) -> int:
    if workers is not None and workers < 0:
        raise ArgumentError(
            f"expected 0 or more workers, got {workers}: leave it out for one a core"
        )
    if rows <= 8:
        return 0  # starting processes would take longer
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 32) if workers is None else workers
