"""DeepLIFT SHAP: DeepLIFT averaged over many baselines.

    M = mean over j of  DeepLIFT of x against b_j,    j = 1 ... samples

No single colour then counts as "absent": the map adds up to y(x) - mean y(b), and approximates
Shapley values of the pixels over the baselines. The baselines are those of expected_gradients:
'pink' (noise with the amplitudes of photographs), 'colours', or a tensor (k, c, h, w) or (k, c,
1, 1) in model space, used in turn. All images share the draws, made from `seed`. It serves the
networks that deep_lift serves.

    visxai.Engine("torchvision:resnet18").explain("cat.jpg", method="deep_lift_shap(samples=8)")

Cost: one forward, and for each sample one of the baseline and one of both with its backward.
Source: Lundberg & Lee, A unified approach to interpreting model predictions, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._deep_lift import contributions
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.expected_gradients import baselines_of, check_baselines
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class DeepLiftShap(Method):
    """DeepLIFT in expectation over baselines; see the module's docstring.

    Attributes:
        samples: Number of baselines.
        baselines: 'pink', 'colours', or a tensor (k, c, h, w) or (k, c, 1, 1) in model space.
        seed: Seed of the drawn baselines.
    """

    samples: int = 8
    baselines: str | Tensor = "pink"
    seed: int = 0

    needs = Need.SCORES | Need.MODULE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 1, "at least 1 sample", self.samples)
        check_baselines(self, self.baselines)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        generator = torch.Generator().manual_seed(self.seed)
        bank = baselines_of(x, self.baselines, self.samples, generator)
        total = torch.zeros(len(aim), *x.shape[2:], device=x.device)
        for sample in range(self.samples):
            paint = bank[sample % len(bank)].expand_as(x)
            total += contributions(model, x, aim, clean, paint)
        return Maps(total / self.samples)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + 3 * self.samples, backwards=2 * self.samples)
