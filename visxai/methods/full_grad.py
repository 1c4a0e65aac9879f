"""FullGrad: gradient times input, and gradient times bias at every layer that has one.

    M = psi( x g ) + sum over layers l, channels k of  psi( b_lk g_lk )

    psi(z) = enlarged( ( |z| - min |z| ) / ( max |z| - min |z| ) )

g is dy/dx, g_l the gradient at the output of convolution or batch norm l, b_l its bias (of a
batch norm in eval mode: beta - gamma mean / std). The minimum and maximum of psi are over the
channels and positions of a layer. For a network of linear layers and ReLUs, x g and all b_l g_l,
those of linear layers included, add up to y exactly: no part of the score is left out. Where
other layers are in between (GELU, attention), the sum is an approximation.

    visxai.Engine().explain("cat.jpg", method="full_grad")

Cost: two forwards (the class is settled on the first), one backward.
Source: Srinivas & Fleuret, Full-gradient representation for neural network visualization,
NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ModelError
from visxai.methods._maps import quotient, upsample
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target

BIASED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, repr=False)
class FullGrad(Method):
    """Gradients at the input and at all biases; see the module's docstring."""

    needs = Need.MODULE

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
            size = tuple(inputs.shape[2:])
            placed = [part for part in decomposed(network, inputs, which) if part.ndim == 4]
            if any(len(part) != len(inputs) for part in placed):
                raise ModelError(
                    "expected a network whose layers keep one row an image, got one that cuts "
                    "images apart or joins them: use a method at the input or at one layer"
                )
            return torch.stack([upsample(scaled(part).sum(1), size) for part in placed]).sum(0)

        return Maps(model.through(x, model.aim(x, target), run))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2, backwards=1)


def decomposed(network: nn.Module, inputs: Tensor, which: Tensor) -> list[Tensor]:
    """Split the target's scalars into what the input adds and what each bias adds.

    Args:
        network: From (inputs, map (n,)) to scalars (n, 1), as `Model.through` runs it.
        inputs: The images (n, c, h, w).
        which: The map of each image.

    Returns:
        x g (n, c, h, w), then b g of each run of a layer with a bias: (n, k, u, v) of convolutions
        and batch norms, (n, ...) of linear layers. All float32.
    """
    outputs: list[tuple[Tensor, Tensor]] = []

    def keep(part: nn.Module, _args: Any, output: Tensor) -> Tensor:
        bias = bias_of(part)
        if bias is not None and output.requires_grad:
            outputs.append((bias, output))
            return output.clone()  # what follows may work in place
        return output

    handles = [p.register_forward_hook(keep) for p in network.modules() if isinstance(p, BIASED)]
    try:
        leaf = inputs.requires_grad_()
        value = network(leaf, which)
    finally:
        for handle in handles:
            handle.remove()
    found = torch.autograd.grad(
        value.sum(), [leaf, *(output for _, output in outputs)], allow_unused=True
    )
    parts = [(leaf * found[0]).detach().float()]
    for (bias, output), gradient in zip(outputs, found[1:], strict=True):
        if gradient is not None:
            shape = (-1, 1, 1) if output.ndim == 4 and output.shape[1] == len(bias) else (-1,)
            parts.append(bias.reshape(shape) * gradient.float())
    return parts


def bias_of(part: nn.Module) -> Tensor | None:
    """Return what a layer adds to its weighted input (k,), float32; None where it adds nothing."""
    bias: Any = getattr(part, "bias", None)
    if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
        mean, variance = part.running_mean, part.running_var
        if mean is None or variance is None:
            return None
        factor = (variance.float() + part.eps).rsqrt()
        if part.weight is not None:
            factor = factor * part.weight.float()
        bias = (0 if bias is None else bias.float()) - mean.float() * factor
    return None if bias is None else bias.detach().float()


def scaled(part: Tensor) -> Tensor:
    """Stretch the magnitudes of each row of a part (n, k, u, v) to 0..1; a flat row becomes 0."""
    magnitude = part.abs()
    low = magnitude.amin((1, 2, 3), keepdim=True)
    return quotient(magnitude - low, magnitude.amax((1, 2, 3), keepdim=True) - low)
