"""Text classifiers that are plain functions from texts to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai.errors import ModelError
from visxai.models.interface import Activation
from visxai.references import ModelRef
from visxai.text.model import Encoded, Keep, Need, Replacement, TextModel, Window, distinct
from visxai.text.words import words

_UNKNOWN = "0" * 64  # the weights of a function can't be seen


class FunctionText(TextModel):
    """A function from texts to scores, for methods that need nothing else.

    Hidden words are cut out of the text, or replaced by `mask`.

    Args:
        function: Takes a list of texts, returns scores (n, k).
        name: The model's name.
        labels: Names of the classes.
        activation: What turns scores into probabilities; "none" for a function that returns them.
        mask: What stands for a masked word.
        batch_size: The most texts of one call.
    """

    offers = Need.SCORES

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        *,
        name: str,
        labels: Sequence[str] | None,
        activation: Activation,
        mask: str = "[MASK]",
        batch_size: int = 64,
    ) -> None:
        self._function = function
        self.ref = ModelRef(name, _UNKNOWN, "texts as they are")
        self.labels = labels
        self.activation = activation
        self.mask = mask
        self.device = torch.device("cpu")
        self.batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Find the words of texts; each is one piece."""
        made = []
        for text in texts:
            spans = tuple(words(text))
            every = np.arange(len(spans))
            made.append(Encoded(text, spans, (Window(every, every, every, text, spans),)))
        return made

    def altered(self, window: Window, keep: Keep, how: Replacement) -> list[str]:
        """Cut hidden words out of the text, with the space before them, or replace them."""
        text, found = window.text, []
        for row in keep.tolist():
            parts, last = [], 0
            for (start, end), shown in zip(window.spans, row, strict=True):
                if shown:
                    continue
                before = text[last:start]
                if how == "delete" and before[-1:].isspace():
                    before = before[:-1]
                parts += [before, "" if how == "delete" else self.mask]
                last = end
            found.append("".join([*parts, text[last:]]))
        return found

    def score(self, rows: Sequence[str]) -> Tensor:
        """Score texts, equal ones once: (m, k) float32."""
        kept, index = distinct(rows)
        found = []
        for start in range(0, len(kept), self.batch_size):
            batch = kept[start : start + self.batch_size]
            scores = torch.as_tensor(np.asarray(self._function(list(batch)))).float()
            if scores.ndim != 2 or len(scores) != len(batch):
                raise ModelError(
                    expected=f"scores of shape ({len(batch)}, classes) from the function",
                    got=str(tuple(scores.shape)),
                    remedy="return one row of scores for each text",
                )
            found.append(scores)
        return torch.cat(found)[torch.tensor(index)]
