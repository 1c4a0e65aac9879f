"""Gradient norms: how steeply the score changes with each word's embedding.

    L_w = sum_{i in w} | df/de_i |_2

It says where the model is sensitive, in whichever direction, and so never for or against.

    visxai.text.Engine().explain("You are an idiot", method="gradient_norm")

Cost: one forward and one backward.
Source: Li et al., Visualizing and understanding neural models in NLP, NAACL 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visxai.text.methods.base import Maps, TextMethod
from visxai.text.model import Need, Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class GradientNorm(TextMethod):
    """Norms of the gradients at the word embeddings; see the module's docstring."""

    needs = Need.GRADIENT

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        norms = [np.zeros(len(window.ids)) for window in windows]
        found = model.embedded(
            windows, 1, lambda _: 1.0, aim, "zero", lambda slope, _: slope.norm(dim=2)
        )
        for index, _, _, part in found:
            norms[index] = part
        return Maps([window.sums(part) for window, part in zip(windows, norms, strict=True)])

    def cost(self, words: int) -> int:
        return 1

    @property
    def two_sided(self) -> bool:
        return False
