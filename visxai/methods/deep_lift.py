"""DeepLIFT: contributions to the score's change from a baseline, by slopes instead of derivatives.

    M_p = sum over channels c of  m_cp (x - b)_cp,    where at each activation function f(z)

    m_z = m_f ( f(z) - f(z_b) ) / ( z - z_b )                  (the rescale rule)

x is the image, b the baseline, z and z_b what reaches f for either. Where z and z_b are the same,
f's own derivative is taken. A maximum over positions gives its change to the place of the larger
of both maxima. A saturated f, whose derivative is zero, still passes what it contributes. For
networks of linear layers, activation functions and maxima, the map adds up to y(x) - y(b)
exactly; a network for which it misses that by over 10 % (attention, layer norms, products of
activations) is refused.

    visxai.Engine("torchvision:resnet18").explain("cat.jpg", method="deep_lift")

Cost: one forward, one of the baseline, and one of both together with its backward.
Source: Shrikumar et al., Learning important features through propagating activation differences,
ICML 2017; maxima as in Lundberg & Lee, A unified approach to interpreting model predictions,
NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._deep_lift import contributions
from visxai.methods._maps import baseline_like
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class DeepLift(Method):
    """Contributions by the rescale rule; see the module's docstring.

    Attributes:
        baseline: The baseline in model space: a number, 'mean', 'blur' or a tensor.
    """

    baseline: float | str | Tensor = 0.0

    needs = Need.SCORES | Need.MODULE

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        paint = baseline_like(x, self.baseline).expand_as(x)
        return Maps(contributions(model, x, aim, clean, paint))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=4, backwards=2)
