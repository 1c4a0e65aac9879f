"""FEM: where channels respond far more than they usually do, whatever the class.

    L_i = sum_k m_k [ A_ki > m_k + sigmas s_k ]

A_ki is channel k of the layer's output at position i, m_k and s_k its mean and standard deviation
over positions, and [ ] is 1 where the condition holds and 0 elsewhere. Rare, strong responses
count, and count more in a channel that is active on the whole.

    visxai.Engine().explain("cat.jpg", method="fem")

The map needs no target: it is the same for every class.

Cost: one forward.
Source: Fuad et al., Features understanding in 3D CNNs for actions recognition in video, IPTA 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import fuse
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Fem(LayerMethod):
    """Rare strong responses of a layer's channels; see the module's docstring.

    Attributes:
        sigmas: Standard deviations above a channel's mean from which a response counts.
    """

    sigmas: float = 2.0

    needs = Need.LAYER_ACTIVATION

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.sigmas >= 0, "sigmas of at least 0", self.sigmas)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.activations(x, target, self.layers(model, x))
        maps = fuse([self.map(activation) for activation in seen.layers])
        return Maps(maps[seen.aim.rows])

    def map(self, activation: Tensor) -> Tensor:
        """Compute the map (b, u, v) of activations (b, channels, u, v)."""
        mean = activation.mean((2, 3), keepdim=True)
        spread = activation.std((2, 3), keepdim=True, correction=0)
        return (mean * (activation > mean + self.sigmas * spread)).sum(1)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1)
