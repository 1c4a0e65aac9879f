"""Beyond Intuition: heads weighted by their importance, and the last layer integrated.

    R <- R + ( sum_h I_lh A_lh ) R  from the first layer,    R = I at first
    I_lh ∝ mean abs( A_lhᵀ dy/dA_lh ),    sum_h I_lh = 1
    M = R[cls] * mean_h ( mean_k dy(k/20 x)/dA_h[cls] )⁺,    A_h of the last layer, k = 1 ... 20

The first factor says what each token is made of, the second what the last attention's class row
is worth to the score, along the straight path from a blank image (zero in model space) to x. Only
the class row of R is carried, from the last layer down. Where the model averages its patches,
[cls] is the mean over their rows. `points` is the 20.

    visxai.Engine("timm:deit_small_patch16_224").explain("cat.jpg", method="beyond_intuition")

Cost: `points` forwards and as many backwards, all but one down to the last block only.
Source: Chen et al., Beyond intuition: rethinking token attributions inside transformers,
TMLR 2023 (head-wise).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._attention import AttentionMethod
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.models.rows import Rows
from visxai.models.views import Attended
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class BeyondIntuition(AttentionMethod):
    """Token attribution by the importance of heads; see the module's docstring.

    Attributes:
        points: Points on the path from a blank image to x.
    """

    points: int = 20

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.points >= 1, "at least 1 point", self.points)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.attention(x, target, perception_and_worth)
        row, worth = seen.values[:, 0], seen.values[:, 1:]
        if self.points > 1:
            # The path's end is the image itself, whose attention is known already.
            shares = torch.arange(1, self.points, device=x.device) / self.points

            def build(image: Tensor, turn: Tensor) -> Tensor:
                return shares[turn].to(x)[:, None, None, None] * x[image]

            rows = Rows(len(x), self.points - 1, tuple(x.shape[1:]), build)
            along, _ = model.attention_rows(rows, seen.aim, worths, last=True)
            worth = worth + along.sum(1)
        return self.maps(row * (worth / self.points).relu().mean(1), seen)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=self.points, backwards=self.points)


def worths(seen: Attended) -> Tensor:
    """Return dy/dA of the last layer at the class row (n, heads, tokens)."""
    return seen.layers[-1].rows(seen.start)[1]


def perception_and_worth(seen: Attended) -> Tensor:
    """Compute the class row of R, followed by `worths`: (n, 1 + heads, tokens)."""
    row = seen.start
    for layer in reversed(seen.layers):
        mixed, total = torch.zeros_like(row), row.new_zeros(len(row), 1)
        for weights, gradient in layer.heads():
            assert gradient is not None
            importance = (weights.mT @ gradient).abs().mean((2, 3))
            carried = (row[:, None, None] @ weights).squeeze(2)
            mixed = mixed + (importance.unsqueeze(2) * carried).sum(1)
            total = total + importance.sum(1, keepdim=True)
        row = row + mixed / total.clamp_min(torch.finfo(total.dtype).tiny)
    return torch.cat([row.unsqueeze(1), worths(seen)], 1)
