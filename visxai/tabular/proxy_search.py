"""Proxies: which scored features tell a protected column, and how much they count.

    found = proxies(engine, applicants, "age")
    found.found               how well all scored features together tell the column
    found.features[0]         the feature that tells it best alone, and its share of attributions

A model without the column can still treat its groups differently through features that tell it.
Telling is measured by cross-validation: with y the column (a category as a column of 0 and 1 for
each of its values) and p a forest's prediction for rows that it hasn't seen,

    found = 1 - sum (p - y)^2 / sum (mean y - y)^2                   1 at best, 0 for nothing

and for single features the same with a small tree. A feature that tells much and counts much is
where to look first. It is no verdict: what tells age may be right to count.

Cost: 5 forests, and 5 trees for each feature; no model call beyond the rows' explanations.
Source: Prince and Schwarcz, Proxy discrimination in the age of artificial intelligence, 2020; the
figure is the coefficient of determination, for categories the Brier skill score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError, UnknownName, require
from visxai.tabular import tables
from visxai.tabular.engine import Engine
from visxai.tabular.features import Features, Matrix

_FOLDS, _DRAWS = 5, 400


class Proxy(NamedTuple):
    """A scored feature beside a protected column.

    Attributes:
        feature: The feature's name.
        found: How well it tells the column alone, 1 at best; 0 or below for nothing.
        share: Its part of all attributions' size, 0 to 1.
    """

    feature: str
    found: float
    share: float


@dataclass(frozen=True)
class Proxies:
    """How the scored features tell a protected column.

    Attributes:
        column: The protected column.
        rows: The rows in which it is known.
        found: How well all features together tell it, 1 at best; 0 or below for nothing.
        low: The lower end of the 95 % interval, by bootstrap over rows.
        high: The upper end.
        features: The features, those that tell it best alone first.
    """

    column: str
    rows: int
    found: float
    low: float
    high: float
    features: tuple[Proxy, ...]


def proxies(engine: Engine, data: Any, column: str, seed: int = 0) -> Proxies:
    """Measure how well the scored features tell a protected column.

    Args:
        engine: The engine whose attributions are meant.
        data: A table with the features and the column.
        column: The protected column; numbers are told as numbers, anything else as a category.
        seed: The seed of folds, forests and bootstrap.

    Raises:
        UnknownName: The table has no such column.
        ArgumentError: The column is scored, or is known in fewer than 20 rows or the same in all.
        MissingExtra: scikit-learn isn't installed.
    """
    forests = require("sklearn.ensemble", "tables", "finding proxies")
    trees = require("sklearn.tree", "tables", "finding proxies")
    table = tables.arrow(data)
    if column not in table.column_names:
        raise UnknownName("column of the table", column, table.column_names)
    if column in engine.model.features.names:
        raise ArgumentError(f"expected a column that isn't scored, got the feature {column!r}")
    y, known = _told(table.select([column]), column)
    if known.sum() < 20 or np.ptp(y[known], axis=0).max() == 0:
        raise ArgumentError(
            f"expected a column that differs, known in 20 rows or more, got {column!r}, known in "
            f"{int(known.sum())}: choose another"
        )
    x, y = engine.matrix(table)[known], y[known]
    values = np.concatenate([np.abs(block.values) for block in engine.stream(table)])
    shares = values.sum(0) / (values.sum() or 1.0)
    rng = np.random.default_rng(seed)
    folds = np.array_split(rng.permutation(len(x)), _FOLDS)

    def forest() -> Any:
        return forests.RandomForestRegressor(60, min_samples_leaf=5, random_state=seed)

    def tree() -> Any:
        return trees.DecisionTreeRegressor(max_leaf_nodes=8, min_samples_leaf=10, random_state=seed)

    errors, spread = _errors(forest, x, y, folds)
    drawn = [rng.integers(0, len(x), len(x)) for _ in range(_DRAWS)]
    low, high = np.quantile([_skill(errors[row], spread[row]) for row in drawn], (0.025, 0.975))
    alone = [
        Proxy(name, _skill(*_errors(tree, x[:, [at]], y, folds)), float(shares[at]))
        for at, name in enumerate(engine.model.features.names)
    ]
    alone.sort(key=lambda one: -one.found)
    return Proxies(column, len(x), _skill(errors, spread), float(low), float(high), tuple(alone))


def _told(table: Any, column: str) -> tuple[Matrix, NDArray[np.bool_]]:
    """Turn the column into numbers (rows, k), and tell where it is known."""
    feature = Features.found_in(table)
    numbers = feature.matrix(table)[:, 0]
    known = np.isfinite(numbers)
    levels = feature.items[0].levels
    if levels:
        return np.eye(len(levels))[np.where(known, numbers, 0).astype(int)], known
    return numbers[:, None], known


def _errors(
    make: Any, x: Matrix, y: Matrix, folds: list[NDArray[np.intp]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute each row's squared error out of its fold, and that of the mean (rows,) each."""
    errors, spread = np.empty(len(y)), np.empty(len(y))
    for fold in folds:
        others = np.setdiff1d(np.arange(len(y)), fold)
        model = make().fit(x[others], y[others] if y.shape[1] > 1 else y[others, 0])
        guess = np.asarray(model.predict(x[fold])).reshape(len(fold), -1)
        errors[fold] = ((guess - y[fold]) ** 2).sum(1)
        spread[fold] = ((y[others].mean(0) - y[fold]) ** 2).sum(1)
    return errors, spread


def _skill(errors: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    return float(1 - errors.sum() / (spread.sum() or 1.0))
