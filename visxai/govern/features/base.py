"""Measures the features of an explanation, whatever its kind."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

from visxai.errors import ArgumentError
from visxai.govern.features.feature import Feature
from visxai.record.base import Explanation

# The kinds of record and the modules that measure them.
_KINDS = {
    "image": "visxai.govern.features.images",
    "pair": "visxai.govern.features.pairs",
    "table": "visxai.govern.features.tables",
    "text": "visxai.govern.features.texts",
}

# Figures of quality that records keep and that every kind shares.
QUALITY = (
    Feature("completeness", 0, math.inf, "how far the map's sum misses the score, as recorded"),
    Feature("faithfulness", -math.inf, math.inf, "the recorded check of faithfulness"),
    Feature("flat", 0, 1, "1 for a map that says nothing: flat, or not finite"),
)


# The features that have columns of their own in a database; the others share one.
FIXED = (
    *("concentration", "entropy", "half_area", "centre_x", "centre_y", "border", "against"),
    *(f"cell_{row}{column}" for row in range(4) for column in range(4)),
    *("completeness", "faithfulness", "flat", "miss"),
)


def features_of(kind: str) -> tuple[Feature, ...]:
    """List the features of a kind of explanation whose names are known beforehand.

    Explanations of tables have one feature for each column besides these.

    Args:
        kind: "image", "text", "pair" (an image with a text) or "table".

    Raises:
        ArgumentError: The kind has no features.
    """
    return (*_module(kind).FEATURES, *QUALITY)


def measure(explanation: Explanation) -> dict[str, float]:
    """Measure all features of an explanation.

    Args:
        explanation: The explanation; its input isn't needed.

    Returns:
        The values by name, NaN where a feature isn't defined.

    Raises:
        ArgumentError: The explanation's kind has no features.
    """
    found: dict[str, float] = _module(explanation.kind).measure(explanation)
    quality = explanation.quality
    return {
        **found,
        "completeness": _number(quality, "completeness"),
        "faithfulness": _number(quality, "faithfulness"),
        "flat": float(explanation.degenerate),
    }


def _module(kind: str) -> Any:
    if kind not in _KINDS:
        raise ArgumentError(
            f"expected a kind of explanation that has features ({', '.join(_KINDS)}), got {kind!r}"
        )
    return importlib.import_module(_KINDS[kind])


def _number(quality: Mapping[str, Any], name: str) -> float:
    value = quality.get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
