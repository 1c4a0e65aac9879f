"""Element-wise Grad-CAM: gradient times activation, positive where they agree, channel by channel.

    L_i = sum_k relu( g_ki A_ki ),    g_ki = dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. hires_cam sums the
same products with their signs; here, a channel that speaks against the class at a position takes
nothing away from those that speak for it. On a layer that ends in a ReLU it equals layer_cam.

    visxai.Engine().explain("cat.jpg", method="grad_cam_elementwise")

Cost: one forward, and one backward from the score down to the layer.
Source: Gildenblat, pytorch-grad-cam, 2021 (GradCAMElementWise).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class GradCamElementwise(Cam):
    """Positive products of gradient and activation; see the module's docstring."""

    @property
    def two_sided(self) -> bool:
        return False

    def map(self, at: AtLayer) -> Tensor:
        return (at.gradient * at.activation).relu().sum(1)
