"""Completeness: do the map's values add up to the score's rise over the baseline?

    value = |sum_p M_p - d| / |d|,    d = y(x) - y(baseline)

y is the target's scalar, a logit. The sum is over the map's own resolution: upsampling would
multiply it. `baseline` is a number in model space, 'mean' or 'blur', as methods take it.

    metrics.load("completeness(baseline=0.0)")

Only methods that promise completeness (integrated gradients and its variants, Shapley values) can
be judged by it, with their own baseline; an error of some per cent comes from quadrature. Where d
is 0 it isn't defined.

Cost: one forward an image.
Source: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.methods._maps import baseline_like
from visxai.metrics.base import Case, Metric, Scores
from visxai.models.interface import Need


@dataclass(frozen=True, repr=False)
class Completeness(Metric):
    """Relative error of the map's sum; see the module's docstring.

    Attributes:
        baseline: The baseline in model space: a number, 'mean' or 'blur'.
    """

    baseline: float | str = 0.0

    needs = Need.SCORES
    better = "lower"

    def score(self, case: Case) -> Scores:
        aim = case.aim
        empty = baseline_like(case.x, self.baseline).expand_as(case.x)
        rise = case.clean(aim) - aim(case.probe.scores(empty)[aim.rows])
        error = (case.native.sum((1, 2)) - rise).abs() / rise.abs()
        return Scores(torch.where(rise == 0, torch.nan, error), {"rise": rise})
