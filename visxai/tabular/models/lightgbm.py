"""LightGBM: boosters and the scikit-learn classes around them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError
from visxai.tabular.features import Features, Matrix
from visxai.tabular.models import shapley
from visxai.tabular.models.interface import TreeModel, Values, Vector

_IDENTITY = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
_EXPONENTIAL = ("poisson", "gamma", "tweedie")


class LightGBMModel(TreeModel):
    """A booster with one scalar a row."""

    def __init__(self, booster: Any, features: Features, name: str = "lightgbm") -> None:
        """Take a `lightgbm.Booster`.

        Raises:
            ModelError: The objective has several outputs or is another than those known here.
        """
        self.booster, self.name, self.features = booster, name, features
        objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
        word = objective.split(" ")[0]
        if word == "binary" and objective in ("binary", "binary sigmoid:1"):
            self.kind, self.scale = "logistic", "log-odds"
        elif word in _IDENTITY or word in _EXPONENTIAL:
            self.kind = "identity" if word in _IDENTITY else "exponential"
            self.scale = "response"
        else:
            known = ", ".join(("binary", *_IDENTITY, *_EXPONENTIAL))
            raise ModelError(
                f"expected an objective with one output ({known}), got {objective!r}: explain its "
                "predict function instead"
            )

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """The hash of the booster's text."""
        return hashlib.sha256(self.booster.model_to_string().encode()).hexdigest()

    def logits(self, x: Matrix) -> Vector:
        """Compute the raw scores."""
        return np.asarray(self.booster.predict(x, raw_score=True), np.float64)

    def path_dependent(self, x: Matrix) -> Values:
        """Compute the library's own attributions."""
        found = np.asarray(self.booster.predict(x, pred_contrib=True), np.float64)
        return Values(found[:, :-1], found[:, -1])

    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the interaction values with shap."""
        return shapley.interactions(self.booster, x)

    @property
    def trees(self) -> Any:
        """The booster."""
        return self.booster
