"""The exact SHAP values of a linear model: each weight times the distance from the background.

    phi_j = w_j ( x_j - mean_b b_j )

The columns that an encoder made of one feature are added up, which is exact too, as their effects
simply add.

    visxai.tabular.Engine(logistic_regression, background=train).explain(applicants)

Cost: one product a column.
Source: Lundberg & Lee, A unified approach to interpreting model predictions, 2017, corollary 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import LinearModel, TableModel


@dataclass(frozen=True, repr=False)
class LinearShap(TableMethod):
    """Exact SHAP values of a linear model."""

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        self._needs("a linear model", isinstance(model, LinearModel), model)
        assert isinstance(model, LinearModel)
        mean = model.inner(self._compared(background)).mean(0)
        base = float(mean @ model.weights + model.intercept)

        def explain(x: Matrix) -> Explained:
            z = model.inner(x)
            values = model.folded((z - mean) * model.weights)
            return Explained(values, np.full(len(x), base), z @ model.weights + model.intercept)

        return explain
