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
from visxai.tabular.models.interface import TreeModel, Values, Vector, check_target, softmax

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
_SEVERAL = ("multi:softprob", "multi:softmax")


class XGBoostModel(TreeModel):
    """A booster with one scalar a row, or one for each class."""

    def __init__(
        self,
        booster: Any,
        features: Features,
        name: str = "xgboost",
        target: int | None = None,
    ) -> None:
        """Take a `xgboost.Booster`, up to its best iteration where training stopped early.

        Args:
            booster: The booster.
            features: The columns that it scores.
            name: Its name in records.
            target: The explained class of a booster of several.

        Raises:
            ArgumentError: The target is no class of the booster.
            ModelError: The objective is another than those known here.
        """
        self._library = require("xgboost", "tables", "a model of XGBoost")
        best = booster.attr("best_iteration")
        self.booster = booster if best is None else booster[: int(best) + 1]
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        if objective not in _KINDS and objective not in _SEVERAL:
            raise ModelError(
                f"expected an objective known here ({', '.join((*_KINDS, *_SEVERAL))}), got "
                f"{objective}: explain its predict function instead"
            )
        self.name, self.features = name, features
        self.several = objective in _SEVERAL
        self.kind = "softmax" if self.several else _KINDS[objective]
        self.scale = "log-odds" if self.kind in ("logistic", "softmax") else "response"
        classes = int(learner["learner_model_param"]["num_class"]) if self.several else 2
        self.target = check_target(target, classes, self.scale)

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
        found = _double(self.booster.predict(self._matrix(x), output_margin=True))
        return found[:, self.target] if self.several else found

    def predict(self, x: Matrix) -> Vector:
        """Compute the scores: of several classes the target's share of the softmax."""
        if not self.several:
            return super().predict(x)
        margins = _double(self.booster.predict(self._matrix(x), output_margin=True))
        return softmax(margins)[:, self.target]

    def explained(self, x: Matrix) -> tuple[Vector, Values]:
        """Compute margins and attributions from one copy of the rows."""
        data = self._matrix(x)
        margins = _double(self.booster.predict(data, output_margin=True))
        margins = margins[:, self.target] if self.several else margins
        return margins, _split(self._of(self.booster.predict(data, pred_contribs=True)))

    def path_dependent(self, x: Matrix) -> Values:
        """Compute the library's own attributions."""
        return _split(self._of(self.booster.predict(self._matrix(x), pred_contribs=True)))

    def _of(self, found: Any) -> Any:
        """Take the target's part of what the library gives for each class."""
        return found[:, self.target] if self.several else found

    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the library's own interaction values."""
        found = self._of(self.booster.predict(self._matrix(x), pred_interactions=True))
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
