"""Smooth Grad-CAM++: Grad-CAM++ with gradients averaged over noisy copies of the image.

    L_i = relu( sum_k w_k A_ki ),    w_k = sum_i  a_ki relu( G1_ki )

    a_ki = G2_ki / ( 2 G2_ki + (sum_j A_kj) G3_ki ),    Gp = mean over copies of g^p

A_ki is channel k of the layer's output at position i for the image as it is, g = dy/dA at its noisy
copies x + sigma (max x - min x) e_j. a_ki is zero where its divisor is. All images share the draws
e_j, made from `seed`. With one copy and sigma 0 it is grad_cam_plus_plus. `relu=False` keeps the
signed sum.

    visxai.Engine().explain("cat.jpg", method="smooth_grad_cam_plus_plus(copies=8)")

Cost: 1 + copies forwards, and as many backwards from the score down to the layer.
Source: Omeiza et al., Smooth Grad-CAM++, 2019 (arXiv 1908.01224).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import fuse, quotient, weighted
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.methods.smooth_grad import Noise
from visxai.models.interface import Model, Need
from visxai.target import Settled, Target


@dataclass(frozen=True, repr=False)
class SmoothGradCamPlusPlus(LayerMethod):
    """Grad-CAM++ under noise; see the module's docstring.

    Attributes:
        copies: Number of noisy copies.
        sigma: Standard deviation of the noise, relative to each image's range of values.
        relu: Whether to set negative values to zero; False keeps the signed sum.
        seed: Seed of the noise.
    """

    copies: int = 4
    sigma: float = 0.15
    relu: bool = True
    seed: int = 0

    needs = Need.LAYER_GRADIENT

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.copies >= 1, "at least 1 copy", self.copies)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        names = self.layers(model, x)
        seen = model.at_layers(x, target, names)
        settled = Settled.on_aim(target, seen.aim)
        noise = Noise.of(x, self.copies, self.sigma, self.seed)
        image = torch.arange(len(x), device=x.device)
        # Scaled by the clean gradient's peak: third powers of small gradients would vanish.
        peaks = [at.gradient.flatten(1).abs().amax(1)[:, None, None, None] for at in seen.layers]
        powers = [[torch.zeros_like(at.gradient) for _ in range(3)] for at in seen.layers]
        for copy in range(self.copies):
            noisy = x + noise(image, torch.full_like(image, copy))
            for total, peak, at in zip(
                powers, peaks, model.at_layers(noisy, settled, names).layers, strict=True
            ):
                scaled = at.gradient / peak.clamp_min(1e-30)
                for power, part in enumerate(total):
                    part += scaled ** (power + 1) / self.copies
        maps = []
        for (first, second, third), peak, at in zip(powers, peaks, seen.layers, strict=True):
            whole = at.activation.sum((2, 3), keepdim=True)
            alpha = quotient(second, 2 * second + whole * peak * third)
            weights = (alpha * first.relu() * peak).sum((2, 3))
            maps.append(weighted(weights, at.activation, self.relu))
        return Maps(fuse(maps))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.copies, backwards=1 + self.copies)
