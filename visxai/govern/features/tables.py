"""Features of a row's explanation: the attributions themselves, and how few of them decide.

With a_i the attribution of feature i of n, in the record's own scale:

    attribution.NAME    a_i                                                             any
    share.NAME          |a_i| / sum |a|, the feature's share of the evidence            0 to 1
    concentration       Gini coefficient of |a|: sum_i (2 i - n - 1) |a|_(i) / (n sum |a|)   0 to 1
    against             sum max(-a, 0) / sum |a|                                        0 to 1
    miss                |base value + sum of a - what the score is made of|             0 or more

A row whose attributions are all zero has neither shares, `concentration` nor
`against`.

Cost: no model call.
"""

from __future__ import annotations

import math

import numpy as np

from visxai.govern.features.feature import Feature
from visxai.record.base import Explanation
from visxai.record.table import TableExplanation

PREFIX, SHARE = "attribution.", "share."

FEATURES = (
    Feature("concentration", 0, 1, "how few features decide"),
    Feature("against", 0, 1, "attributions against the outcome, as a part of all"),
    Feature("miss", 0, math.inf, "how far base value and attributions miss the score"),
)


def measure(explanation: Explanation) -> dict[str, float]:
    """Measure a row's explanation; NaN where a feature isn't defined."""
    assert isinstance(explanation, TableExplanation)
    values = explanation.values.astype(np.float64)
    found = {
        f"{PREFIX}{name}": float(value)
        for name, value in zip(explanation.features, values, strict=True)
    }
    ordered = np.sort(np.abs(values))
    total, count = float(ordered.sum()), len(ordered)
    found |= {"concentration": math.nan, "against": math.nan, "miss": explanation.additivity}
    if math.isfinite(total) and total > 0:
        shares = np.abs(values) / total
        found |= {
            f"{SHARE}{name}": float(share)
            for name, share in zip(explanation.features, shares, strict=True)
        }
        weights = 2 * np.arange(1, count + 1) - count - 1
        found["concentration"] = float((weights * ordered).sum()) / (count * total)
        found["against"] = float(-values.clip(max=0).sum()) / total
    return found
