"""Ablation-CAM: channels weighted by how far the score falls without them.

    L_i = relu( sum_k w_k A_ki ),    w_k = (y - y_k) / |y|

A_ki is channel k of the layer's output at position i, y the target's scalar, y_k the scalar when
channel k is zero at the layer (on a transformer: at its patch tokens). The divisor is |y| and not
the paper's y, since a negative logit would invert the map; where y is zero the map is zero.
`relu=False` keeps the signed sum. No gradient is needed, so saturated scores are no obstacle.

    visxai.Engine().explain("cat.jpg", method="ablation_cam")

Only the head, the network above the layer, runs once for each channel. Where something goes
around the layer (a residual), the head starts at the enclosing block's input instead.

y and y_k come from the same run of the head: networks round otherwise in another batch size, and
what y alone had of that would count once in every channel.

Cost: one forward for each layer, and one head for each of its channels and one more.
Source: Desai & Ramaswamy, Ablation-CAM, WACV 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._maps import fuse, quotient, weighted
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.models.views import Replay
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class AblationCam(LayerMethod):
    """Activations weighted by the drop of the score without them; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    needs = Need.LAYER_SCORES

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        maps = []
        for name in self.layers(model, x):
            at = model.replay(x, target, name)
            values = model.replayed(at, ablated(at))
            y, without = values[:, :1], values[:, 1:]
            weights = quotient(y - without, y.abs())
            maps.append(weighted(weights, at.activation[at.aim.rows], self.relu))
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        counts = [model.layer_shape(x, name)[0] for name in self.layers(model, x)]
        return Cost(forwards=len(counts), heads=sum(counts) + len(counts))


def ablated(at: Replay) -> Rows:
    """Build the layer's activations with one channel set to zero.

    Turn 0 is the activation as it is, turn k + 1 is without channel k.
    """
    images, channels = at.activation.shape[:2]

    def build(image: Tensor, turn: Tensor) -> Tensor:
        rows, changed = at.activation[image], turn.nonzero().squeeze(1)
        rows[changed, turn[changed] - 1] = 0
        return rows

    return Rows(images, 1 + channels, tuple(at.activation.shape[1:]), build)
