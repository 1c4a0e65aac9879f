"""The summary of an evaluation's rows: means with intervals, ranks, curves, agreement, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visxai.evaluate import statistics
from visxai.evaluate.grids import Grids
from visxai.evaluate.judge import named
from visxai.evaluate.statistics import Array, plain
from visxai.methods.base import Method
from visxai.metrics import controls
from visxai.metrics.base import Metric
from visxai.results.reading import tables

FORMAT = 1
_KEPT = (
    *("path", "source_sha256", "method", "class_index", "label", "score"),
    *("degenerate", "seconds"),
)
_COLUMNS = [*_KEPT, "quality", "curves", "layout", "agreement"]

Row = dict[str, Any]


@dataclass
class Rows:
    """The rows of an evaluation, collected image by image, whatever their order.

    Attributes:
        methods: The specs of the methods.
        table: The rows, sorted.
        figures: figures[name][method][sha256], an image's figures, one for each class.
        curves: curves[name][method], the sum of the curves and their number.
        layout: Each metric's figures and each curve's axis.
        agreement: agreement[(sha256, class)][method], a row of the matrix (methods, methods).
        shown: A row of each image and class.
    """

    methods: list[str]
    table: list[Row] = field(default_factory=list)
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    curves: dict[str, dict[str, tuple[Array, int]]] = field(default_factory=dict)
    layout: dict[str, dict[str, Any]] = field(default_factory=dict)
    agreement: dict[tuple[str, int | None], dict[str, list[float]]] = field(default_factory=dict)
    shown: dict[tuple[str, int | None], Row] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path, methods: Sequence[Method]) -> Rows:
        """Read the rows below OUT."""
        rows = cls([repr(method) for method in methods])
        for table in tables(out, _COLUMNS):
            for row in table.to_pylist():
                rows._take(row)
        # Sorted, so that figures don't depend on the order of the files.
        rows.table.sort(key=lambda row: (row["source_sha256"], row["path"], row["class_index"]))
        return rows

    def _take(self, row: Row) -> None:
        method, sha256 = row["method"], row["source_sha256"]
        quality, layout = json.loads(row["quality"]), json.loads(row["layout"])
        self.layout = self.layout or layout
        names = [name for told in layout["figures"].values() for name in told]
        values = {name: quality.get(name) for name in names}
        for name, value in values.items():
            of_image = self.figures.setdefault(name, {}).setdefault(method, {})
            of_image.setdefault(sha256, []).append(np.nan if value is None else float(value))
        for name, points in json.loads(row["curves"]).items():
            total, count = self.curves.setdefault(name, {}).get(method, (np.zeros(1), 0))
            self.curves[name][method] = total + np.array(points), count + 1
        key = sha256, row["class_index"]
        self.agreement.setdefault(key, {})[method] = row["agreement"]
        self.shown.setdefault(key, row)
        self.table.append({name: row[name] for name in _KEPT} | values)

    def images(self) -> list[str]:
        """List the sha256 of every image, sorted."""
        return sorted({row["source_sha256"] for row in self.table})

    def values(self, name: str) -> Array:
        """Arrange a figure as (images, methods); an image's value is the mean over its classes."""
        found = np.full((len(self.images()), len(self.methods)), np.nan)
        for column, method in enumerate(self.methods):
            of_image = self.figures.get(name, {}).get(method, {})
            for row, sha256 in enumerate(self.images()):
                there = [v for v in of_image.get(sha256, ()) if not np.isnan(v)]
                found[row, column] = np.mean(there) if there else np.nan
        return found

    def agreements(self) -> tuple[list[tuple[str, int | None]], Array]:
        """Return every image and class in order, and the agreements (n, methods, methods)."""
        keys = sorted(self.agreement, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
        matrices = [[self.agreement[key][method] for method in self.methods] for key in keys]
        size = len(self.methods)
        return keys, np.array(matrices, dtype=np.float64).reshape(-1, size, size)


def summarise(
    rows: Rows,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    grids: Grids | None,
    draws: int,
    seed: int,
    examples: int,
) -> dict[str, Any]:
    """Compute the content of evaluation.json.

    Args:
        rows: The rows of the evaluation.
        methods: The methods, controls included.
        metrics: The metrics.
        grids: The figures of metrics over grids, or None.
        draws: The number of bootstrap draws.
        seed: The seed of the bootstrap.
        examples: The number of example images.
    """
    seconds: dict[str, list[float]] = {}
    for row in rows.table:
        seconds.setdefault(row["method"], []).append(row["seconds"])
    over_grids = [metric for metric in metrics if metric.per == "grid"]
    told = []
    for name, metric in named([metric for metric in metrics if metric.per == "map"]).items():
        extra = rows.layout.get("figures", {}).get(name, [])[1:]
        one = _metric(name, metric, rows.methods, rows.values(name), draws, seed)
        for entry, column in zip(one["methods"], range(len(methods)), strict=True):
            figures = {figure: rows.values(figure)[:, column] for figure in extra}
            entry["figures"] = {
                figure: plain(statistics.means(values[:, None])[0])
                for figure, values in figures.items()
            }
        told.append(one)
    for name, metric in named(over_grids).items():
        assert grids is not None
        told.append(_over_grids(name, metric, rows.methods, grids, draws, seed))
    return {
        "visxai_evaluation": FORMAT,
        "images": len(rows.images()),
        "maps": len(rows.table),
        "draws": draws,
        "seed": seed,
        "level": statistics.LEVEL,
        "methods": [
            {
                "method": repr(method),
                "name": name,
                "control": method.name() in controls.names(),
                "seconds": plain(np.median(seconds.get(repr(method), [np.nan]))),
            }
            for method, name in zip(methods, short(methods), strict=True)
        ],
        "metrics": told,
        "curves": _curves(rows),
        "agreement": _agreement(rows),
        "examples": _examples(rows, methods, examples),
    }


def short(methods: Sequence[Method]) -> list[str]:
    """Name the methods by their names, or by the whole spec where two share a name."""
    names = [method.name() for method in methods]
    return [
        name if names.count(name) == 1 and not hasattr(method, "member") else repr(method)
        for method, name in zip(methods, names, strict=True)
    ]


def _metric(
    name: str, metric: Metric, methods: Sequence[str], values: Array, draws: int, seed: int
) -> dict[str, Any]:
    """Summarise a metric over all methods, from values (images or grids, methods)."""
    sure = statistics.intervals(values, draws, seed)
    chance = next(i for i, method in enumerate(methods) if method.startswith("random_map("))
    over = statistics.differences(values, chance, draws, seed)
    entries: list[dict[str, Any]] = []
    for column, (method, interval, apart) in enumerate(zip(methods, sure, over, strict=True)):
        count = int((~np.isnan(values[:, column])).sum())
        figures = {**interval.to_dict(), "count": count, "over_random": apart.to_dict()}
        entries.append({"method": method, **figures})
    if metric.better != "neither":
        for entry, rank in zip(
            entries, statistics.ranks(values, metric.better, draws, seed), strict=True
        ):
            entry["rank"] = rank.to_dict()
    about = metric.about("").partition(": ")[2] or metric.about("")
    return {
        "metric": repr(metric),
        "name": name,
        "about": about[:1].upper() + about[1:],
        "better": metric.better,
        "per": metric.per,
        "methods": entries,
    }


def _over_grids(
    name: str, metric: Metric, methods: Sequence[str], grids: Grids, draws: int, seed: int
) -> dict[str, Any]:
    found = grids.found[repr(metric)]
    count = max((len(told) for told in found.values() if isinstance(told, list)), default=1)
    values = np.full((count, len(methods)), np.nan)
    for column, method in enumerate(methods):
        told = found[method]
        if isinstance(told, list):
            values[:, column] = told
    one = _metric(name, metric, methods, values, draws, seed)
    for entry in one["methods"]:
        told = found[entry["method"]]
        if isinstance(told, str):
            entry["refused"] = told
    return one


def _curves(rows: Rows) -> list[dict[str, Any]]:
    return [
        {
            "curve": name,
            "axis": rows.layout["axes"].get(name),
            "methods": {
                method: [round(float(v), 6) for v in total / count]
                for method, (total, count) in of_method.items()
            },
        }
        for name, of_method in rows.curves.items()
    ]


def _agreement(rows: Rows) -> list[list[float | None]]:
    """Compute the mean rank correlation of every two methods."""
    _, matrices = rows.agreements()
    if not len(matrices):
        return []
    return [[plain(round(v, 6)) for v in row] for row in matrices.mean(0)]


def _examples(rows: Rows, methods: Sequence[Method], count: int) -> list[dict[str, Any]]:
    """Choose the images on which the methods, controls aside, agree least."""
    own = [i for i, method in enumerate(methods) if method.name() not in controls.names()]
    keys, matrices = rows.agreements()
    if len(own) < 2 or not keys:
        return []
    inner = matrices[:, own][:, :, own]
    mean = (inner.sum((1, 2)) - len(own)) / (len(own) * (len(own) - 1))
    found: list[dict[str, Any]] = []
    for index in np.argsort(mean, kind="stable"):
        sha256, class_index = keys[index]
        if len(found) < count and sha256 not in {one["sha256"] for one in found}:
            row: Mapping[str, Any] = rows.shown[keys[index]]
            told = {name: row[name] for name in ("path", "label", "score")}
            found.append(
                {
                    "sha256": sha256,
                    "class_index": class_index,
                    **told,
                    "agreement": plain(round(float(mean[index]), 6)),
                }
            )
    return found
