"""The page of a run over the rows of tables: one row, all rows, and how each feature counts.

OUT/report/index.html    opens from disk; data, styles and code are inside it

The means are of all rows; of more than a thousand the page holds evenly spaced ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visxai import files
from visxai.errors import StoreError
from visxai.foreign import shown
from visxai.record.table import TableExplanation
from visxai.results import reading
from visxai.results.rows import of_row
from visxai.web import page

HELD = 1000  # rows that the page holds
_ASSETS = Path(__file__).parent / "assets"
_STYLE = Path(page.__file__).parent / "page.css"


def build(
    folder: Path,
    about: Mapping[str, Any],
    progress: Callable[[int, int], None],
    single_file: bool = False,
) -> tuple[Path, int, int]:
    """Write the page of a run over rows.

    Args:
        folder: The folder of the run.
        about: The content of its run.json.
        progress: Called with the number of rows done and of all.
        single_file: Whether to write OUT/report.html instead; the page is the same.

    Returns:
        The page, the number of rows on it, and of all rows.

    Raises:
        StoreError: The folder can't be written, or a link would lead the page elsewhere.
    """
    report = folder / "report"
    if report.is_symlink():
        raise StoreError(
            f"expected a folder of visxai's own, got the symbolic link {shown(report)}: delete it "
            "and run it again"
        )
    target = folder / "report.html" if single_file else report / "index.html"
    data = _collected(folder, about, progress)
    with files.one_sentence(f"to write {target}", "make room there and run it again"):
        target.parent.mkdir(exist_ok=True)
        files.write(
            target,
            page.filled(
                folder.name,
                data,
                template=_ASSETS / "tables.html",
                styles=(_STYLE, _ASSETS / "tables.css"),
                scripts=(_ASSETS / "tables.js",),
            ),
        )
    return target, len(data["rows"]), data["total"]


def _collected(
    folder: Path, about: Mapping[str, Any], progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Read what the page shows; rows are read one part at a time."""
    settings = about["settings"]
    features = list(settings.get("features", {}))
    total = reading.count(folder)
    step = max(1, -(-total // HELD))
    sums = np.zeros(len(features))
    rows: list[dict[str, Any]] = []
    done = 0
    for table in reading.tables(folder):
        for row in table.to_pylist():
            one = of_row(row)
            if isinstance(one, TableExplanation) and len(one.features) == len(features):
                sums += np.abs(one.values)
                if done % step == 0:
                    rows.append(_row(one, row.get("expected")))
            done += 1
        progress(done, total)
    known = ("state", "command", "started", "updated", "counts")
    return {
        "run": {
            "name": folder.name,
            **{name: about.get(name) for name in known},
            **{
                name: settings.get(name)
                for name in ("model", "methods", "target", "threshold", "scale", "background")
            },
            "features": settings.get("features", {}),
        },
        "features": features,
        "mean": (sums / max(1, done)).tolist(),
        "rows": rows,
        "step": step,
        "total": total,
    }


def _row(one: TableExplanation, expected: str | None) -> dict[str, Any]:
    return {
        "row": one.input.row,
        "id": one.id,
        "cells": list(one.input.data),
        "values": [float(f"{value:.5g}") for value in one.values],
        "base": one.base_value,
        "logit": one.logit,
        "score": one.score,
        "outcome": one.outcome,
        "expected": expected,
        "groups": dict(one.groups),
    }
