"""Eigen-Grad-CAM: what the products of gradient and activation have most in common.

    L = relu( E v ),    E_ik = g_ki A_ki,    v the first right singular vector of E centred

A_ki is channel k of the layer's output at position i, g_ki = dy/dA_ki, y the target's scalar; E is
centred by subtracting each channel's mean over positions. It is Eigen-CAM of E, so unlike Eigen-CAM
it knows the class. A singular vector has no sign; the one is taken that correlates over positions
with sum_k E_ik, which is hires_cam. `relu=False` keeps negative values.

    visxai.Engine().explain("cat.jpg", method="eigen_grad_cam")

Cost: one forward, and one backward from the score down to the layer.
Source: Gildenblat, pytorch-grad-cam, 2021 (EigenGradCAM); after Muhammad & Yeasin, Eigen-CAM,
IJCNN 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods.base import Cam
from visxai.methods.eigen_cam import EigenCam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class EigenGradCam(Cam):
    """First principal component of gradient times activation; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps them.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def map(self, at: AtLayer) -> Tensor:
        peak = (at.gradient * at.activation).flatten(1).abs().amax(1)[:, None, None, None]
        # Scaled first: the squares of small gradients would vanish.
        products = at.gradient * at.activation / peak.clamp_min(1e-30)
        signed = EigenCam(centred=True).map(products) * peak[:, 0]
        return signed.relu() if self.relu else signed
