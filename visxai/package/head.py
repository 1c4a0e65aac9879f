"""The part of a packed network that makes its maps: a class activation map's, or LeGrad's."""

from __future__ import annotations

from torch import Tensor

from visxai.methods.base import Cam
from visxai.methods.legrad import Legrad
from visxai.models.pytorch.mapped import Explain, Parts, chosen, traced
from visxai.models.pytorch.model import TorchModel
from visxai.package.tokens import Sensitivity


def trace(
    model: TorchModel, method: Cam | Legrad, x: Tensor, target: int | None, given: bool
) -> Parts:
    """Trace the part of a network that makes a method's maps; see `Mapped.trace`.

    Args:
        model: The network, in float32.
        method: The class activation map, or LeGrad.
        x: Two inputs (2, c, h, w).
        target: The class that maps explain, None for the strongest of each image.
        given: Whether the class of each image is another input.
    """
    if not isinstance(method, Legrad):
        return model.mapped(method.layers(model, x), method.maps, x, target).trace(x, given)
    trunk = Sensitivity(model, x)
    return traced(_legrad(trunk, target), trunk, x, 0, given)


def _legrad(sensitivity: Sensitivity, target: int | None) -> Explain:
    """Return the function from what a forward leaves to scores and LeGrad's maps."""
    left = 3 * len(sensitivity.tokens.blocks)

    def explain(*given: Tensor) -> tuple[Tensor, Tensor]:
        seen, wanted = given[:left], given[left:]
        return sensitivity.explain(lambda scores: chosen(scores, target, *wanted), seen)

    return explain
