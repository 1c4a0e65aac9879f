"""Explainable boosting machines (interpret): sums of functions of one or two features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ModelError
from visxai.tabular.features import Features, Matrix
from visxai.tabular.models.estimators import check_binary, digest
from visxai.tabular.models.interface import TermModel


class EBMModel(TermModel):
    """A fitted ExplainableBoostingClassifier or ExplainableBoostingRegressor."""

    def __init__(self, machine: Any, features: Features, name: str = "ebm") -> None:
        """Take a fitted machine.

        Raises:
            ModelError: It has more than two classes, or a link that isn't known here.
        """
        self.machine, self.features, self.name = machine, features, name
        check_binary(machine)
        self._framed = any(one.levels for one in features.items)
        if machine.link_ not in ("logit", "identity"):
            raise ModelError(f"expected the link logit or identity, got {machine.link_}")
        self.kind, self.scale = (
            ("logistic", "log-odds") if machine.link_ == "logit" else ("identity", "response")
        )
        self.sha256 = digest(machine.term_scores_, machine.intercept_, machine.bins_)
        self.intercept = float(np.asarray(machine.intercept_).reshape(-1)[0])
        self.term_features = tuple(tuple(map(int, term)) for term in machine.term_features_)

    def terms(self, x: Matrix) -> NDArray[np.float64]:
        """Look up the terms."""
        data = self.features.frame(x) if self._framed else x
        return np.asarray(self.machine.eval_terms(data), np.float64)
