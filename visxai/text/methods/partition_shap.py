"""Partition SHAP: Owen values over halves of the text, refined where they are large.

The text is halved, again and again, down to its words. Each run of words divides the score that
showing it adds, with and without its other half, between its own halves, as Shapley values of two
players. The run with the largest change is opened next, up to `max_evaluations` forwards; a run
that is never opened spreads its value evenly over its words. Values sum to f(x) - f(nothing).

    visxai.text.Engine().explain("You are an idiot", method="partition_shap")

Words that stand together are judged together, so "not stupid" is looked at as a phrase before its
words are.

Cost: two forwards and at most max_evaluations - 2 more.
Source: Owen, Values of games with a priori unions, 1977; the partition explainer of Lundberg &
Lee's package, whose exhaustive values these equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visxai.methods.partition_shap import Box, Node, Search, openings, rounds, shows
from visxai.text.methods.base import Hiding, Maps
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class PartitionShap(Hiding):
    """Owen values of words; see the module's docstring.

    Attributes:
        max_evaluations: Most forwards for each text.
    """

    max_evaluations: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.max_evaluations >= 4, "at least 4 evaluations", self.max_evaluations)

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        sizes = [min(len(window), self.parts) for window in windows]
        ends = [np.stack([np.zeros(size, bool), np.ones(size, bool)]) for size in sizes]
        searches = [
            Search(
                Node(
                    Box(0, 1, 0, size),
                    np.zeros((1, size), bool),
                    float(scores[0]),
                    float(scores[1]),
                    1.0,
                ),
                self.max_evaluations - 2,
            )
            for size, scores in zip(sizes, self.responses(model, windows, ends, aim), strict=True)
        ]
        for nodes in rounds(searches):
            found = self.responses(
                model,
                [windows[number] for number, _ in nodes],
                [
                    np.concatenate([shows(node.context, half) for half in node.box.halves()])
                    for _, node in nodes
                ],
                lambda scores, which, n=nodes: aim(  # type: ignore[misc]
                    scores, which.new_tensor([number for number, _ in n])[which]
                ),
            )
            for (number, node), scores in zip(nodes, found, strict=True):
                searches[number].open(node, *scores.tolist())
        return Maps(
            [
                self.spread(window, search.finish()[0])
                for window, search in zip(windows, searches, strict=True)
            ]
        )

    def cost(self, words: int) -> int:
        most = 2 * openings(Box(0, 1, 0, max(1, min(words, self.parts))))
        return 2 + min((self.max_evaluations - 2) // 2 * 2, most)
