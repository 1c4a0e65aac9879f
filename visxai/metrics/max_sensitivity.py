"""Max-sensitivity: how much does the map change when the image hardly does?

    value = max over draws of  ||M(x + e) - M(x)|| / ||M(x)||,    e uniform in -radius..radius

e is drawn for every value of the input in model space, from `seed`, and is the same for all
images. The target stays what it was on the clean image, and maps are compared at their native
resolution. It isn't defined for a zero map.

    metrics.load("max_sensitivity(draws=10, radius=0.02)")

Lower is steadier, not truer: a map that doesn't look at the model's decision, such as attention
rollout or a centred blob, wins trivially.

Cost: `draws` times the method.
Source: Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.metrics.base import Ask, Case, Metric, Scores, explained
from visxai.target import Settled


@dataclass(frozen=True, repr=False)
class MaxSensitivity(Metric):
    """Largest relative change of the map; see the module's docstring.

    Attributes:
        draws: Number of disturbances.
        radius: Largest disturbance of a value in model space.
        seed: Seed of the disturbances.
    """

    draws: int = 10
    radius: float = 0.02
    seed: int = 0

    asks = Ask.MAPS | Ask.METHOD
    better = "lower"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.draws >= 1, "at least 1 draw", self.draws)
        self._require(self.radius > 0, "a radius above 0", self.radius)

    def score(self, case: Case) -> Scores:
        assert case.method is not None
        target = Settled.on_aim(case.target, case.aim)
        generator = torch.Generator().manual_seed(self.seed)
        norm = case.native.flatten(1).norm(dim=1)
        largest = torch.zeros_like(norm)
        for _ in range(self.draws):
            noise = torch.rand(case.x.shape[1:], generator=generator).mul_(2).sub_(1)
            moved = case.x + self.radius * noise.to(case.x)
            maps = explained(case.method, case.probe, moved, target)
            change = (maps - case.native).flatten(1).norm(dim=1)
            largest = torch.maximum(largest, change / norm)
        return Scores(torch.where(norm > 0, largest, torch.nan))
