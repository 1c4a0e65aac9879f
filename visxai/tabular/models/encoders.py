"""Encoders before a model: which of their output columns came from which feature.

One feature may become several columns (one-hot). The attributions of those columns are added up
again: exact for a linear model, where a sum of effects is the effect of the sum, and additive for
trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError
from visxai.tabular.features import Features, Matrix

_ONE_TO_ONE = (
    "OrdinalEncoder",
    "StandardScaler",
    "MinMaxScaler",
    "MaxAbsScaler",
    "RobustScaler",
    "QuantileTransformer",
    "PowerTransformer",
    "SimpleImputer",
    "TargetEncoder",
)


class Encoding:
    """How columns come from features.

    Attributes:
        features: The features.
        encoder: The fitted transformer, None where columns are features.
        origins: For each column the position of its feature.
    """

    def __init__(self, features: Features, encoder: Any = None) -> None:
        """Trace a fitted encoder.

        Raises:
            ModelError: A transformer mixes features, or isn't known here.
        """
        self.features, self.encoder = features, encoder
        everything = list(range(len(features)))
        self.origins = np.array(
            everything if encoder is None else _trace(encoder, everything, self)
        )
        self._framed = hasattr(encoder, "feature_names_in_") or any(
            x.levels for x in features.items
        )

    def encode(self, x: Matrix) -> Matrix:
        """Turn features (rows, features) into columns (rows, columns)."""
        if self.encoder is None:
            return x
        made = self.encoder.transform(self.features.frame(x) if self._framed else x)
        plain = made.toarray() if hasattr(made, "toarray") else made
        return np.asarray(plain, np.float64)

    def fold(self, values: NDArray[np.float64]) -> Matrix:
        """Add up attributions (rows, columns) to (rows, features)."""
        if self.encoder is None:
            return values
        made = np.zeros((len(values), len(self.features)))
        np.add.at(made.T, self.origins, values.T)
        return made


def _trace(encoder: Any, origins: list[int], encoding: Encoding) -> list[int]:
    """Return the feature of each output column, given that of each input column."""
    kind = type(encoder).__name__
    if isinstance(encoder, str) and encoder == "passthrough":
        return origins
    if kind == "Pipeline":
        for _, step in encoder.steps:
            origins = _trace(step, origins, encoding)
        return origins
    if kind == "ColumnTransformer":
        return _columns(encoder, origins, encoding)
    if kind == "OneHotEncoder":
        return _one_hot(encoder, origins)
    if kind in _ONE_TO_ONE:
        count = len(encoder.get_feature_names_out())
        if count == len(origins):
            return origins
    raise ModelError(
        f"expected an encoder whose columns each come from one feature, got {kind}: explain the "
        "pipeline's predict function instead, as in Engine(pipeline.predict_proba, ...)"
    )


def _columns(encoder: Any, origins: list[int], encoding: Encoding) -> list[int]:
    names = [encoding.features.names[origin] for origin in origins]
    found: list[int] = []
    for name, step, columns in encoder.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        inputs = [origins[at] for at in _positions(columns, names)]
        place = encoder.output_indices_[name]
        if place.start != len(found):
            raise ModelError("expected columns in the order of their transformers, got another")
        found += _trace(step, inputs, encoding)
    return found


def _positions(columns: Any, names: Sequence[str]) -> list[int]:
    """Return the positions of a transformer's columns, which it names in one of several ways."""
    if isinstance(columns, slice):
        return list(range(len(names)))[columns]
    listed = [columns] if isinstance(columns, (str, int)) else list(columns)
    if listed and isinstance(listed[0], (bool, np.bool_)):
        return [at for at, kept in enumerate(listed) if kept]
    return [names.index(one) if isinstance(one, str) else int(one) for one in listed]


def _one_hot(encoder: Any, origins: list[int]) -> list[int]:
    dropped = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(origins)
    rare = getattr(encoder, "infrequent_categories_", None) or [None] * len(origins)
    found: list[int] = []
    for origin, known, left_out, seldom in zip(
        origins, encoder.categories_, dropped, rare, strict=True
    ):
        count = len(known) - (left_out is not None)
        count -= len(seldom) - 1 if seldom is not None else 0
        found += [origin] * count
    return found
