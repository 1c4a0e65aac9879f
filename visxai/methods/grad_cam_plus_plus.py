"""Grad-CAM++: Grad-CAM whose weights count each position by how much it decides its channel.

    L_i = relu( sum_k w_k A_ki ),    w_k = sum_i  a_ki relu(g_ki)

    a_ki = g_ki^2 / ( 2 g_ki^2 + (sum_j A_kj) g_ki^3 ),    g_ki = dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. The numerator is
divided position by position, and a_ki is zero where the divisor is. In the paper the second and
third derivatives are those of exp(y) with a piecewise linear y, which leaves powers of g.
Several objects of a class weigh alike, where Grad-CAM's mean favours the largest.
`relu=False` keeps the signed sum.

    visxai.Engine().explain("cat.jpg", method="grad_cam_plus_plus")

Cost: one forward, and one backward from the score down to the layer.
Source: Chattopadhay et al., Grad-CAM++, WACV 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import quotient, weighted
from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class GradCamPlusPlus(Cam):
    """Grad-CAM with positions weighted by higher derivatives; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    @property
    def bears_half(self) -> bool:
        """Return False: bfloat16 turns maps by a cosine of .99899 at worst, Grad-CAM's by less."""
        return False

    def map(self, at: AtLayer) -> Tensor:
        # Divided by g^2, which numerator and divisor share: g^3 underflows where g does not.
        g = at.gradient
        total = at.activation.sum((2, 3), keepdim=True)
        alpha = quotient((g != 0).to(g), 2 + total * g)
        return weighted((alpha * g.relu()).sum((2, 3)), at.activation, self.relu)
