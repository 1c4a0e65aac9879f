"""SmoothGrad: the gradient averaged over noisy copies of the image.

    G = mean over j of  dy/dx ( x + sigma (max x - min x) e_j ),    e_j normal, j = 1 ... copies
    M_p = max over channels c of  abs( G_cp )

`sigma` is relative to the image's own range of values, as in the paper, which found 0.1 to 0.2
best. `signed=True` is the sum over channels of G; `squared=True` averages the squared gradients
and takes their largest channel. All images share the draws e_j, made from `seed`. With one copy
and sigma 0 the map is saliency's. The target is settled on the clean image.

    visxai.Engine().explain("cat.jpg", method="smooth_grad(copies=25, sigma=0.15)")

Cost: 1 + copies forwards, copies backwards.
Source: Smilkov et al., SmoothGrad, 2017 (arXiv 1706.03825); squared: Hooker et al., A benchmark
for interpretability methods, NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._draws import shared
from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class SmoothGrad(Method):
    """The mean gradient under noise; see the module's docstring.

    Attributes:
        copies: Number of noisy copies.
        sigma: Standard deviation of the noise, relative to each image's range of values.
        signed: Whether to sum the gradient over channels, rather than take the largest magnitude.
        squared: Whether to average squared gradients; not together with `signed`.
        seed: Seed of the noise.
    """

    copies: int = 25
    sigma: float = 0.15
    signed: bool = False
    squared: bool = False
    seed: int = 0

    needs = Need.INPUT_GRADIENT

    @property
    def two_sided(self) -> bool:
        return self.signed

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.copies >= 1, "at least 1 copy", self.copies)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)
        self._require(
            not (self.signed and self.squared), "signed or squared, not both", "signed=True"
        )

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        noise = Noise.of(x, self.copies, self.sigma, self.seed)
        rows = Rows(len(x), self.copies, tuple(x.shape[1:]), lambda i, j: x[i] + noise(i, j))
        total, _ = gradient_sum(model, rows, aim, _square if self.squared else None)
        mean = total / self.copies
        return Maps(mean.sum(1) if self.signed else mean.abs().amax(1))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.copies, backwards=self.copies)


@dataclass(frozen=True)
class Noise:
    """Normal noise for copies of a batch.

    Attributes:
        draws: Standard normal draws (copies, c, h, w), shared by all images.
        spread: Standard deviation for each image (b, 1, 1, 1).
    """

    draws: Tensor
    spread: Tensor

    @classmethod
    def of(cls, x: Tensor, copies: int, sigma: float, seed: int) -> Noise:
        """Draw noise for a batch x (b, c, h, w).

        Args:
            x: The batch.
            copies: The number of draws, the same for every image.
            sigma: The standard deviation, relative to each image's range of values.
            seed: The seed of the draws.
        """
        shape = (copies, *x.shape[1:])
        draws = shared(
            ("normal", shape, seed),
            x,
            lambda: torch.randn(shape, generator=torch.Generator().manual_seed(seed)),
        )
        low, high = x.flatten(1).aminmax(dim=1)
        return cls(draws, sigma * (high - low).reshape(-1, 1, 1, 1))

    def __call__(self, image: Tensor, copy: Tensor) -> Tensor:
        """Return the noise (n, c, h, w) of the copies (n,) of images (n,)."""
        return self.spread[image] * self.draws[copy]


def _square(gradient: Tensor, _image: Tensor, _turn: Tensor) -> Tensor:
    return gradient.square()
