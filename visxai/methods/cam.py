"""CAM: what each position adds to the score of a linear layer of pooled channels.

    L_i = relu( sum_k w_k A_ki ),    w = dy/ds W

A_ki is channel k of the layer's output at position i, W the weights (classes, channels) of the last
linear layer, s the scores and y the target's scalar of them, so that for a single class w is its
row of W. Over the positions, the mean of the signed map (`relu=False`) is y without its bias.

    visxai.Engine().explain("cat.jpg", method="cam")

It serves networks with a global average pooling before their only linear layer; that is checked on
two pictures beside each batch, and others are refused. There, grad_cam is the same map divided
by the number of positions, and it serves all other networks too.

Cost: one forward, and two more, of the pictures that the head is checked on; no gradient of it.
Source: Zhou et al., Learning deep features for discriminative localization, CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.errors import ModelError
from visxai.methods._maps import fuse, weighted
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.target import Target

AGREEMENT = 0.02  # of the scores' largest difference: half precision keeps no more


@dataclass(frozen=True, repr=False)
class Cam(LayerMethod):
    """Activations weighted by the last linear layer; see the module's docstring.

    Attributes:
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    relu: bool = True

    needs = Need.LAYER_ACTIVATION | Need.MODULE

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        names = self.layers(model, x)
        seen = model.activations(x, target, names)
        weight = model.head_weight(x, seen.scores.shape[1])
        # Two pictures that are always the same, so that no image decides for its batch.
        waves = torch.linspace(-99, 99, x[0].numel(), device=x.device).sin().reshape(x[:1].shape)
        pair = model.activations(torch.cat([waves * 0, waves]).to(x), Target.of(0), names)
        for activation in pair.layers:
            pooled = activation.mean((2, 3))
            self._check(model, weight, pooled[1] - pooled[0], pair.scores[1] - pair.scores[0])
        with torch.enable_grad():
            scores = seen.scores[seen.aim.rows].detach().requires_grad_()
            (slope,) = torch.autograd.grad(seen.aim(scores).sum(), scores)
        weights = slope @ weight
        maps = [weighted(weights, a[seen.aim.rows], self.relu) for a in seen.layers]
        return Maps(fuse(maps))

    def _check(self, model: Model, weight: Tensor, pooled: Tensor, change: Tensor) -> None:
        """Raise ModelError unless a change of the pooled channels explains that of the scores."""
        good = weight.shape[1] == len(pooled)
        if good:
            missing = (weight @ pooled - change).abs().max()
            good = bool(missing <= AGREEMENT * change.abs().max())
        if not good:
            raise ModelError(
                f"expected a model whose scores are a linear layer of {self.layer or 'a layer'} "
                f"averaged over its positions, but {model.ref.name} is built otherwise: use "
                "grad_cam, or name the layer before the pooling"
            )

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=3)
