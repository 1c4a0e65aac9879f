"""Shapley values of any model by enumeration of all coalitions, for few features.

    phi_i = sum_S  |S|! (n - |S| - 1)! / n!  ( v(S + i) - v(S) ),
    v(S) = mean over background rows b of f(x on S, b elsewhere)

Nothing is drawn: the values are what every other method for this game estimates.

    visxai.tabular.Engine(predict, background=train, features=names, method="exact_shap")

Cost: 2**features times the background's rows through the model, for each row.
Source: Shapley, A value for n-person games, 1953; Štrumbelj & Kononenko, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods._coalitions import worth
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import TableModel

MOST = 12  # features: 4,096 coalitions


@dataclass(frozen=True, repr=False)
class ExactShap(TableMethod):
    """Shapley values by enumeration."""

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        count = len(model.features)
        self._require(count <= MOST, f"at most {MOST} features (use kernel_shap)", count)
        compared = self._compared(background)
        numbers = np.arange(2**count)
        masks = (numbers[:, None] >> np.arange(count) & 1).astype(bool)
        sizes = masks.sum(1)
        weights = np.array(
            [factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]
        )

        def explain(x: Matrix) -> Explained:
            values = np.empty(x.shape)
            base = np.empty(len(x))
            for at, row in enumerate(x):
                found = worth(model, row, masks, compared)
                base[at] = found[0]
                for i in range(count):
                    without = numbers[~masks[:, i]]
                    gain = found[without | 1 << i] - found[without]
                    values[at, i] = (weights[sizes[without]] * gain).sum()
            return Explained(values, base, model.logits(x))

        return explain
