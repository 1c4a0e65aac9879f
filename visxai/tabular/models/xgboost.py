"""XGBoost: boosters and the scikit-learn classes around them.

Path-dependent attributions are the library's own (`pred_contribs`), which walks all trees in C++.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError, require
from visxai.tabular.features import Features, Matrix
from visxai.tabular.models.interface import TreeModel, Values, Vector

_KINDS = {
    "binary:logistic": "logistic",
    "binary:logitraw": "logistic",
    "reg:logistic": "logistic",
    "reg:squarederror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "count:poisson": "exponential",
    "reg:gamma": "exponential",
    "reg:tweedie": "exponential",
}


class XGBoostModel(TreeModel):
    """A booster with one scalar a row."""

    def __init__(self, booster: Any, features: Features, name: str = "xgboost") -> None:
        """Take a `xgboost.Booster`, up to its best iteration where training stopped early.

        Raises:
            ModelError: The objective has several outputs or is another than those known here.
        """
        self._library = require("xgboost", "tables", "a model of XGBoost")
        best = booster.attr("best_iteration")
        self.booster = booster if best is None else booster[: int(best) + 1]
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        if objective not in _KINDS:
            raise ModelError(
                f"expected an objective with one output ({', '.join(_KINDS)}), got {objective}: "
                "explain its predict function instead"
            )
        self.name, self.features = name, features
        self.kind = _KINDS[objective]
        self.scale = "log-odds" if self.kind == "logistic" else "response"

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """The hash of the booster's JSON."""
        return hashlib.sha256(self.booster.save_raw("json")).hexdigest()

    def _matrix(self, x: Matrix) -> Any:
        return self._library.DMatrix(
            x,
            feature_names=self.booster.feature_names,
            feature_types=self.booster.feature_types,
            enable_categorical=True,
        )

    def logits(self, x: Matrix) -> Vector:
        """Compute the margins."""
        return _double(self.booster.predict(self._matrix(x), output_margin=True))

    def explained(self, x: Matrix) -> tuple[Vector, Values]:
        """Compute margins and attributions from one copy of the rows."""
        data = self._matrix(x)
        margins = _double(self.booster.predict(data, output_margin=True))
        return margins, _split(self.booster.predict(data, pred_contribs=True))

    def path_dependent(self, x: Matrix) -> Values:
        """Compute the library's own attributions."""
        return _split(self.booster.predict(self._matrix(x), pred_contribs=True))

    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the library's own interaction values."""
        found = self.booster.predict(self._matrix(x), pred_interactions=True)
        return _double(found)[:, :-1, :-1]

    @property
    def trees(self) -> Any:
        """The booster.

        Raises:
            ModelError: It splits categories itself, which no background can be compared through.
        """
        if "c" in (self.booster.feature_types or ()):
            raise ModelError(
                "expected a booster of numbers to compare with a background, got one with "
                "categories of its own: train it on ordinal positions (features with levels), or "
                "leave the background out"
            )
        return self.booster


def _double(found: Any) -> NDArray[np.float64]:
    return np.asarray(found, np.float64)


def _split(found: Any) -> Values:
    """Part attributions (rows, features + 1) from their last column, the base value."""
    return Values(_double(found[:, :-1]), _double(found[:, -1]))
