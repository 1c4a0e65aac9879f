"""LeGrad: how each layer's own score would grow with the attention that a patch receives.

    M_j = sum_l mean_h mean_i ( ds_l / dA_lhij )⁺,    s_l = y( head( norm( pool( Z_l ))))

Z_l are the tokens after block l, pooled, normalised and classified as the model does with the
last block's; i runs over all queries, j over the patches as keys. A layer's gradient stops at
its own attention: what it contributes through earlier layers is left to their terms of the sum.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="legrad")

All layers' tokens go through the model's own head in a single forward, as rows of its batch.

Cost: one forward, a head for each layer but the last, and a backward through each layer's own head
and block.
Source: Bousselham et al., LeGrad: an explainability method for vision transformers via feature
formation sensitivity, ICCV 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._attention import AttentionMethod
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.models.views import Attended
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Legrad(AttentionMethod):
    """Layer-wise attention sensitivity; see the module's docstring."""

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, sensitivity, gradient="blocks")
        return self.maps(seen.values, seen)

    def cost(self, model: Model, x: Tensor) -> Cost:
        layers = len(model.tokens(x).blocks)
        return Cost(forwards=1, backwards=layers, heads=layers - 1)


def sensitivity(seen: Attended) -> Tensor:
    """Sum the mean positive gradient at each key over the layers (n, tokens)."""
    layers = [layer.mean(lambda _, gradient: gradient.relu().mean(2)) for layer in seen.layers]
    return torch.stack(layers).sum(0)
