"""scikit-learn: trees, linear models, and pipelines that encode before either of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError, require
from visxai.tabular.features import Matrix
from visxai.tabular.models import classes, shapley
from visxai.tabular.models.encoders import Encoding
from visxai.tabular.models.interface import (
    LinearModel,
    TreeModel,
    Values,
    Vector,
    check_target,
    softmax,
)

_PROBABILITY = (
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "ExtraTreesClassifier",
    "RandomForestClassifier",
)
_LOG_ODDS = ("GradientBoostingClassifier", "HistGradientBoostingClassifier")
_RESPONSE = (
    "DecisionTreeRegressor",
    "ExtraTreeRegressor",
    "ExtraTreesRegressor",
    "GradientBoostingRegressor",
    "HistGradientBoostingRegressor",
    "RandomForestRegressor",
)
TREES = _PROBABILITY + _LOG_ODDS + _RESPONSE


class SklearnTrees(TreeModel):
    """A tree or a forest, perhaps behind an encoder."""

    def __init__(
        self,
        estimator: Any,
        encoding: Encoding,
        name: str | None = None,
        target: int | None = None,
    ) -> None:
        """Take a fitted estimator, how its columns come from features, and the explained class.

        Raises:
            ArgumentError: The target is no class of the estimator.
        """
        self.estimator, self.encoding = estimator, encoding
        self.features, self.sha256 = encoding.features, digest(estimator, encoding.encoder)
        kind = type(estimator).__name__
        self.name = name or kind
        count = len(getattr(estimator, "classes_", "ab"))
        self.several = kind in _LOG_ODDS and count > 2
        if kind in _LOG_ODDS:
            self.scale, self.kind = "log-odds", "softmax" if self.several else "logistic"
        else:
            self.scale = "probability" if kind in _PROBABILITY else "response"
        self.target = check_target(target, count, self.scale)

    @property
    def trees(self) -> Any:
        """The estimator, or the explained class's part of a boosted one of several.

        Raises:
            ModelError: It splits categories itself, which shap doesn't follow, or a boosted
                classifier of several classes starts from another model's scores.
        """
        if np.any(getattr(self.estimator, "is_categorical_", None)):
            raise ModelError(
                f"expected trees that split numbers, got {self.name} with categories of its own: "
                "train it on ordinal positions (features with levels), or explain its predict "
                "function"
            )
        if not self.several:
            return self.estimator
        histograms = type(self.estimator).__name__ == "HistGradientBoostingClassifier"
        part = classes.of_histograms if histograms else classes.of_boosting
        return part(self.estimator, self.target)

    def inner(self, x: Matrix) -> Matrix:
        """Encode."""
        return self.encoding.encode(x)

    def folded(self, values: NDArray[np.float64]) -> Matrix:
        """Add up what an encoder divided."""
        return self.encoding.fold(values)

    def logits(self, x: Matrix) -> Vector:
        """Compute log-odds, probabilities or predictions."""
        z = self._named(x)
        if self.scale == "log-odds":
            found = np.asarray(self.estimator.decision_function(z), np.float64)
            return found[:, self.target] if self.several else found
        if self.scale == "probability":
            return np.asarray(self.estimator.predict_proba(z)[:, self.target], np.float64)
        return np.asarray(self.estimator.predict(z), np.float64)

    def predict(self, x: Matrix) -> Vector:
        """Compute the scores: of several boosted classes the target's share of the softmax."""
        if not self.several:
            return super().predict(x)
        margins = np.asarray(self.estimator.decision_function(self._named(x)), np.float64)
        return softmax(margins)[:, self.target]

    def _named(self, x: Matrix) -> Any:
        """Encode, and name the columns where the estimator would warn of nameless ones."""
        z: Any = self.inner(x)
        if hasattr(self.estimator, "feature_names_in_"):
            pandas = require("pandas", "tables", "a model of scikit-learn")
            z = pandas.DataFrame(z, columns=self.estimator.feature_names_in_)
        return z

    def path_dependent(self, x: Matrix) -> Values:
        """Compute attributions with shap."""
        made = shapley.explainer(self.trees, None)
        found = shapley.values(made, self.inner(x), self.target)
        return Values(self.folded(found.values), found.base)

    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the interaction values with shap."""
        found = shapley.interactions(self.trees, self.inner(x), self.target)
        rows, columns, _ = found.shape
        half = self.folded(found.reshape(-1, columns)).reshape(rows, columns, -1)
        turned = half.transpose(0, 2, 1).reshape(-1, columns)
        return self.folded(turned).reshape(rows, half.shape[2], -1)


class SklearnLinear(LinearModel):
    """A linear or logistic regression, perhaps behind an encoder."""

    def __init__(self, estimator: Any, encoding: Encoding, name: str | None = None) -> None:
        """Take a fitted estimator, and how its columns come from features.

        Raises:
            ModelError: The estimator has more than one output.
        """
        self.encoding, self.features = encoding, encoding.features
        self.name, self.sha256 = (
            name or type(estimator).__name__,
            digest(estimator, encoding.encoder),
        )
        weights = np.asarray(estimator.coef_, np.float64).reshape(-1)
        intercept = np.asarray(estimator.intercept_, np.float64).reshape(-1)
        if len(intercept) != 1 or len(weights) != estimator.n_features_in_:
            raise ModelError(
                f"expected a model with one output, got {len(intercept)}: explain its predict "
                "function instead"
            )
        self.weights, self.intercept = weights, float(intercept[0])
        logistic = type(estimator).__name__ == "LogisticRegression" or (
            type(estimator).__name__ == "SGDClassifier" and estimator.loss == "log_loss"
        )
        self.scale, self.kind = ("log-odds", "logistic") if logistic else ("response", "identity")

    def inner(self, x: Matrix) -> Matrix:
        """Encode."""
        return self.encoding.encode(x)

    def folded(self, values: NDArray[np.float64]) -> Matrix:
        """Add up what an encoder divided."""
        return self.encoding.fold(values)


def check_binary(estimator: Any) -> None:
    """Raise ModelError where a classifier has other than two classes."""
    classes = getattr(estimator, "classes_", None)
    if classes is not None and len(classes) != 2:
        raise ModelError(
            f"expected a classifier of two classes, got {len(classes)}: explain the function of "
            "the probability that matters, such as lambda x: model.predict_proba(x)[:, 2]"
        )


def digest(*objects: Any) -> str:
    """Compute the SHA-256 (hex) over joblib's hash of fitted objects: parameters and arrays."""
    joblib = require("joblib", "tables", "a model of scikit-learn")
    said = "".join(joblib.hash(one, hash_name="sha1") for one in objects)
    return hashlib.sha256(said.encode()).hexdigest()


def probability(estimator: Any, target: int | None = None) -> Callable[[Any], Any]:
    """Return the function that gives an estimator's score: P(target), or its prediction."""
    if hasattr(estimator, "predict_proba"):
        chosen = check_target(target, len(estimator.classes_), "probability")
        return lambda x: estimator.predict_proba(x)[:, chosen]
    return lambda x: estimator.predict(x)
