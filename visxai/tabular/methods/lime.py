"""LIME: a weighted linear model of whether each feature was kept, around one row.

    min_w  sum_z  pi(z) ( f(z) - w_0 - sum_i w_i k_i )^2 + ridge |w|^2,
    pi(z) = exp( -d(z)^2 / width^2 ),   d(z)^2 the share of features that were replaced

k_i tells whether feature i kept the row's value; replaced ones come from a drawn background row,
each feature on its own. The coefficients don't add up to the score, and another seed gives others:
here to be compared with exact values, not to justify decisions.

    visxai.tabular.Engine(predict, background=train, features=names, method="lime(samples=5000)")

Cost: `samples` rows through the model, for each row.
Source: Ribeiro et al., "Why should I trust you?", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import TableModel


@dataclass(frozen=True, repr=False)
class Lime(TableMethod):
    """A local linear model.

    Attributes:
        samples: Perturbed rows drawn for each row.
        width: Of the kernel, in shares of features.
        ridge: The penalty.
        seed: Of the draw; all rows share it.
    """

    exact: ClassVar[bool] = False

    samples: int = 1000
    width: float = 0.75
    ridge: float = 1e-3
    seed: int = 0

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        self._require(self.samples >= 2, "at least 2 samples", self.samples)
        self._require(self.width > 0, "a width above 0", self.width)
        compared = self._compared(background)
        count = len(model.features)
        rng = np.random.default_rng(self.seed)
        kept = rng.random((self.samples, count)) < 0.5
        drawn = compared[rng.integers(len(compared), size=(self.samples, count)), np.arange(count)]
        share = (~kept).mean(1)
        root = np.sqrt(np.exp(-share / self.width**2))
        design = np.column_stack([np.ones(self.samples), kept]) * root[:, None]
        penalty = self.ridge * np.diag([0.0, *np.ones(count)])
        solved = np.linalg.solve(design.T @ design + penalty, design.T * root)

        def explain(x: Matrix) -> Explained:
            found = np.stack([solved @ model.logits(np.where(kept, row, drawn)) for row in x])
            return Explained(found[:, 1:], found[:, 0], model.logits(x))

        return explain
