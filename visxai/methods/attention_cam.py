"""Attention-CAM: the last layer's attention maps, each head weighted by the score's gradient.

    M_j = ( mean_h w_h A_h[cls, j] )⁺,    w_h = mean_j dy/dA_h[cls, j]

A_h is head h's attention in the last layer: heads take the part that channels have in Grad-CAM.
Where the model averages its patches, [cls] is the mean over their rows. `relu=False` keeps the
signed sum.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="attention_cam")

Cost: one forward, and one backward from the score down to the last block's attention.
Source: Grad-CAM's weighting (Selvaraju et al., ICCV 2017) on attention heads, as in the
attention-gradient map of Barkan et al., Grad-SAM, CIKM 2021.
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
class AttentionCam(AttentionMethod):
    """The last layer's attention, weighted by head; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, weighted, last=True)
        return self.maps(seen.values.relu() if self.relu else seen.values, seen)


def weighted(seen: Attended) -> Tensor:
    """Compute the signed map (n, tokens) over all tokens."""
    (layer,) = seen.layers
    weights, gradients = layer.rows(seen.start)
    return (gradients.mean(2, keepdim=True) * weights).mean(1)
