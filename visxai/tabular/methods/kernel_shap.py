"""Kernel SHAP: Shapley values of any model, estimated from drawn coalitions by regression.

    min_phi  sum_S ( v(S) - v({}) - sum_{i in S} phi_i )^2,   sum_i phi_i = v(all) - v({})

Coalition sizes s are drawn with a probability proportional to 1 / (s (n - s)), members uniformly,
and each coalition comes with its complement, which halves the spread. The constraint makes values
add up whatever was drawn; how near they are to the exact ones depends on `samples`.

    visxai.tabular.Engine(predict, background=train, features=names, method="kernel_shap(seed=1)")

Cost: `samples` times the background's rows through the model, for each row.
Source: Lundberg & Lee, 2017; Covert & Lee, Improving KernelSHAP, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods._coalitions import Masks, worth
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import TableModel


@dataclass(frozen=True, repr=False)
class KernelShap(TableMethod):
    """Shapley values by weighted regression.

    Attributes:
        samples: Coalitions drawn, at least twice the number of features for a stable regression.
        seed: Of the draw; all rows share it.
    """

    samples: int = 2048
    seed: int = 0

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        count = len(model.features)
        self._require(count >= 2, "a model of at least two features", count)
        self._require(self.samples >= 2 * count, f"at least {2 * count} samples", self.samples)
        compared = self._compared(background)
        masks = self._drawn(count)
        ends = np.stack([np.zeros(count, bool), np.ones(count, bool)])
        z = masks.astype(np.float64)
        # Lagrange: the constrained regression is one linear map of the coalitions' worths.
        gram = np.linalg.pinv(z.T @ z / len(z))
        ones = gram.sum(1)

        def explain(x: Matrix) -> Explained:
            values, base = np.empty(x.shape), np.empty(len(x))
            for at, row in enumerate(x):
                found = worth(model, row, np.concatenate([ends, masks]), compared)
                base[at], whole = found[0], found[1] - found[0]
                free = gram @ (z.T @ (found[2:] - found[0]) / len(z))
                values[at] = free + ones * (whole - free.sum()) / ones.sum()
            return Explained(values, base, model.logits(x))

        return explain

    def _drawn(self, count: int) -> Masks:
        """Draw coalitions, each followed by its complement."""
        rng = np.random.default_rng(self.seed)
        sizes = np.arange(1, count)
        chances = 1.0 / (sizes * (count - sizes))
        half = -(-self.samples // 2)
        drawn = rng.choice(sizes, half, p=chances / chances.sum())
        ranks = rng.random((half, count)).argsort(1).argsort(1)
        masks = ranks < drawn[:, None]
        return np.stack([masks, ~masks], 1).reshape(-1, count)
