"""Leave-one-out: how much the score falls when a word is hidden.

    L_w = f(x) - f(x without w)

Hidden words are deleted, or replaced by the model's mask; the two ask different questions, since a
mask says that something stood there. Words that say the same thing twice get little each: hiding
one of them changes nothing.

    visxai.text.Engine().explain("You are an idiot", method="leave_one_out(replacement='mask')")

Cost: one forward of the text and one for each word.
Source: Li, Monroe & Jurafsky, Understanding neural networks through representation erasure, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visxai.text.methods.base import Hiding, Maps
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class LeaveOneOut(Hiding):
    """The fall of the score without each word; see the module's docstring."""

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        shown = []
        for window in windows:
            count = min(len(window), self.parts)
            shown.append(np.concatenate([np.ones((1, count)), 1 - np.eye(count)]).astype(bool))
        found = self.responses(model, windows, shown, aim)
        return Maps(
            [
                self.spread(window, values[0] - values[1:])
                for window, values in zip(windows, found, strict=True)
            ]
        )

    def cost(self, words: int) -> int:
        return 1 + min(words, self.parts)
