"""GradientSHAP: expected gradients of noisy copies of the image.

    M_p = mean over j of  sum over c of  (x_j - b_j)_cp dy/dx_cp ( b_j + a_j (x_j - b_j) )

    x_j = x + sigma (max x - min x) e_j,    a_j uniform in [0, 1],  e_j normal

The baselines b_j are those of expected_gradients: 'pink' (noise with the amplitudes of
photographs), 'colours', or a tensor (k, c, h, w) or (k, c, 1, 1) in model space, of which one is
drawn for every sample. Without noise it differs from expected_gradients only in its points a_j,
which that method spreads evenly and therefore needs fewer of. All images share the draws, made
from `seed`.

    visxai.Engine().explain("cat.jpg", method="gradient_shap(samples=50, sigma=0.1)")

Cost: 1 + samples forwards, samples backwards.
Source: Lundberg & Lee's package shap (GradientExplainer); Erion et al., Nature Machine Intelligence
2021; Smilkov et al., SmoothGrad, 2017 (arXiv 1706.03825).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.expected_gradients import baselines_of, check_baselines
from visxai.methods.smooth_grad import Noise
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class GradientShap(Method):
    """Expected gradients under noise; see the module's docstring.

    Attributes:
        samples: Points, each on the path from a baseline to a noisy copy of the image.
        sigma: Standard deviation of the noise, relative to each image's range of values.
        baselines: 'pink', 'colours', or a tensor (k, c, h, w) or (k, c, 1, 1) in model space.
        seed: Seed of the points, the noise and the baselines.
    """

    samples: int = 50
    sigma: float = 0.1
    baselines: str | Tensor = "pink"
    seed: int = 0

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 1, "at least 1 sample", self.samples)
        self._require(self.sigma >= 0, "a sigma of at least 0", self.sigma)
        check_baselines(self, self.baselines)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        generator = torch.Generator().manual_seed(self.seed)
        alphas = torch.rand(self.samples, generator=generator).to(x).reshape(-1, 1, 1, 1)
        bank = baselines_of(x, self.baselines, self.samples, generator)
        drawn = torch.arange(self.samples)
        if len(bank) != self.samples:
            drawn = torch.randint(len(bank), (self.samples,), generator=generator)
        drawn = drawn.to(x.device)
        noise = Noise.of(x, self.samples, self.sigma, self.seed)

        def ends(image: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
            return bank[drawn[turn]], x[image] + noise(image, turn)

        def build(image: Tensor, turn: Tensor) -> Tensor:
            start, end = ends(image, turn)
            return start.lerp(end, alphas[turn])

        def weigh(gradient: Tensor, image: Tensor, turn: Tensor) -> Tensor:
            start, end = ends(image, turn)
            return (end - start) * gradient

        rows = Rows(len(x), self.samples, tuple(x.shape[1:]), build)
        total, _ = gradient_sum(model, rows, aim, weigh)
        return Maps(total.sum(1) / self.samples)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.samples, backwards=self.samples)
