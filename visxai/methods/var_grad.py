"""VarGrad: how much the gradient varies over noisy copies of the image.

    M_p = max over channels c of  mean_j ( G_jcp - mean_j G_jcp )^2

    G_j = dy/dx ( x + sigma (max x - min x) e_j )

e_j is normal noise, j = 1 ... copies, shared by all images and made from `seed`. Unlike
SmoothGrad it doesn't depend on the gradient itself, only on its changes near the image: it marks
where the score bends. On a linear model it is zero.

    visxai.Engine().explain("cat.jpg", method="var_grad")

Cost: 1 + copies forwards, copies backwards.
Source: Adebayo et al., Local explanation methods for deep neural networks lack sensitivity to
parameter values, ICLR workshop 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods.base import Cost, Maps, Method
from visxai.methods.smooth_grad import Noise
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class VarGrad(Method):
    """The variance of the gradient under noise; see the module's docstring.

    Attributes:
        copies: Number of noisy copies, at least 2.
        sigma: Standard deviation of the noise, relative to each image's range of values.
        seed: Seed of the noise.
    """

    copies: int = 25
    sigma: float = 0.15
    seed: int = 0

    needs = Need.INPUT_GRADIENT

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.copies >= 2, "at least 2 copies", self.copies)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        noise = Noise.of(x, self.copies, self.sigma, self.seed)
        rows = Rows(len(x), self.copies, tuple(x.shape[1:]), lambda i, j: x[i] + noise(i, j))
        mean: Tensor | None = None
        spread = torch.zeros(())
        count = torch.zeros(len(aim), 1, 1, 1, device=x.device)
        for block in model.gradients(rows, aim):
            if mean is None:
                mean = block.gradient.new_zeros(len(aim), *rows.shape)
                spread = torch.zeros_like(mean)
            # Map by map and turn by turn (Welford): a difference of two sums would lose the digits.
            for index, gradient in zip(block.map.tolist(), block.gradient, strict=True):
                count[index] += 1
                away = gradient - mean[index]
                mean[index] += away / count[index]
                spread[index] += away * (gradient - mean[index])
        if mean is None:
            return Maps(torch.zeros(0, *x.shape[2:], device=x.device))
        return Maps((spread / self.copies).clamp_min(0).amax(1))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.copies, backwards=self.copies)
