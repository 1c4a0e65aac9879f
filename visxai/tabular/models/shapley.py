"""shap's explainers of trees, with one output and without their differences between models.

Against a background shap keeps thresholds in single precision. Models that split in double
precision often do so exactly at a value of the data, which then falls on the other side. So their
values and thresholds are replaced by ranks, small integers that compare the same in any precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import require
from visxai.tabular.features import Matrix
from visxai.tabular.models.interface import Values

_WALKS = 2**20  # rows x background rows x trees of one call


class Ranks:
    """The thresholds of an explainer's trees, replaced by their ranks for each column."""

    def __init__(self, made: Any) -> None:
        """Replace the thresholds of a `shap.TreeExplainer`, and the values of its background."""
        model = made.model
        splits = model.children_left >= 0
        self._sorted = {}
        for column in np.unique(model.features[splits]):
            here = splits & (model.features == column)
            known = np.unique(model.thresholds[here])
            model.thresholds[here] = np.searchsorted(known, model.thresholds[here])
            self._sorted[int(column)] = known
        made.data = self.of(made.data)

    def of(self, x: Matrix) -> Matrix:
        """Replace values by the number of thresholds below them: x <= t_k where that is <= k."""
        made = np.zeros_like(x)
        for column, known in self._sorted.items():
            made[:, column] = np.searchsorted(known, x[:, column])
        made[np.isnan(x)] = np.nan
        return made


def explainer(trees: Any, background: Matrix | None, output: str = "raw") -> Any:
    """Make a `shap.TreeExplainer`.

    Args:
        trees: What it reads: a booster, an estimator of scikit-learn, or a class's part of one.
        background: The rows to compare with, None for path-dependent attributions.
        output: "raw" or "probability".

    Returns:
        The explainer, whose `ranks` are set where it takes ranks.
    """
    shap = require("shap", "tables", "comparing trees with a background")
    if background is None:
        return shap.TreeExplainer(trees, feature_perturbation="tree_path_dependent")
    made = shap.TreeExplainer(
        trees, background, feature_perturbation="interventional", model_output=output
    )
    double = type(trees).__module__.startswith(("lightgbm", "sklearn.ensemble._hist"))
    if double or (isinstance(trees, dict) and "input_dtype" not in trees):
        made.ranks = Ranks(made)
    return made


def values(made: Any, x: Matrix, output: int = -1) -> Values:
    """Compute attributions of an output: by default the last, class 1 of a binary classifier."""
    x = made.ranks.of(x) if hasattr(made, "ranks") else x
    # One call over many rows would print a progress bar after ten seconds.
    step = max(1, len(x))
    if made.data is not None:
        step = max(1, _WALKS // (len(made.data) * max(1, len(made.model.trees))))
    parts = [
        np.asarray(made.shap_values(x[start : start + step], check_additivity=False), np.float64)
        for start in range(0, max(1, len(x)), step)
    ]
    found = np.concatenate(parts)
    several = found.ndim == 3
    found = found[..., output] if several else found
    base = float(np.atleast_1d(made.expected_value)[output if several else -1])
    return Values(found, np.full(len(x), base))


def interactions(trees: Any, x: Matrix, output: int = -1) -> NDArray[np.float64]:
    """Compute path-dependent interaction values (rows, columns, columns) of an output."""
    found = np.asarray(explainer(trees, None).shap_interaction_values(x), np.float64)
    return found[..., output] if found.ndim == 4 else found
