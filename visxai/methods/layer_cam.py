"""LayerCAM: activations weighted, position by position, by the gradients that are above zero.

    L_i = relu( sum_k relu(g_ki) A_ki ),    g_ki = dy / dA_ki

A_ki is channel k of the layer's output at position i, y the target's scalar. Separate weights for
every position keep maps sharp at early layers, where a channel's mean gradient is hardly
informative; several layers joined by "+" combine detail and meaning. `relu=False` keeps the signed
sum.

    visxai.Engine().explain("cat.jpg", method="layer_cam(layer='blocks.2+bn2')")

Cost: one forward, and one backward from the score down to the layer.
Source: Jiang et al., LayerCAM, IEEE Transactions on Image Processing 30, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import weighted
from visxai.methods.base import Cam
from visxai.models.views import AtLayer


@dataclass(frozen=True, repr=False)
class LayerCam(Cam):
    """Positive gradients times activations; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def map(self, at: AtLayer) -> Tensor:
        return weighted(at.gradient.relu(), at.activation, self.relu)
