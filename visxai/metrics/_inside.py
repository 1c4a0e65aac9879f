"""How much of a map lies where it should."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-7  # a map whose positive values sum to no more than this says nothing


def share_inside(maps: Tensor, inside: Tensor) -> Tensor:
    """(r,): the share of the positive values of maps (r, h, w) where inside (r, h, w) is true; 0
    for a map without any."""
    positive = maps.clamp_min(0)
    total = positive.sum((1, 2))
    found = (positive * inside).sum((1, 2)) / total.clamp_min(NOTHING)
    return torch.where(total > NOTHING, found, torch.zeros_like(found))
