"""Recipro-CAM: the score that each position of a layer gets when it is let through alone.

    L_i = y( A * N_i ) - y( 0 )

A is the layer's output, N_i a mask over positions that falls off around position i as 1/4 at it,
1/8 beside it and 1/16 at its corners (zero further out), y the target's scalar, computed by the
head: the network above the layer. `spread=False` lets position i alone through. On a transformer,
the prefix tokens (class, registers) stay as they are. No gradient is needed. With a global
average pooling and a linear layer above, L is CAM blurred by N and divided by the number of
positions.

    visxai.Engine().explain("cat.jpg", method="recipro_cam")

Cost: one forward for each layer, and one head for each of its positions and one more.
Source: Byun & Lee, Recipro-CAM: fast gradient-free visual explanations for convolutional neural
networks, CVPR workshops 2024 (arXiv 2209.14074); for transformers, ViT-ReciproCAM, 2023
(arXiv 2310.02588).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import fuse
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.models.views import Replay
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class ReciproCam(LayerMethod):
    """Scores of single positions of a layer; see the module's docstring.

    Attributes:
        spread: Whether the neighbours of a position pass too, weaker.
    """

    spread: bool = True

    needs = Need.LAYER_SCORES

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        maps = []
        for name in self.layers(model, x):
            at = model.replay(x, target, name)
            values = model.replayed(at, self._alone(at))
            change = values[:, 1:] - values[:, :1]
            maps.append(change.reshape(-1, *at.activation.shape[2:]))
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        shapes = [model.layer_shape(x, name) for name in self.layers(model, x)]
        return Cost(len(shapes), heads=sum(1 + height * width for _, height, width in shapes))

    def _alone(self, at: Replay) -> Rows:
        """Build the activation masked: turn 0 hides all positions, turn i + 1 shows position i."""
        height, width = at.activation.shape[2:]
        around = [self._near(size).to(at.activation) for size in (height, width)]

        def build(image: Tensor, turn: Tensor) -> Tensor:
            place = (turn - 1).clamp_min(0)
            down, across = around[0][place // width], around[1][place % width]
            mask = down[:, None, :, None] * across[:, None, None, :]
            return at.activation[image] * mask * (turn > 0)[:, None, None, None]

        return Rows(len(at.activation), 1 + height * width, tuple(at.activation.shape[1:]), build)

    def _near(self, size: int) -> Tensor:
        """Weigh each place (size, size) of a side by its distance from a place."""
        places = torch.arange(size)
        distance = (places[:, None] - places).abs()
        if not self.spread:
            return (distance == 0).float()
        return 0.5 * (distance == 0) + 0.25 * (distance == 1)
