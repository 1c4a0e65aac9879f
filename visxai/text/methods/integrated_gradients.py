"""Integrated gradients at the word embedding: the score's change along a line to the text.

    L_w = sum_{i in w} (e_i - b) . integral_0^1  df/de_i ( b + a (e - b) )  da

e_i is the embedding of piece i, b that of the baseline piece; the model's own marks at both ends
stay as they are. Only the word embedding moves: positions belong to places, and a line through
their embeddings leaves the sequences that the model knows. The integral is taken at Gauss-Legendre
points. Values sum to f(x) - f(baseline), and the record's `completeness` is the relative error of
that sum.

    visxai.text.Engine().explain("You are an idiot", method="integrated_gradients(steps=50)")

`baseline` is "pad" or "mask", the model's own pieces of these names, or "zero", an embedding of
zeros.

Cost: `steps` forwards and backwards, and two forwards for the completeness.
Source: Sundararajan, Taly & Yan, Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from visxai.text.methods.base import Maps, TextMethod, along
from visxai.text.model import Need, Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class IntegratedGradients(TextMethod):
    """Integrated gradients at the word embedding; see the module's docstring.

    Attributes:
        steps: Points of the line.
        baseline: Where the line starts.
    """

    steps: int = 32
    baseline: Literal["pad", "mask", "zero"] = "pad"

    needs = Need.GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)
        fits = self.baseline in ("pad", "mask", "zero")
        self._require(fits, "baseline='pad', 'mask' or 'zero'", self.baseline)

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        places, shares = (nodes + 1) / 2, weights / 2
        sums = [np.zeros(len(window.ids)) for window in windows]
        found = model.embedded(
            windows, self.steps, lambda turn: float(places[turn]), aim, self.baseline, along
        )
        for index, turn, _, part in found:
            sums[index] += shares[turn] * part
        ends = np.zeros((2, len(windows)))
        for index, turn, value, _ in model.embedded(windows, 2, float, aim, self.baseline, None):
            ends[turn, index] = value
        change = ends[1] - ends[0]
        error = np.abs([part.sum() for part in sums] - change)
        completeness = error / np.maximum(np.abs(change), 1e-6)
        values = [window.sums(part) for window, part in zip(windows, sums, strict=True)]
        return Maps(values, {"completeness": completeness.tolist()})

    def cost(self, words: int) -> int:
        return self.steps + 2
