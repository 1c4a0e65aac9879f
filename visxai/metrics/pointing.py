"""Pointing game: does the map's peak lie on the object?

    value = 1 if an object pixel lies within `tolerance` pixels of  argmax_p M_p,  else 0

The map is taken at pixel resolution; of equal peaks the upper left one counts. `objects` are
pixels of the model's view: masks, or filled boxes, as in the published tables.

    metrics.load("pointing(tolerance=15)")

The centre of the image alone scores 69.6 % on VOC07: compare with the centred control.

Cost: none.
Source: Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.metrics.base import Ask, Case, Metric, Scores


@dataclass(frozen=True, repr=False)
class Pointing(Metric):
    """Whether the peak hits the object; see the module's docstring.

    Attributes:
        tolerance: Distance in pixels from the peak within which the object counts as hit.
    """

    tolerance: float = 15

    asks = Ask.MAPS | Ask.OBJECTS
    better = "higher"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.tolerance >= 0, "a tolerance of at least 0 pixels", self.tolerance)

    def score(self, case: Case) -> Scores:
        maps, inside = case.pixels, case.inside
        height, width = maps.shape[1:]
        # Of equal values, argmax of the map may return any; the ranks put the upper left first.
        peak = case.ranks.flatten(1).argmin(1)
        rows = torch.arange(height, device=maps.device) - (peak // width).unsqueeze(1)
        columns = torch.arange(width, device=maps.device) - (peak % width).unsqueeze(1)
        near = rows.square().unsqueeze(2) + columns.square().unsqueeze(1) <= self.tolerance**2
        return Scores((near & inside).flatten(1).any(1).float())
