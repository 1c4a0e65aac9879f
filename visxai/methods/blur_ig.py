"""Blur integrated gradients: the score's change as the image comes into focus.

    M_p = integral over s from sigma down to 0 of  sum over c of  dy/dL_cp * dL_cp/ds  ds

L(s) is the image blurred with a standard deviation of s pixels. No baseline colour is needed:
the path starts from the image's own coarse layout, and each scale attributes only the detail that
appears at that scale. The blur is heat diffusion with closed borders (a product in the cosine
transform), exact at every s: no kernel is cut off, and the mean colour stays.

The path is cut where s = sigma (1 - j/steps)^2, finer towards the sharp end, where the image
changes most, and integrated by the trapezoid rule with the exact differences of L. The map sums
to y(x) - y(L(sigma)) in the limit of many steps; the relative error is recorded.

    visxai.Engine().explain("cat.jpg", method="blur_ig(steps=50, sigma=50.0)")

Cost: 2 + steps forwards, 1 + steps backwards.
Source: Xu et al., Attribution in scale and space, CVPR 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.integrated_gradients import incompleteness
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class BlurIg(Method):
    """Integrated gradients along a blur; see the module's docstring.

    Attributes:
        steps: Steps of the path.
        sigma: Standard deviation of the strongest blur, in pixels.
    """

    steps: int = 50
    sigma: float = 50.0

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)
        self._require(self.sigma > 0, "a sigma above 0", self.sigma)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        blur = Blur.of(x)
        sigmas = self.sigma * (1 - torch.arange(self.steps + 1, device=x.device) / self.steps) ** 2
        # A point represents half of the step before it and half of the step after it.
        after, before = sigmas.roll(-1), sigmas.roll(1)
        after[-1], before[0] = sigmas[-1], sigmas[0]

        def build(image: Tensor, turn: Tensor) -> Tensor:
            return blur(image, sigmas[turn])

        def weigh(gradient: Tensor, image: Tensor, turn: Tensor) -> Tensor:
            return (blur(image, after[turn]) - blur(image, before[turn])) / 2 * gradient

        rows = Rows(len(x), self.steps + 1, tuple(x.shape[1:]), build)
        total, values = gradient_sum(model, rows, aim, weigh)
        maps = total.sum(1)
        return Maps(maps, {"completeness": incompleteness(maps, clean - values[:, 0])})

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2 + self.steps, backwards=1 + self.steps)


@dataclass(frozen=True)
class Blur:
    """Images in the cosine basis, where blurring is a product.

    Attributes:
        waves: The images' coefficients (b, c, h, w).
        down: The cosine transform along the height (h, h), a row for each frequency.
        across: The cosine transform along the width (w, w).
    """

    waves: Tensor
    down: Tensor
    across: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Blur:
        """Transform the images x (b, c, h, w) to the cosine basis."""
        down, across = (_cosines(size).to(x) for size in x.shape[2:])
        return cls(down @ x @ across.T, down, across)

    def __call__(self, image: Tensor, sigma: Tensor) -> Tensor:
        """Blur the images of indices (n,) by sigma (n,) pixels: (n, c, h, w)."""
        fall = -0.5 * sigma.to(self.waves).square().unsqueeze(1)
        rows, columns = (
            (fall * (math.pi * torch.arange(size, device=fall.device) / size) ** 2).exp()
            for size in self.waves.shape[2:]
        )
        waves = self.waves[image] * rows[:, None, :, None] * columns[:, None, None, :]
        blurred: Tensor = self.down.T @ waves @ self.across
        return blurred


def _cosines(size: int) -> Tensor:
    """Build the orthonormal cosine transform (frequencies, positions): type II, closed borders."""
    at = torch.arange(size, dtype=torch.float64)
    basis: Tensor = (math.pi / size * at[:, None] * (at + 0.5)).cos() * (2 / size) ** 0.5
    basis[0] *= 0.5**0.5
    return basis
