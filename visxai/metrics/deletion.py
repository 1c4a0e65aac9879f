"""Deletion: how fast the class's probability falls as the most relevant pixels go.

    value = area under  p(x without its k first pixels)  over  k / n  from 0 to 1

Pixels are ranked by the map at pixel resolution and set to zero in model space, all channels at
once, n / steps of them a step; p is the probability of the explained class and step 0, the clean
image, belongs to the curve. The area is the trapezoid's, so a value is a mean probability. Of
equal pixels the upper left one goes first, whatever the method.

    metrics.load("deletion(steps=56)")

Lower is better. A value depends on `steps` and on what replaces the pixels: compare only within
one setting. Scattered pixels break an image faster than compact ones, whatever they show: read it
beside insertion and the controls.

Cost: steps - 1 forwards a map, and one a batch.
Source: Petsiuk et al., RISE: randomized input sampling for explanation of black-box models,
BMVC 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.metrics._ranked import Stepwise, curves, zeros
from visxai.metrics.base import Case, Scores, area


@dataclass(frozen=True, repr=False)
class Deletion(Stepwise):
    """Area under the probability as pixels go; see the module's docstring."""

    better = "lower"

    def score(self, case: Case) -> Scores:
        owner = torch.arange(len(case.aim), device=case.x.device)
        ends = (case.x, zeros(case.x))
        curve = curves(case, owner, case.ranks, self.steps, ends, flip=False)
        axis = self.axis(case)
        return Scores(area(curve, axis), curves={"deletion": curve}, axis=axis)
