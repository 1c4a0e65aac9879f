"""Features of explanations: a few numbers that say where a map's evidence lies.

One file a kind of input. Each documents its features with formula and range, and offers

    FEATURES                  the features by name, with range and meaning
    measure(explanation)      the values by name; NaN where a feature isn't defined

Drift tests, gaps between groups and trends compare these numbers, never the maps themselves: maps
of two inputs have no cells in common, their features do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.govern.features.base import features_of, measure
    from visxai.govern.features.feature import Feature

__all__ = ["Feature", "features_of", "measure"]

__getattr__, __dir__ = hand_on(
    __name__, {"Feature": "feature", "features_of": "base", "measure": "base"}
)
