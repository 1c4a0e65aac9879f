"""The files of a finished evaluation, all derived from its rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from visxai.drawing import colours, overlays, sheets
from visxai.errors import ImageError
from visxai.evaluate import pages, plots
from visxai.evaluate.grids import Grids
from visxai.evaluate.summary import Rows, short, summarise
from visxai.files import write as write_file
from visxai.foreign import for_cell
from visxai.methods.base import Method
from visxai.metrics.base import Metric
from visxai.record.image import ImageExplanation
from visxai.results.reading import about, tables
from visxai.results.rows import SCHEMA, image_of

_CELL = 224  # side of a picture among the examples, in pixels


def write(
    out: Path,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    grids: Grids | None,
    draws: int,
    seed: int,
    examples: int,
) -> dict[str, Any]:
    """Write evaluation.json, .md and .html, rows.csv, the plots and the examples.

    Args:
        out: The folder of the evaluation.
        methods: The methods, controls included.
        metrics: The metrics.
        grids: The figures of metrics over grids, or None.
        draws: The number of bootstrap draws.
        seed: The seed of the bootstrap.
        examples: The number of example images.

    Returns:
        The content of evaluation.json.
    """
    rows = Rows.read(out, methods)
    summary = summarise(rows, methods, metrics, grids, draws, seed, examples)
    settings = (about(out) or {})["settings"]
    summary["settings"] = settings
    summary["plots"] = {}
    for name, plot in (("ranks", plots.ranks(summary)), ("curves", plots.curves(summary))):
        if plot is not None:
            write_file(out / f"{name}.svg", plot)
            summary["plots"][name] = f"{name}.svg"
    picture = _examples(out, summary, methods)
    if picture is not None:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        write_file(out / "examples.jpg", buffer.getvalue())
        summary["plots"]["examples"] = "examples.jpg"
    write_file(out / "rows.csv", _csv(rows))
    write_file(out / "evaluation.json", json.dumps(summary, indent=1) + "\n")
    write_file(out / "evaluation.md", pages.markdown(summary, settings))
    write_file(out / "evaluation.html", pages.page(summary, settings, out))
    return summary


def _csv(rows: Rows) -> str:
    buffer = io.StringIO()
    columns = list(rows.table[0]) if rows.table else ["path"]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: for_cell(one) for name, one in row.items()} for row in rows.table)
    return buffer.getvalue()


def _examples(out: Path, summary: dict[str, Any], methods: Sequence[Method]) -> Image.Image | None:
    """Draw the examples as a sheet, a row an image and a column a method; None without examples."""
    cells, names, scales = [], [], []
    for one in summary["examples"]:
        found = _explanations(out, one["sha256"], one["class_index"])
        try:
            photo = found[repr(methods[0])].original()
        except ImageError:  # the file is gone, or has changed since
            continue
        photo.thumbnail((2 * _CELL, 2 * _CELL))
        if max(photo.size) < _CELL:  # a small image would be lost in its cell
            factor = _CELL / max(photo.size)
            photo = photo.resize([max(1, round(side * factor)) for side in photo.size])
        drawn = [overlays.overlay(found[repr(method)].placed, photo) for method in methods]
        cells.append([photo, *drawn])
        names.append(one["label"])
        scales += [colours.scale_of(found[repr(method)].placed) for method in methods]
    if not cells:
        return None
    return sheets.sheet(cells, ["photograph", *short(methods)], names, _CELL, scales)


def _explanations(out: Path, sha256: str, class_index: int | None) -> dict[str, ImageExplanation]:
    """Read the explanations of an image and class, by method."""
    found: dict[str, ImageExplanation] = {}
    for table in tables(out, SCHEMA.names):
        rows = table.filter(pc.equal(table.column("source_sha256"), sha256))
        for row in rows.to_pylist():
            if row["class_index"] == class_index:
                found.setdefault(row["method"], image_of(row))
    return found
