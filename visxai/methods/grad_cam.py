"""Grad-CAM: where the score of a class grows with a layer's activations.

    L_i = relu( sum_k w_k A_ki ),    w_k = mean_i  dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. With a
global-average-pool and linear head w_k is the head's weight over h*w, so the map is CAM.
`relu=False` keeps the signed sum: evidence against the target is negative.

    visxai.Engine().explain("cat.jpg", method="grad_cam")

Cost: one forward, and one backward from the score down to the layer.
Source: Selvaraju et al., Grad-CAM, ICCV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import weighted
from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class GradCam(Cam):
    """Gradient-weighted class activation map; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def map(self, at: AtLayer) -> Tensor:
        return weighted(at.gradient.mean((2, 3)), at.activation, self.relu)
