"""Regions of images that callers name in their metadata, and how much of the evidence lies there.

    {"region:badge": [10, 20, 60, 80]}      left, top, right, bottom in pixels of the upright image
    {"region:badge": "10 20 60 80"}         the same, as a table of CSV has it

A region becomes the feature "region:badge": its share of the positive evidence, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from visxai.govern.features.images import region_shares
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation

PREFIX = "region:"

Box = tuple[float, float, float, float]


def boxes_of(metadata: Mapping[str, Any]) -> dict[str, Box]:
    """Read the boxes of regions by label; entries that aren't four finite numbers aren't regions.

    Args:
        metadata: What a caller says of an item.
    """
    found = {}
    for name, value in metadata.items():
        if not name.startswith(PREFIX):
            continue
        parts = value.replace(",", " ").split() if isinstance(value, str) else value
        try:
            left, top, right, bottom = map(float, parts)
        except (TypeError, ValueError):
            continue
        if all(map(math.isfinite, (left, top, right, bottom))):
            found[name.removeprefix(PREFIX)] = (left, top, right, bottom)
    return found


def measure_regions(explanation: Explanation, metadata: Mapping[str, Any]) -> dict[str, float]:
    """Measure the shares of an image's regions; nothing for other kinds of input.

    Args:
        explanation: The explanation.
        metadata: What its caller says of the item.

    Returns:
        For each region its share as "region:LABEL"; NaN without positive evidence.
    """
    if not isinstance(explanation, ImageExplanation):
        return {}
    return region_shares(explanation, boxes_of(metadata))
