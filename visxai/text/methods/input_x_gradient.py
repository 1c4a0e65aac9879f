"""Input x gradient: the score's slope at each word times the word's distance from a baseline.

    L_w = sum_{i in w} (e_i - b) . df/de_i ( e )

It is integrated gradients with one point, at the text itself, and so what a straight line through
that point says; the model's curves are left out. With baseline "zero" it is e . df/de.

    visxai.text.Engine().explain("You are an idiot", method="input_x_gradient")

Cost: one forward and one backward.
Source: Shrikumar et al., Not just a black box, 2016; Denil et al., Extraction of salient sentences
from labelled documents, 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from visxai.text.methods.base import Maps, TextMethod, along
from visxai.text.model import Need, Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class InputXGradient(TextMethod):
    """Slope times distance from a baseline; see the module's docstring.

    Attributes:
        baseline: What distances are measured from: "zero", or the model's "pad" or "mask".
    """

    baseline: Literal["pad", "mask", "zero"] = "zero"

    needs = Need.GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.baseline in ("pad", "mask", "zero")
        self._require(fits, "baseline='pad', 'mask' or 'zero'", self.baseline)

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        sums = [np.zeros(len(window.ids)) for window in windows]
        found = model.embedded(windows, 1, lambda _: 1.0, aim, self.baseline, along)
        for index, _, _, part in found:
            sums[index] = part
        return Maps([window.sums(part) for window, part in zip(windows, sums, strict=True)])

    def cost(self, words: int) -> int:
        return 1
