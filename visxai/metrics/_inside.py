"""The share of a map's evidence that lies in a region."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-7  # a map whose positive values sum to no more than this counts as empty


def share_inside(maps: Tensor, inside: Tensor) -> Tensor:
    """Compute the share of each map's positive values that lies inside a region.

    Args:
        maps: Maps (r, h, w).
        inside: The regions (r, h, w), bool.

    Returns:
        Shares (r,) in 0..1; 0 for a map without positive values.
    """
    positive = maps.clamp_min(0)
    total = positive.sum((1, 2))
    found = (positive * inside).sum((1, 2)) / total.clamp_min(NOTHING)
    return torch.where(total > NOTHING, found, torch.zeros_like(found))
