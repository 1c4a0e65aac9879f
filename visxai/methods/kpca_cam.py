"""KPCA-CAM: Eigen-CAM with a kernel, so that positions may be alike in other ways than on a line.

    L = sqrt(lambda) v,    lambda, v the first eigenpair of the centred kernel matrix K_ij

    sigmoid: K_ij = tanh(a_i . a_j / channels + 1)        rbf: K_ij = exp(-|a_i - a_j|^2 / channels)

a_i is the layer's output at position i, each channel less its mean over positions. With
kernel='linear', K_ij = a_i . a_j, it is eigen_cam(centred=True). The sign is the one that
correlates with the channels' mean activation. Like Eigen-CAM it needs no target and is the same
for all classes.

    visxai.Engine().explain("cat.jpg", method="kpca_cam(kernel='rbf')")

Cost: one forward, and an eigenvalue problem of positions x positions.
Source: Karmani et al., KPCA-CAM, 2024 (arXiv 2410.00267); Schölkopf et al., Nonlinear component
analysis as a kernel eigenvalue problem, Neural Computation 10, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.methods._maps import fuse
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class KpcaCam(LayerMethod):
    """First kernel principal component of a layer's activations; see the module's docstring.

    Attributes:
        kernel: 'sigmoid', 'rbf' or 'linear'.
    """

    kernel: Literal["sigmoid", "rbf", "linear"] = "sigmoid"

    needs = Need.LAYER_ACTIVATION

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("sigmoid", "rbf", "linear")
        self._require(self.kernel in known, f"a kernel of {', '.join(known)}", self.kernel)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.activations(x, target, self.layers(model, x))
        maps = fuse([self.map(activation) for activation in seen.layers])
        return Maps(maps[seen.aim.rows])

    def map(self, activation: Tensor) -> Tensor:
        """Compute the map (b, u, v) of activations (b, channels, u, v)."""
        plain = activation.flatten(
            2
        ).mT.double()  # eigenvectors of near eigenvalues need the digits
        a = plain - plain.mean(1, keepdim=True)
        if self.kernel == "rbf":
            matrix = (-torch.cdist(a, a).square() / a.shape[2]).exp()
        else:
            matrix = a @ a.mT
            if self.kernel == "sigmoid":
                matrix = torch.tanh(matrix / a.shape[2] + 1)
        matrix = matrix - matrix.mean(1, keepdim=True)
        matrix = matrix - matrix.mean(2, keepdim=True)
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        component = vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
        mean = plain.mean(2)
        agreement = (component * (mean - mean.mean(1, keepdim=True))).sum(1, keepdim=True)
        signed = component * torch.where(agreement < 0, -1.0, 1.0)
        maps: Tensor = signed.reshape(-1, *activation.shape[2:]).to(activation.dtype)
        return maps

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1)
