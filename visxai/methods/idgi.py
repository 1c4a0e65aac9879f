"""IDGI: every step's change of the score, shared out by the squared gradient.

    M_p = sum over steps j of  ( y(x_j+1) - y(x_j) ) * sum over c of g_cp(x_j)^2 / |g(x_j)|^2

x_0 = b, ..., x_steps = x lie evenly on the straight path from the baseline, g is dy/dx. Only the
part of the gradient's direction that changes the score is kept, so the noise that a path's other
directions pick up is left out. Complete by construction: the map sums to y(x) - y(b), except for
steps whose gradient is exactly zero; the relative error is recorded all the same.

    visxai.Engine().explain("cat.jpg", method="idgi(steps=50)")

Cost: 1 + steps forwards, steps backwards.
Source: Yang et al., IDGI: a framework to eliminate explanation noise from integrated gradients,
CVPR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import baseline_like
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.integrated_gradients import Path, incompleteness
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Idgi(Method):
    """Important direction gradient integration; see the module's docstring.

    Attributes:
        steps: Steps of the path.
        baseline: Start of the path in model space: a number, 'mean', 'blur' or a tensor.
    """

    steps: int = 50
    baseline: float | str | Tensor = 0.0

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        path = Path(x, baseline_like(x, self.baseline).expand_as(x), aim)
        alphas = (torch.arange(self.steps, device=x.device) / self.steps).to(x)
        size = (len(aim), *x.shape[2:])
        maps, share = clean.new_zeros(size), clean.new_zeros(size)
        start, last = torch.zeros_like(clean), torch.zeros_like(clean)
        for block in model.gradients(path.at(alphas.expand(len(x), self.steps)), aim):
            power = block.gradient.square().sum(1)
            total = power.sum((1, 2), keepdim=True)
            # A zero gradient has no direction, so its step attributes nothing.
            shares = torch.where(total > 0, power / total, 0).to(maps)
            for index in sorted(set(block.map.tolist())):
                mine = block.map == index
                values, first = block.value[mine].to(last), int(block.turn[mine][0]) == 0
                if first:
                    start[index] = last[index] = values[0]
                # A step ends where the next step starts, which may be in the next block.
                values = torch.cat([last[index : index + 1], values])
                weights = torch.cat([share[index : index + 1], shares[mine]])
                maps[index] += torch.einsum("n,nhw->hw", values.diff(), weights[:-1])
                last[index], share[index] = values[-1], weights[-1]
        maps += (clean - last).reshape(-1, 1, 1) * share
        return Maps(maps, {"completeness": incompleteness(maps, clean - start)})

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.steps, backwards=self.steps)
