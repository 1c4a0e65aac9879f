"""Agreement: do two methods rank the pixels alike?

    value = Spearman's rank correlation of the two maps' values over the pixels

Both maps are taken at pixel resolution; equal values share their mean rank, so the wide zeros of a
rectified map don't count as an order. 1 is the same order, -1 the opposite, 0 for a flat map.

    metrics.load("agreement")

Two methods that agree may both be wrong; where they disagree, at least one is worth a look.

Cost: none.
Source: Spearman, The proof and measurement of association between two things, 1904.
"""

from __future__ import annotations

from dataclasses import dataclass

from visxai.methods._maps import upsample
from visxai.metrics.base import Ask, Case, Metric, Scores, rank_correlation


@dataclass(frozen=True, repr=False)
class Agreement(Metric):
    """Rank correlation with another method's maps; see the module's docstring."""

    asks = Ask.MAPS | Ask.OTHERS
    better = "neither"

    def score(self, case: Case) -> Scores:
        assert case.others is not None
        others = upsample(case.others.to(case.x.device).float(), tuple(case.x.shape[2:]))
        return Scores(rank_correlation(case.pixels.flatten(1), others.flatten(1)))
