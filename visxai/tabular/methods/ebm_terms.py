"""The terms of a sum of functions, as an explainable boosting machine learns it.

    phi_i = f_i(x_i) + sum_j f_ij(x_i, x_j) / 2

The model is its own explanation: nothing is estimated. A term of two features is divided evenly
between them, which is its Shapley value in the game where a term counts once all of its features
are there. The base value is the intercept: terms are centred on the training rows.

    visxai.tabular.Engine(machine, features=names).explain(applicants)

Cost: one look-up a term.
Source: Lou et al., Accurate intelligible models with pairwise interactions, 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import Explained, Explainer, TableMethod
from visxai.tabular.models.interface import TableModel, TermModel


@dataclass(frozen=True, repr=False)
class EbmTerms(TableMethod):
    """A model's own terms."""

    compares: ClassVar[bool] = False
    implied: ClassVar[str] = "the training rows that terms are centred on"

    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        self._needs("an explainable boosting machine", isinstance(model, TermModel), model)
        assert isinstance(model, TermModel)
        shares = np.zeros((len(model.term_features), len(model.features)))
        for term, members in enumerate(model.term_features):
            shares[term, list(members)] = 1.0 / len(members)

        def explain(x: Matrix) -> Explained:
            terms = model.terms(x)
            base = np.full(len(x), model.intercept)
            return Explained(terms @ shares, base, terms.sum(1) + model.intercept)

        return explain
