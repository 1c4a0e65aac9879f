"""SquareGrad: the mean squared gradient over noisy copies of the image.

    M_p = max over channels c of  mean_j ( dy/dx_cp ( x + sigma (max x - min x) e_j ) )^2

e_j is normal noise, j = 1 ... copies, shared by all images and made from `seed`. Squaring takes the
sign away and lets large gradients count more than many small ones. It is smooth_grad(squared=True)
under the name that papers give it.

    visxai.Engine().explain("cat.jpg", method="square_grad")

Cost: 1 + copies forwards, copies backwards.
Source: Hooker et al., A benchmark for interpretability methods in deep neural networks,
NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods.base import Cost, Maps, Method
from visxai.methods.smooth_grad import SmoothGrad
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class SquareGrad(Method):
    """The mean squared gradient under noise; see the module's docstring.

    Attributes:
        copies: Number of noisy copies.
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
        self._require(self.copies >= 1, "at least 1 copy", self.copies)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        inner = SmoothGrad(self.copies, self.sigma, squared=True, seed=self.seed)
        return inner(model, x, target)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.copies, backwards=self.copies)
