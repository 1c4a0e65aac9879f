"""Energy-based pointing game: how much of the positive evidence lies on the object?

    value = sum_(p in object) max(M_p, 0) / sum_p max(M_p, 0)

The map is taken at pixel resolution; one whose positive values sum to no more than 1e-7 counts 0.

    metrics.load("energy_pointing")

Chance is the object's share of the image: a large object is easily hit.

Cost: none.
Source: Wang et al., Score-CAM, CVPR workshops 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from visxai.metrics._inside import share_inside
from visxai.metrics.base import Ask, Case, Metric, Scores


@dataclass(frozen=True, repr=False)
class EnergyPointing(Metric):
    """Share of the positive evidence on the object; see the module's docstring."""

    asks = Ask.MAPS | Ask.OBJECTS
    better = "higher"

    def score(self, case: Case) -> Scores:
        return Scores(share_inside(case.pixels, case.inside))
