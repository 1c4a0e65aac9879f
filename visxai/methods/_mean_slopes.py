"""The integral of a gradient along a path, with mean slopes of the activation functions.

Where a path crosses a kink of a ReLU, the gradient jumps, and points beside the kink can't say
where it was. Between two points, though, a unit's input z goes nearly straight, so the mean slope
of its activation f over a part of the path from z_low to z_high is known:

    ( f(z_high) - f(z_low) ) / ( z_high - z_low )

Every point stands for the part of the path that is nearer to it than to its neighbours, and the
backward pass uses these slopes in place of f'(z). With more points it becomes the same integral;
for a network with one layer of activations any number of points is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import ModelError
from visxai.methods._rectified import activations
from visxai.models.interface import Model
from visxai.models.rows import wide
from visxai.target import Aim

_SMALL = 1e-6  # a change of an activation's input below this counts as none


def integral(
    model: Model, x: Tensor, baseline: Tensor, aim: Aim, alphas: Tensor, weights: Tensor
) -> Tensor:
    """Integrate (x - baseline) times the gradient, all points of a path in one forward.

    Args:
        model: The model.
        x: The images (r, c, h, w), one for each map.
        baseline: The baselines (r, c, h, w).
        aim: The target, settled on one image for each map.
        alphas: The points (n,) in 0..1, ascending.
        weights: The points' weights (n,).

    Returns:
        Maps (r, h, w), float32.

    Raises:
        ModelError: The network has no activation function that is a module.
    """
    name = model.ref.name

    def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
        parts = activations(network)
        if not parts:
            raise ModelError(
                "expected a model with ReLU, GELU or other activation modules, whose slopes are "
                f"averaged, but {name} has none: use schedule='adaptive'"
            )
        handles = [part.register_forward_hook(averaged(len(alphas))) for part in parts]
        try:
            maps = []
            for image, number in zip(inputs, which, strict=True):
                start = baseline[number].to(image)
                points = start + alphas.to(image).reshape(-1, 1, 1, 1) * (image - start)
                leaf = points.requires_grad_()
                value = network(leaf, number.expand(len(alphas)))
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
                total = torch.einsum("n,nchw->chw", weights.to(gradient), gradient)
                maps.append(wide((image - start) * total).sum(0))
            return torch.stack(maps)
        finally:
            for handle in handles:
                handle.remove()

    return model.through(x, aim, run)


def averaged(count: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """Make a forward hook that gives an activation its mean slopes along a path.

    Args:
        count: The points of the path, in order along the first axis of what the activation is
            given; an activation that is given something else keeps its own slopes.
    """

    def hook(part: nn.Module, given: Any, output: Tensor) -> Tensor:
        z = given[0]
        if len(z) != count or output.shape != z.shape:
            return output
        with torch.no_grad():
            at = wide(z.detach())
            middle = (at[1:] + at[:-1]) / 2
            low, high = torch.cat([at[:1], middle]), torch.cat([middle, at[-1:]])
            run = high - low
            still = run.abs() < _SMALL
            # Not by calling the module, whose hook this is.
            rise = wide(part.forward(high)) - wide(part.forward(low))
            slope = rise / run.masked_fill(still, 1)
        line = output.detach() + slope.to(output) * (z - z.detach())
        return torch.where(still, output, line)

    return hook
