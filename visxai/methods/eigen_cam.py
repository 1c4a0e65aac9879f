"""Eigen-CAM: what a layer's activations have most in common, whatever the class.

    L = A v,    v the first right singular vector of A (positions, channels)

A_ik is channel k of the layer's output at position i. L is the best map that all channels can
share, each with its own factor: A is nearest to L v^T among matrices of rank one. Its sign is
arbitrary; the one is taken that correlates with the channels' mean activation over positions.
The paper takes A as it is; `centred=True` first subtracts each channel's mean over positions,
which makes L the first principal component in the sense of statistics.

The map needs no target and no gradient: it is the same for every class, and shows what stands
out rather than why the model chose.

    visxai.Engine().explain("cat.jpg", method="eigen_cam")

Cost: one forward.
Source: Muhammad & Yeasin, Eigen-CAM, IJCNN 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import fuse
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class EigenCam(LayerMethod):
    """First principal component of a layer's activations; see the module's docstring.

    Attributes:
        centred: Whether to subtract each channel's mean over positions first.
    """

    centred: bool = False

    needs = Need.LAYER_ACTIVATION

    @property
    def two_sided(self) -> bool:
        # The map belongs to no class; it is negative only where the layer itself is.
        return self.centred

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.activations(x, target, self.layers(model, x))
        maps = fuse([self.map(activation) for activation in seen.layers])
        return Maps(maps[seen.aim.rows])

    def map(self, activation: Tensor) -> Tensor:
        """Compute the map (b, u, v) of activations (b, channels, u, v)."""
        a = activation.flatten(2)
        if self.centred:
            a = a - a.mean(2, keepdim=True)
        # The eigenvectors of the smaller Gram matrix: exact and the same on every run, in one call.
        if a.shape[1] <= a.shape[2]:
            v = torch.linalg.eigh(a @ a.mT).eigenvectors[:, :, -1:]
            component = (v.mT @ a).squeeze(1)
        else:
            values, vectors = torch.linalg.eigh(a.mT @ a)
            component = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
        mean = activation.flatten(2).mean(1)
        agreement = (component * (mean - mean.mean(1, keepdim=True))).sum(1, keepdim=True)
        signed = component * torch.where(agreement < 0, -1.0, 1.0)
        maps: Tensor = signed.unflatten(1, activation.shape[2:])
        return maps

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1)
