"""LightGBM: boosters and the scikit-learn classes around them."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError
from visxai.tabular.features import Features, Matrix
from visxai.tabular.models import classes, shapley
from visxai.tabular.models.interface import TreeModel, Values, Vector, check_target, softmax

_IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
_EXPONENTIAL = ("poisson", "gamma", "tweedie")


class LightGBMModel(TreeModel):
    """A booster with one scalar a row, or one for each class."""

    several = False

    def __init__(
        self,
        booster: Any,
        features: Features,
        name: str = "lightgbm",
        target: int | None = None,
    ) -> None:
        """Take a `lightgbm.Booster`, and the explained class of one with several.

        Raises:
            ArgumentError: The target is no class of the booster.
            ModelError: The objective is another than those known here.
        """
        self.booster, self.name, self.features = booster, name, features
        objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
        word = objective.split(" ")[0]
        if word == "multiclass":
            self.kind, self.scale, self.several = "softmax", "log-odds", True
        elif word == "binary" and objective in ("binary", "binary sigmoid:1"):
            self.kind, self.scale = "logistic", "log-odds"
        elif word in _IDENTITY or word in _EXPONENTIAL:
            self.kind = "identity" if word in _IDENTITY else "exponential"
            self.scale = "response"
        else:
            known = ", ".join(("binary", "multiclass", *_IDENTITY, *_EXPONENTIAL))
            raise ModelError(
                f"expected an objective known here ({known}), got {objective!r}: explain its "
                "predict function instead"
            )

        count = booster.num_model_per_iteration() if self.several else 2
        self.target = check_target(target, count, self.scale)

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """The hash of the booster's text."""
        return hashlib.sha256(self.booster.model_to_string().encode()).hexdigest()

    def logits(self, x: Matrix) -> Vector:
        """Compute the raw scores."""
        found = np.asarray(self.booster.predict(x, raw_score=True), np.float64)
        return found[:, self.target] if self.several else found

    def predict(self, x: Matrix) -> Vector:
        """Compute the scores: of several classes the target's share of the softmax."""
        if not self.several:
            return super().predict(x)
        margins = np.asarray(self.booster.predict(x, raw_score=True), np.float64)
        return softmax(margins)[:, self.target]

    def path_dependent(self, x: Matrix) -> Values:
        """Compute the library's own attributions."""
        found = np.asarray(self.booster.predict(x, pred_contrib=True), np.float64)
        if self.several:  # the classes lie side by side
            found = found.reshape(len(x), -1, x.shape[1] + 1)[:, self.target]
        return Values(found[:, :-1], found[:, -1])

    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the interaction values with shap."""
        return shapley.interactions(self.trees, x)

    @property
    def trees(self) -> Any:
        """The booster, or the explained class's part of it.

        Raises:
            ModelError: It splits categories itself, which shap doesn't follow.
        """
        if re.search(r"^num_cat=[1-9]", self.booster.model_to_string(), re.MULTILINE):
            raise ModelError(
                "expected a booster of numbers to compare with a background or for interactions, "
                "got one with categories of its own: train it on ordinal positions (features with "
                "levels), or leave the background out"
            )
        return classes.of_lightgbm(self.booster, self.target) if self.several else self.booster
