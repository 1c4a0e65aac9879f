"""Chefer's relevance: attention that the score gains from, carried through all layers.

    A_l = mean_h ( dy/dA_lh * A_lh )⁺,    R <- R + A_l R from the first layer,    R = I at first

The map is the class token's row of R, over the patches. Only that row is carried, from the last
layer down: r <- r + r A_l, r = e, which gives the same row (e is one-hot at the class token). Where
the model averages its patches, e is uniform over them, and e itself, which is the same everywhere,
is left out of the map.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="chefer")

This is the generic rule, which needs attention and its gradient alone. Evidence against the
target is cut off by ⁺ in every layer: the map is never negative.

Cost: one forward, and one backward from the score down to the first block's attention.
Source: Chefer et al., Generic attention-model explainability for interpreting bi-modal and
encoder-decoder transformers, ICCV 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._attention import AttentionMethod
from visxai.methods.base import Maps
from visxai.models.interface import Model
from visxai.models.views import Attended
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Chefer(AttentionMethod):
    """Gradient-weighted attention carried through the layers; see the module's docstring."""

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, relevance)
        return self.maps(seen.values, seen)


def relevance(seen: Attended) -> Tensor:
    """Carry the row r from the last layer down, and return r - e (n, tokens)."""
    row = seen.start
    for layer in reversed(seen.layers):
        gain = layer.mean(lambda weights, gradient: (weights * gradient).relu_())
        row = row + (row.unsqueeze(1) @ gain).squeeze(1)
    return row - seen.start
