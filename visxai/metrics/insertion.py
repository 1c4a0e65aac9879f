"""Insertion: how fast the class's probability rises as the most relevant pixels are revealed.

    value = area under  p(blurred x with the k first pixels of x)  over  k / n  from 0 to 1

The image starts blurred by a Gaussian of σ 5 pixels, cut to 11x11 and with its edges repeated; the
rest is as in deletion: pixels ranked by the map at pixel resolution, n / steps of them a step,
both ends in the curve, trapezoid area.

    metrics.load("insertion(steps=56)")

Higher is better. The published code pads the blur with zeros, which darkens a border of 5 pixels.

Cost: steps - 1 forwards a map, and one an image for the blurred one.
Source: Petsiuk et al., RISE: randomized input sampling for explanation of black-box models,
BMVC 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.metrics._ranked import Stepwise, blurred, curves
from visxai.metrics.base import Case, Scores, area


@dataclass(frozen=True, repr=False)
class Insertion(Stepwise):
    """Area under the probability as pixels are revealed; see the module's docstring."""

    better = "higher"

    def score(self, case: Case) -> Scores:
        owner = torch.arange(len(case.aim), device=case.x.device)
        ends = (case.x, blurred(case.x))
        curve = curves(case, owner, case.ranks, self.steps, ends, flip=True)
        axis = self.axis(case)
        return Scores(area(curve, axis), curves={"insertion": curve}, axis=axis)
