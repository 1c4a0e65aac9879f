"""Kernel SHAP: Shapley values of words by weighted least squares over coalitions.

    min_w  sum_S  k(S) ( v(S) - v(0) - sum_{i in S} w_i )^2,   sum_i w_i = v(N) - v(0)
    k(S) = (n - 1) / ( C(n, |S|) |S| (n - |S|) )

S are the words that are shown; v(0) is the score with none of them. Where no more than `samples`
coalitions exist, all are taken and the values are exact (10 words with the default). Otherwise
sizes are drawn by their weight and each coalition stands beside its complement.

    visxai.text.Engine().explain("You are an idiot", method="kernel_shap(samples=256)")

Cost: two forwards and at most `samples` more.
Source: Lundberg & Lee, A unified approach to interpreting model predictions, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from visxai.methods.kernel_shap import coalitions, fit
from visxai.text.methods.base import Hiding, Maps
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class KernelShap(Hiding):
    """Shapley values of words; see the module's docstring.

    Attributes:
        samples: Number of coalitions.
        seed: Seed of the coalitions.
    """

    samples: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 4, "at least 4 samples", self.samples)

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        plans: dict[int, tuple[Tensor, Tensor]] = {}
        for count in {min(len(window), self.parts) for window in windows}:
            turns = min(self.samples, 2 ** min(count, 40) - 2)
            plans[count] = coalitions(count, turns, self.seed)
        fits = {count: fit(*plan).numpy() for count, plan in plans.items()}
        shown = []
        for window in windows:
            count = min(len(window), self.parts)
            every, none = np.ones((1, count), bool), np.zeros((1, count), bool)
            drawn = plans[count][0].numpy().astype(bool).reshape(-1, count)
            shown.append(np.concatenate([none, drawn, every]))
        values = []
        found = self.responses(model, windows, shown, aim)
        for window, scores in zip(windows, found, strict=True):
            matrix = fits[min(len(window), self.parts)]
            values.append(self.spread(window, matrix @ (scores[1:] - scores[0])))
        return Maps(values)

    def cost(self, words: int) -> int:
        exist: int = 2 ** min(words, self.parts, 40) - 2
        return 2 + min(self.samples, exist)
