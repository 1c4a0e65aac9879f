"""Plots of explained rows, by shap's own drawing where it has one; each returns a figure.

    plots.summary(records).savefig("summary.png", bbox_inches="tight")
    plots.waterfall(records[0])
    plots.beside(refused, approved)           # one row and the mean of a cohort

Figures are matplotlib's and belong to the caller: nothing is shown, and none stays open.
Save them with bbox_inches="tight", as shap writes beyond the edges.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError, require
from visxai.record.table import TableExplanation
from visxai.references import Cell
from visxai.tabular.features import Features

Records = Sequence[TableExplanation]
_MOST = 12  # features that are drawn by themselves


def summary(records: Records, features: Features | None = None, most: int = _MOST) -> Any:
    """Draw every row's attributions as a dot, feature by feature (shap's beeswarm).

    Args:
        records: Rows of one model.
        features: The features, for the order of categories; by default they are sorted.
        most: The most features.

    Raises:
        ArgumentError: There are no records, or they have different features.
        MissingExtra: shap or matplotlib isn't installed.
    """
    told = _told(records, features)
    return _drawn(lambda shap: shap.plots.beeswarm(told(shap), max_display=most, show=False))


def bars(records: Records, most: int = _MOST) -> Any:
    """Draw the mean size of each feature's attributions; see `summary` for what is raised."""
    told = _told(records, None)
    return _drawn(lambda shap: shap.plots.bar(told(shap), max_display=most, show=False))


def waterfall(record: TableExplanation, most: int = _MOST) -> Any:
    """Draw a row's way from the base value to the score; see `summary` for what is raised."""
    told = _told([record], None, shown=True)
    return _drawn(lambda shap: shap.plots.waterfall(told(shap)[0], max_display=most, show=False))


def force(record: TableExplanation) -> Any:
    """Draw what pushes a row's score up and down on one line; see `summary` for what is raised."""
    data = np.array([_text(one) for one in record.input.data], dtype=object)
    return _drawn(
        lambda shap: shap.plots.force(
            record.base_value,
            record.values.astype(float),
            data,
            list(record.features),
            matplotlib=True,
            show=False,
            text_rotation=20,
        )
    )


def dependence(records: Records, feature: str, features: Features | None = None) -> Any:
    """Draw a feature's attributions over its values, a dot a row; see `summary`."""
    told = _told(records, features)
    if feature not in records[0].features:
        records[0].value_of(feature)
    at = records[0].features.index(feature)

    def draw(shap: Any) -> None:
        axes = shap.plots.scatter(told(shap)[:, at], show=False)
        levels = _levels(records, at, features)
        if levels:
            axes.set_xticks(range(len(levels)), levels, rotation=25, ha="right")

    return _drawn(draw)


def decision(records: Records, most: int = _MOST) -> Any:
    """Draw the way of each row from the base value to its score; see `summary`.

    Rows that start from different base values are drawn from their mean.
    """
    told = _told(records, None)

    def draw(shap: Any) -> None:
        found = told(shap)
        shap.plots.decision(
            float(np.mean(found.base_values)),
            found.values,
            feature_names=list(records[0].features),
            feature_display_range=slice(-1, -most - 1, -1),
            show=False,
        )

    return _drawn(draw)


def beside(record: TableExplanation, cohort: Records, most: int = _MOST) -> Any:
    """Draw a row's attributions as bars, and the mean of a cohort as marks on them.

    Args:
        record: The row.
        cohort: The rows to set it beside, such as those that were approved.
        most: The most features.

    Raises:
        ArgumentError: The cohort is empty or has other features.
        MissingExtra: matplotlib isn't installed.
    """
    figure_of = require("matplotlib.figure", "tables", "plots")
    _check([record, *cohort])
    if not cohort:
        raise ArgumentError("expected rows to set the row beside, got none: pass a cohort")
    means = np.mean([one.values for one in cohort], 0)
    order = np.argsort(-np.maximum(np.abs(record.values), np.abs(means)))[:most][::-1]
    figure = figure_of.Figure(figsize=(9, 0.9 + 0.42 * len(order)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(order))
    values = record.values[order]
    colours = ["#2563af" if one > 0 else "#c2541c" for one in values]
    axes.barh(places, values, 0.62, color=colours, label="this row")
    axes.scatter(
        means[order], places, marker="|", s=260, color="black", label=f"mean of {len(cohort)} rows"
    )
    axes.axvline(0, color="#999999", linewidth=0.8)
    names = [f"{record.features[at]} = {_text(record.input.data[at]):.40}" for at in order]
    axes.set_yticks(places, names)
    axes.set_xlabel(f"attribution ({record.scale})")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def _check(records: Records) -> None:
    if not records:
        raise ArgumentError("expected explained rows, got none: explain some first")
    if len({one.features for one in records}) > 1:
        raise ArgumentError("expected rows with the same features, got others: pass one model's")


def _told(records: Records, features: Features | None, shown: bool = False) -> Callable[[Any], Any]:
    """Make the function that turns records into shap's own explanation."""
    _check(records)
    count = len(records[0].features)
    data: NDArray[Any] = np.array(
        [[_text(one) for one in row.input.data] for row in records], dtype=object
    )
    if not shown:
        data = np.stack([_numbers(records, at, features) for at in range(count)], 1)
    return lambda shap: shap.Explanation(
        values=np.stack([one.values for one in records]).astype(float),
        base_values=np.array([one.base_value for one in records]),
        data=data,
        feature_names=list(records[0].features),
    )


def _levels(records: Records, at: int, features: Features | None) -> list[str]:
    """List a category's levels in order, none for a number."""
    if features is not None:
        return list(features.items[at].levels)
    cells = {one.input.data[at] for one in records}
    return sorted(one for one in cells if isinstance(one, str))


def _numbers(records: Records, at: int, features: Features | None) -> NDArray[np.float64]:
    """Turn a feature's values into numbers: categories into their place among the levels."""
    cells = [one.input.data[at] for one in records]
    levels = _levels(records, at, features)
    if levels:
        places = {level: float(place) for place, level in enumerate(levels)}
        return np.array([places.get(str(one), np.nan) for one in cells])
    return np.array([np.nan if one is None else float(one) for one in cells])


def _text(cell: Cell) -> str:
    if cell is None:
        return "missing"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _drawn(draw: Callable[[Any], Any]) -> Any:
    """Let shap draw on pyplot's figure, and return it; what pyplot held before stays open."""
    shap = require("shap", "tables", "plots")
    plt = require("matplotlib.pyplot", "tables", "plots")
    before = plt.get_fignums()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shap's own drawing
            plt.figure()
            draw(shap)
            figure = plt.gcf()
            figure.set_layout_engine("tight")
    finally:
        for number in set(plt.get_fignums()) - set(before):
            plt.close(number)
    return figure
