"""Attention rollout: how much of each patch the attention of all layers carries to the head.

    r <- r norm(mean_h A_lh + I)    from the last layer down,    r = e at first

A_lh is head h's attention in layer l, norm divides each row by its sum, e is one-hot at the class
token, or uniform over the patches where the model averages them. I stands for the residual. Only
the row r is carried, never a product of matrices: O(layers n²). The row sums to one; its patch part
is the map. The target plays no part: every class gets the same map.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="attention_rollout")

Cost: one forward; no backward.
Source: Abnar & Zuidema, Quantifying attention flow in transformers, ACL 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._attention import AttentionMethod
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.models.views import Attended
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class AttentionRollout(AttentionMethod):
    """Attention multiplied through the layers; see the module's docstring."""

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, rollout, gradient="none")
        return self.maps(seen.values, seen)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1)


def rollout(seen: Attended) -> Tensor:
    """Carry the row r (n, tokens) from the last layer down to the input."""
    row = seen.start
    for layer in reversed(seen.layers):
        mixed = layer.mean(lambda weights, _: weights)
        # A row of A sums to one, so a row of A + I sums to two, up to rounding.
        share = row / (mixed.sum(2) + 1)
        row = share + (share.unsqueeze(1) @ mixed).squeeze(1)
    return row
