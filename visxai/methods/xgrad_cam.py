"""XGrad-CAM: Grad-CAM whose weights average the gradient by activation rather than evenly.

    L_i = relu( sum_k w_k A_ki ),    w_k = sum_i g_ki A_ki / sum_i A_ki,    g_ki = dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. The weights are the
best compromise between two axioms: sensitivity (a channel's share of the map is the drop of the
score when it is removed) and conservation (the map sums to the score). The map's sum without the
ReLU is sum_ki g_ki A_ki, that of hires_cam. A channel that sums to zero has weight zero.
`relu=False` keeps the signed sum. Where activations take both signs their sum can nearly cancel
and the weight of such a channel is large: prefer a layer after its activation function.

    visxai.Engine().explain("cat.jpg", method="xgrad_cam")

Cost: one forward, and one backward from the score down to the layer.
Source: Fu et al., Axiom-based Grad-CAM, BMVC 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import quotient, weighted
from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class XgradCam(Cam):
    """Grad-CAM with activation-weighted mean gradients; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def map(self, at: AtLayer) -> Tensor:
        agreement = (at.gradient * at.activation).sum((2, 3))
        return weighted(quotient(agreement, at.activation.sum((2, 3))), at.activation, self.relu)
