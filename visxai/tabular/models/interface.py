"""What the methods ask of a model of tables: a scalar for each row, and what its kind can tell.

A model takes `Features.matrix`: float64 (rows, features), categories as positions among their
levels. Its scalar, the logit, is what attributions add up to; its score is what it reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.tabular.features import Features, Matrix

Vector = NDArray[np.float64]


class Values(NamedTuple):
    """Attributions of rows.

    Attributes:
        values: float64 (rows, features).
        base: float64 (rows,): what they start from.
    """

    values: Matrix
    base: Vector


class TableModel(ABC):
    """A trained model of tables.

    Attributes:
        name: The model's name in records.
        sha256: The hash of what was trained.
        features: The columns that it scores.
        scale: The scale of its scalar: "log-odds", "probability" or "response".
        kind: How scores follow from the scalar: "logistic", "identity" or "exponential"; "softmax"
            where they need the scalars of all classes, which `predict` has.
        target: The class whose scalar it is, of a classifier.
    """

    name: str
    sha256: str
    features: Features
    scale: str
    kind: str = "identity"
    target: int = 1

    def predict(self, x: Matrix) -> Vector:
        """Compute the scores of rows, float64 (rows,)."""
        return self.scores(self.logits(x))

    @abstractmethod
    def logits(self, x: Matrix) -> Vector:
        """Compute the scalar of each row.

        Args:
            x: float64 (rows, features).

        Returns:
            float64 (rows,), on `scale`.
        """

    def scores(self, logits: Vector) -> Vector:
        """Turn scalars into the scores that the model reports."""
        if self.kind == "logistic":
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
        return np.exp(logits) if self.kind == "exponential" else logits


class TreeModel(TableModel):
    """Trees, whose attributions are exact without drawing anything."""

    @property
    @abstractmethod
    def trees(self) -> Any:
        """The object that `shap.TreeExplainer` reads."""

    @abstractmethod
    def path_dependent(self, x: Matrix) -> Values:
        """Compute the attributions relative to the training rows that each node has counted."""

    def explained(self, x: Matrix) -> tuple[Vector, Values]:
        """Compute scalars and path-dependent attributions, which some libraries give together."""
        return self.logits(x), self.path_dependent(x)

    @abstractmethod
    def interactions(self, x: Matrix) -> NDArray[np.float64]:
        """Compute path-dependent interaction values (rows, features, features).

        A row's matrix is symmetric, its rows add up to the attributions, and its sum is the logit
        without the base value.
        """

    def inner(self, x: Matrix) -> Matrix:
        """Turn features into the columns that the trees split: the same, without an encoder."""
        return x

    def folded(self, values: NDArray[np.float64]) -> Matrix:
        """Add up the attributions (rows, columns) of the columns that one feature became."""
        return values


class LinearModel(TableModel):
    """A weighted sum of columns.

    Attributes:
        weights: float64 (columns,).
        intercept: The scalar of a row of zeros.
    """

    weights: Vector
    intercept: float

    def inner(self, x: Matrix) -> Matrix:
        """Turn features into the columns that are weighted."""
        return x

    def folded(self, values: NDArray[np.float64]) -> Matrix:
        """Add up the attributions (rows, columns) of the columns that one feature became."""
        return values

    def logits(self, x: Matrix) -> Vector:
        """Compute the weighted sums."""
        return np.asarray(self.inner(x) @ self.weights + self.intercept)


class TermModel(TableModel):
    """A sum of functions of one or two features each.

    Attributes:
        intercept: The scalar where all terms are zero.
        term_features: For each term the positions of its features.
    """

    intercept: float
    term_features: tuple[tuple[int, ...], ...]

    @abstractmethod
    def terms(self, x: Matrix) -> NDArray[np.float64]:
        """Compute the terms, float64 (rows, terms)."""

    def logits(self, x: Matrix) -> Vector:
        """Compute the sums of all terms."""
        return np.asarray(self.terms(x).sum(1) + self.intercept)


def check_target(target: int | None, classes: int, scale: str) -> int:
    """Return the explained class of a classifier, 1 of two by default.

    Args:
        target: The class that the caller named, None for none.
        classes: The number of classes.
        scale: The scale of the scalar.

    Raises:
        ArgumentError: The model has no such class, has several and none is named, or isn't a
            classifier.
    """
    if scale == "response" and target is not None:
        raise ArgumentError(
            f"expected no class of a model of numbers, got {target}: leave target out",
            field="target",
        )
    if classes > 2 and target is None:
        raise ArgumentError(
            f"expected the class to explain, of {classes}, got none: pass target=2 for the third",
            field="target",
        )
    if target is not None and not (0 if classes > 2 else 1) <= target < classes:
        raise ArgumentError(
            f"expected a class from {0 if classes > 2 else 1} to {classes - 1}, got {target}: of "
            "two classes the second is explained, and its attributions with the other sign are "
            "those of the first",
            field="target",
        )
    return 1 if target is None else target


def softmax(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute probabilities (rows, classes) of margins."""
    found = np.exp(margins - margins.max(1, keepdims=True))
    return np.asarray(found / found.sum(1, keepdims=True))
