"""Interventional SHAP values of trees: features that are left out come from background rows.

    v(S) = mean over background rows b of f(x on S, b elsewhere)

Exact, for the stated background; the game is the same as that of `exact_shap`. With
`output="probability"` the values add up to the probability instead of its log-odds.

    visxai.tabular.Engine(booster, background=approved).explain(applicants)

Cost: for each row a walk through all trees for each background row.
Source: Lundberg et al., From local explanations to global understanding with explainable AI for
trees, 2020, algorithm 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models import shapley
from visxai.tabular.models.interface import TableModel, TreeModel


@dataclass(frozen=True, repr=False)
class InterventionalTreeShap(TableMethod):
    """SHAP values against a background.

    Attributes:
        output: What the values add up to: "logit" (the model's own scalar) or "probability".
    """

    output: Literal["logit", "probability"] = "logit"

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        self._needs("a model of trees", isinstance(model, TreeModel), model)
        assert isinstance(model, TreeModel)
        turned = self.output == "probability" and model.kind == "logistic"
        self._require(
            self.output == "logit" or model.kind == "logistic" or model.scale == "probability",
            "output='logit' for a model without probabilities",
            self.output,
        )
        compared = model.inner(self._compared(background))
        made = shapley.explainer(model.trees, compared, "probability" if turned else "raw")
        middle = model.logits(self._compared(background)).mean()

        def explain(x: Matrix) -> Explained:
            found = shapley.values(made, model.inner(x), model.target)
            logits, base = model.logits(x), found.base
            if model.kind == "softmax":  # shap knows one intercept for all classes
                base = np.full(len(x), middle)
            return Explained(
                model.folded(found.values), base, model.scores(logits) if turned else logits
            )

        return explain

    def scale(self, model: TableModel) -> str:
        return "probability" if self.output == "probability" else model.scale
