"""Path-dependent SHAP values of trees: features that are left out follow the training rows.

    phi_i = sum_S  |S|! (n - |S| - 1)! / n!  ( v(S + i) - v(S) )

v(S) follows a row down each tree where it splits a feature in S, and at other splits takes the mean
of both sides, weighted by the training rows that went there. No background is needed, and none is
stated: whoever was trained on is who a row is compared with.

    visxai.tabular.Engine(booster, features=names).explain(applicants)

Cost: a walk through all paths of all trees for each row, in C++.
Source: Lundberg et al., From local explanations to global understanding with explainable AI for
trees, 2020, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import TableModel, TreeModel


@dataclass(frozen=True, repr=False)
class TreeShap(TableMethod):
    """Path-dependent SHAP values."""

    compares: ClassVar[bool] = False
    implied: ClassVar[str] = "the training rows that each node counted"

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        self._needs("a model of trees", isinstance(model, TreeModel), model)
        assert isinstance(model, TreeModel)

        def explain(x: Matrix) -> Explained:
            logits, found = model.explained(x)
            return Explained(found.values, found.base, logits)

        return explain
